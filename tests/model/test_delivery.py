"""What is done about a delivery in doubt: resend inside the memory, else probe late enough and twice, else a person."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.delivery import TRANSITIONS, DeliveryState, Doubt, TargetMemory, Verdict, denial_counts, judge
from state.testing import NOON

CALL = timedelta(seconds=5)
HOUR = timedelta(hours=1)


def sent(*, ago: timedelta, denied_ago: timedelta | None = None) -> Doubt:
    return Doubt(
        first_sent_at=NOON - ago,
        last_sent_at=NOON - ago,
        last_denied_at=None if denied_ago is None else NOON - denied_ago,
    )


def test_inside_the_memory_the_same_call_goes_again() -> None:
    memory = TargetMemory(key_lifetime=HOUR)
    assert judge(sent(ago=timedelta(minutes=1)), memory, now=NOON, call_deadline=CALL) == (Verdict.RESEND, NOON)


def test_a_call_that_would_end_after_the_memory_does_is_not_sent() -> None:
    memory = TargetMemory(key_lifetime=HOUR)
    late = sent(ago=HOUR - timedelta(seconds=4))
    assert judge(late, memory, now=NOON, call_deadline=CALL)[0] is Verdict.ASK_A_PERSON


def test_a_target_without_memory_or_probe_waits_for_a_person() -> None:
    assert judge(sent(ago=HOUR), TargetMemory(), now=NOON, call_deadline=CALL)[0] is Verdict.ASK_A_PERSON


def test_a_probe_waits_until_nothing_can_land_any_more() -> None:
    memory = TargetMemory(lands_within=timedelta(minutes=2), can_probe=True)
    doubt = sent(ago=timedelta(minutes=1))
    assert judge(doubt, memory, now=NOON, call_deadline=CALL) == (Verdict.WAIT, NOON + timedelta(minutes=1))
    assert not denial_counts(doubt, memory, asked_at=NOON)
    assert denial_counts(doubt, memory, asked_at=NOON + timedelta(minutes=1))


def test_after_one_denial_it_is_asked_again_and_not_at_once() -> None:
    memory = TargetMemory(lands_within=timedelta(minutes=2), can_probe=True)
    doubt = sent(ago=timedelta(minutes=10), denied_ago=timedelta(seconds=1))
    verdict, at = judge(doubt, memory, now=NOON, call_deadline=CALL)
    assert (verdict, at) == (Verdict.WAIT, NOON - timedelta(seconds=1) + timedelta(minutes=2))


@given(
    ago=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)),
    lifetime=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2)),
    lands=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)),
    can_probe=st.booleans(),
)
def test_a_doubt_never_leads_to_a_blind_send(
    ago: timedelta, lifetime: timedelta, lands: timedelta, can_probe: bool
) -> None:
    memory = TargetMemory(key_lifetime=lifetime, lands_within=lands, can_probe=can_probe)
    verdict, at = judge(sent(ago=ago), memory, now=NOON, call_deadline=CALL)
    assert verdict is not Verdict.SEND
    assert verdict is not Verdict.RESEND or ago + CALL < lifetime
    assert verdict is not Verdict.PROBE or ago >= lands
    assert at >= NOON or verdict is not Verdict.WAIT


@pytest.mark.parametrize("state", list(DeliveryState))
def test_what_is_at_the_target_never_becomes_owed_again(state: DeliveryState) -> None:
    if DeliveryState.DELIVERED in TRANSITIONS[state]:
        assert state in {DeliveryState.INFLIGHT, DeliveryState.IN_DOUBT, DeliveryState.DELAYED, DeliveryState.PARKED}
    assert TRANSITIONS[DeliveryState.DELIVERED] == frozenset()
