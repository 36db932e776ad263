"""Attacks on the store's promises: a million rows, one hot key, clocks that were set."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from state import estates
from state.engine import connect_writer
from state.key_queues import bring_dues_near, move_dues
from state.lanes import Lane, next_due
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.delivery import DeliveryState, OrderMode, TargetMemory, Verdict
from state.model.event import Op
from state.outbox import Outbox, Release
from state.testing import NOON
from tests.stores.test_outbox import ESTATE, a_lane, an_event, check_invariants, claim, owe, settle

MANY = 500
MINUTE = timedelta(minutes=1)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    estates.adopt(connection, ESTATE, now=0)
    yield connection
    connection.close()


def in_doubt(connection: sqlite3.Connection, *, sent_at: datetime) -> Lane:
    """A lane whose one delivery is in doubt since a call at `sent_at`, by the clock of then."""
    lane = a_lane(connection)
    owe(connection, lane, an_event("K", 1), now=NOON - timedelta(days=3650))
    claim(connection, lane, now=sent_at)
    with Outbox(connection, now=sent_at) as outbox:
        outbox.recover(lambda _: False)
    return lane


def steps(connection: sqlite3.Connection, action: Callable[[], object]) -> int:
    """How much the engine worked, in thousands of its instructions: the same on every machine."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1_000)
    action()
    connection.set_progress_handler(None, 0)
    return count


def test_in_any_order_the_work_on_one_hot_key_does_not_grow_with_what_waits(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.ANY)
    owe(connection, lane, *[an_event("K", number) for number in range(MANY)])
    assert steps(connection, lambda: settle(connection, *claim(connection, lane))) < 5
    assert steps(connection, lambda: owe(connection, lane, an_event("K", MANY))) < 5
    check_invariants(connection)


def test_looking_for_dues_out_of_reach_does_not_read_every_key(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, *[an_event(f"K{number}", number) for number in range(MANY)])
    assert steps(connection, lambda: bring_dues_near(connection, now=NOON, longest=MINUTE)) < 3


@pytest.mark.parametrize("mode", list(OrderMode))
def test_what_was_never_tried_waits_for_nothing_when_the_clock_was_set_back(
    connection: sqlite3.Connection, mode: OrderMode
) -> None:
    lane = a_lane(connection, mode)
    owe(connection, lane, an_event("K", 1), an_event("K", 2, op=Op.DELTA), now=NOON + 40 * MINUTE)
    assert claim(connection, lane) == []
    bring_dues_near(connection, now=NOON, longest=timedelta(hours=1))
    settle(connection, *claim(connection, lane))
    assert len(claim(connection, lane)) == 1, "neither does what stood behind it"
    check_invariants(connection)


@pytest.mark.parametrize("mode", list(OrderMode))
def test_what_waits_waits_no_longer_when_the_clock_was_set_back(
    connection: sqlite3.Connection, mode: OrderMode
) -> None:
    lane = a_lane(connection, mode)
    owe(connection, lane, an_event("K", 1))
    [tried] = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        later = Release(state=DeliveryState.PENDING, due_at=NOON + MINUTE, code="busy", detail="")
        outbox.release(tried, later)
    back = 40 * MINUTE
    assert move_dues(connection, now=NOON - back, back=back) == 1
    assert next_due(connection, lane.id) == NOON - back + MINUTE
    owe(connection, lane, an_event("L", 2), now=NOON - back)
    assert connection.execute("SELECT due_at FROM deliveries WHERE id = 1").fetchone() == (
        to_millis(NOON - back + MINUTE),
    )


def test_a_doubt_from_a_future_that_a_clock_made_up_is_asked_for_all_the_same(connection: sqlite3.Connection) -> None:
    lane = in_doubt(connection, sent_at=NOON + timedelta(days=3650))
    memory = TargetMemory(lands_within=MINUTE, can_probe=True)
    bring_dues_near(connection, now=NOON, longest=MINUTE)
    assert claim(connection, lane, memory=memory) == [], "the call may still land, counted from now"
    (asked,) = claim(connection, lane, memory=memory, now=NOON + MINUTE)
    assert asked.verdict is Verdict.PROBE
    check_invariants(connection)


def test_a_clock_that_was_set_back_does_not_renew_the_targets_memory(connection: sqlite3.Connection) -> None:
    lane = in_doubt(connection, sent_at=NOON)
    memory = TargetMemory(key_lifetime=timedelta(hours=1), can_probe=True)
    yesterday = NOON - timedelta(days=1)
    bring_dues_near(connection, now=yesterday, longest=MINUTE)
    (asked,) = claim(connection, lane, memory=memory, now=yesterday)
    assert asked.verdict is Verdict.PROBE


def test_a_clock_that_was_set_back_leaves_a_doubt_that_cannot_be_asked_to_a_person(
    connection: sqlite3.Connection,
) -> None:
    lane = in_doubt(connection, sent_at=NOON)
    memory = TargetMemory(key_lifetime=timedelta(hours=1))
    yesterday = NOON - timedelta(days=1)
    bring_dues_near(connection, now=yesterday, longest=MINUTE)
    assert claim(connection, lane, memory=memory, now=yesterday) == []
    assert connection.execute("SELECT state FROM key_queues").fetchall() == [("blocked",)]


def test_a_clock_that_is_corrected_by_a_second_changes_no_verdict(connection: sqlite3.Connection) -> None:
    lane = in_doubt(connection, sent_at=NOON)
    earlier = NOON - timedelta(seconds=1)
    memory = TargetMemory(key_lifetime=timedelta(hours=1))
    bring_dues_near(connection, now=earlier, longest=timedelta(0))
    (again,) = claim(connection, lane, memory=memory, now=earlier)
    assert again.verdict is Verdict.RESEND


def test_judging_again_what_waits_for_a_person_leaves_a_key_alone_that_is_in_flight(
    connection: sqlite3.Connection,
) -> None:
    lane = a_lane(connection, OrderMode.ANY)
    owe(connection, lane, an_event("K", 1))
    claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.recover(lambda _: False)
    assert claim(connection, lane) == []
    owe(connection, lane, an_event("K", 2))
    (under_way,) = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.reconsider()
    memory = TargetMemory(can_probe=True)
    assert claim(connection, lane, memory=memory) == []
    settle(connection, under_way)
    (asked,) = claim(connection, lane, memory=memory)
    assert asked.verdict is Verdict.PROBE
    check_invariants(connection)


def test_a_lane_that_owes_only_behind_the_head_of_another_is_known_to_owe(connection: sqlite3.Connection) -> None:
    """Otherwise nobody works it once it left the estate, and its key is stuck when the head is settled."""
    first, second = a_lane(connection, flow="f", domain="orders"), a_lane(connection, flow="g", domain="orders")
    owe(connection, first, an_event("K", 1))
    owe(connection, second, an_event("K", 2))
    assert estates.of_lane(connection, second.id) == ESTATE
    settle(connection, *claim(connection, first))
    assert estates.of_lane(connection, first.id) is None
    settle(connection, *claim(connection, second))
    assert estates.of_lane(connection, second.id) is None
