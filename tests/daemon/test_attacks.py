"""Attacks on the promises: hostile connectors, clocks, words and moments. The ledger of the target judges."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from agent.breaker import Breaker
from connectors.base import Found, NotFound, Outcome, Parcel
from state.model.delivery import OutcomeKind, TargetMemory
from state.model.errors import DistctlError, InDoubtError, NotConnectedError, TransientError
from state.model.estate import LimitSpec
from state.model.retry import RetryPolicy
from state.testing import NOON
from tests.daemon.test_relay import ACCEPTED, QUICK, always, an_event, first, running

HALF_A_CHARACTER = os.fsdecode(b"caf\xe9.json")


@pytest.mark.parametrize("nonsense", [None, [None], ["accepted"], 7])
async def test_a_connector_that_answers_nonsense_in_the_trial_call_does_not_keep_its_target_shut(
    tmp_path: Path, nonsense: object
) -> None:
    limits = LimitSpec(in_flight=1, deadline=timedelta(seconds=1))
    async with running(tmp_path, always(NotConnectedError("refused")), limits=limits) as rig:
        answer = rig.sink.deliver
        is_nonsense = True

        async def deliver(parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
            nonlocal is_nonsense
            if is_nonsense and rig.relay.breaker.is_open:
                is_nonsense = False
                rig.sink.script = always(ACCEPTED)
                return cast("Sequence[Outcome | DistctlError]", nonsense)
            return await answer(parcels)

        rig.sink.deliver = deliver  # type: ignore[method-assign] # a third party's connector may be wrong
        await rig.owe(an_event("K", 1), an_event("L", 2))
        await rig.until_counted("in_doubt", 1)
        await rig.until_counted("delivered", 1)


@pytest.mark.parametrize(
    "answer",
    [
        Outcome(kind=OutcomeKind.ACCEPTED, reference=HALF_A_CHARACTER, detail=HALF_A_CHARACTER),
        InDoubtError(HALF_A_CHARACTER, code=HALF_A_CHARACTER),
        TransientError(HALF_A_CHARACTER),
        Outcome(kind=OutcomeKind.REJECTED, detail=HALF_A_CHARACTER),
        Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta.max),
    ],
)
async def test_words_and_wishes_that_no_store_can_hold_stop_nobody(
    tmp_path: Path, answer: Outcome | DistctlError
) -> None:
    limits = LimitSpec(in_flight=1, batch=10, deadline=timedelta(seconds=1))

    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return answer if parcel.subject == "hostile" else ACCEPTED

    async with running(tmp_path, script, limits=limits) as rig:
        await rig.owe(an_event("hostile", 1), an_event("K", 2), an_event("L", 3))
        await rig.until(lambda: len(rig.sink.ledger) >= 2)
        expected = 3 if isinstance(answer, Outcome) and answer.kind is OutcomeKind.ACCEPTED else 2
        await rig.until_counted("delivered", expected)


async def test_a_target_that_wants_to_be_asked_again_at_once_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    delayed = Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta(microseconds=1))
    async with running(tmp_path, always(delayed), memory=TargetMemory(can_probe=True)) as rig:
        rig.sink.probe_answer = lambda parcel: Found(outcome=delayed)
        await rig.owe(an_event("K", 1))
        await asyncio.sleep(0.3)
        assert len(rig.sink.probes) <= 0.3 / QUICK.first.total_seconds() + 1


async def test_many_slow_questions_in_one_call_end_at_its_deadline(tmp_path: Path) -> None:
    """Otherwise the lease ends first, every answer is refused, and the doubts are asked for ever."""
    limits = LimitSpec(in_flight=1, batch=40, deadline=timedelta(milliseconds=100))
    memory = TargetMemory(can_probe=True)
    async with running(tmp_path, first(InDoubtError("reset")), limits=limits, memory=memory) as rig:

        async def probe(parcel: Parcel) -> Found | NotFound:
            rig.sink.probes.append(parcel)
            await asyncio.sleep(0.04)
            return Found(outcome=ACCEPTED)

        rig.sink.probe = probe  # type: ignore[method-assign] # a slow target
        await rig.owe(*[an_event(f"K{n}", n) for n in range(40)])
        await rig.until(lambda: rig.sink.probes)
        await asyncio.sleep(0.3)
        assert await rig.count("delivered") >= 1
        assert len(rig.sink.probes) < 40


def test_while_one_call_tries_there_is_no_time_at_which_the_others_look_again() -> None:
    """A time that has passed would have every idle slot look fifty times a second until the trial ends."""
    breaker = Breaker(RetryPolicy(), random.Random(1))
    retry_at = breaker.fail(NOON, reason="refused", retry_after=None)
    assert breaker.lets_through(retry_at)
    assert breaker.next_try is None


def test_a_trial_given_back_leaves_its_time_as_it_was() -> None:
    breaker = Breaker(RetryPolicy(), random.Random(1))
    retry_at = breaker.fail(NOON, reason="refused", retry_after=None)
    assert breaker.lets_through(retry_at)
    breaker.forgo()
    assert breaker.next_try == retry_at
