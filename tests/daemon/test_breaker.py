"""The breaker of one target: what opens it, what closes it, and what does neither."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from agent.breaker import Breaker
from state.model.retry import RetryPolicy
from state.testing import NOON, FrozenClock

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def breaker(clock: FrozenClock) -> Breaker:
    return Breaker(RetryPolicy(first=timedelta(seconds=1), longest=MINUTE), random.Random(1), clock)


def test_a_success_that_was_under_way_when_the_target_asked_for_a_pause_does_not_end_the_pause(
    breaker: Breaker, clock: FrozenClock
) -> None:
    breaker.fail(reason="HTTP 503", retry_after=5 * MINUTE)
    assert not breaker.succeed()
    clock.advance(4 * MINUTE)
    assert not breaker.lets_through()
    clock.advance(MINUTE)
    assert breaker.lets_through()


def test_one_call_tries_and_its_success_closes(breaker: Breaker, clock: FrozenClock) -> None:
    breaker.fail(reason="refused", retry_after=None)
    clock.advance(MINUTE)
    assert breaker.lets_through()
    assert not breaker.lets_through(), "one at a time"
    assert breaker.succeed()
    assert (breaker.is_open, breaker.failures, breaker.reason, breaker.retry_at) == (False, 0, "", None)


def test_a_trial_that_had_nothing_to_send_is_given_back(breaker: Breaker, clock: FrozenClock) -> None:
    breaker.fail(reason="refused", retry_after=None)
    clock.advance(MINUTE)
    assert breaker.lets_through()
    breaker.forgo()
    assert breaker.is_open
    assert breaker.lets_through()


def test_failures_under_way_when_it_opened_add_nothing_but_a_longer_wish(breaker: Breaker) -> None:
    breaker.fail(reason="refused", retry_after=None)
    first = breaker.retry_at
    breaker.fail(reason="refused", retry_after=None)
    assert (breaker.failures, breaker.retry_at) == (1, first)
    breaker.fail(reason="HTTP 503", retry_after=MINUTE)
    assert breaker.retry_at == NOON + MINUTE


@pytest.mark.parametrize("jump", [timedelta(minutes=-40), timedelta(days=-365), timedelta(days=3650)])
def test_a_wall_clock_that_is_set_neither_shortens_nor_lengthens_a_pause(
    breaker: Breaker, clock: FrozenClock, jump: timedelta
) -> None:
    breaker.fail(reason="HTTP 503", retry_after=MINUTE)
    clock.jump(jump)
    assert not breaker.lets_through()
    assert breaker.retry_at == NOON + jump + MINUTE
    clock.advance(MINUTE)
    assert breaker.lets_through()
