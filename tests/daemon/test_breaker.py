"""The breaker of one target: what opens it, what closes it, and what does neither."""

from __future__ import annotations

import random
from datetime import timedelta

from agent.breaker import Breaker
from state.model.retry import RetryPolicy
from state.testing import NOON

MINUTE = timedelta(minutes=1)


def a_breaker() -> Breaker:
    return Breaker(RetryPolicy(first=timedelta(seconds=1), longest=MINUTE), random.Random(1))


def test_a_success_that_was_under_way_when_the_target_asked_for_a_pause_does_not_end_the_pause() -> None:
    breaker = a_breaker()
    breaker.fail(NOON, reason="HTTP 503", retry_after=5 * MINUTE)
    assert not breaker.succeed()
    assert not breaker.lets_through(NOON + 4 * MINUTE)
    assert breaker.lets_through(NOON + 5 * MINUTE)


def test_one_call_tries_and_its_success_closes() -> None:
    breaker = a_breaker()
    breaker.fail(NOON, reason="refused", retry_after=None)
    assert breaker.lets_through(NOON + MINUTE)
    assert not breaker.lets_through(NOON + MINUTE), "one at a time"
    assert breaker.succeed()
    assert (breaker.is_open, breaker.failures, breaker.reason) == (False, 0, "")


def test_a_trial_that_had_nothing_to_send_is_given_back() -> None:
    breaker = a_breaker()
    breaker.fail(NOON, reason="refused", retry_after=None)
    assert breaker.lets_through(NOON + MINUTE)
    breaker.forgo()
    assert breaker.is_open
    assert breaker.lets_through(NOON + MINUTE)


def test_failures_under_way_when_it_opened_add_nothing_but_a_longer_wish() -> None:
    breaker = a_breaker()
    first = breaker.fail(NOON, reason="refused", retry_after=None)
    assert breaker.fail(NOON, reason="refused", retry_after=None) == first
    assert breaker.failures == 1
    assert breaker.fail(NOON, reason="HTTP 503", retry_after=MINUTE) == NOON + MINUTE


def test_a_wall_clock_that_went_back_does_not_keep_it_open_for_longer_than_the_longest_wish() -> None:
    breaker = a_breaker()
    breaker.fail(NOON, reason="refused", retry_after=None)
    last_year = NOON - timedelta(days=365)
    assert not breaker.lets_through(last_year)
    assert breaker.lets_through(last_year + timedelta(hours=1))
