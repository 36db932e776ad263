"""A circuit breaker for one target: an outage is waited out, tried by one call at a time, and parks nothing.

It waits by the monotonic clock: a wall clock that is set neither shortens nor lengthens a pause.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from state.model.clock import Clock
from state.model.retry import RetryPolicy, honoured

OUTAGE: Final = RetryPolicy(longest=timedelta(minutes=1))
"""How a target that is down is tried."""


class Breaker:
    """Closed: calls go. Open: none goes before `retry_at`; then one tries, and its answer closes or reopens."""

    def __init__(self, policy: RetryPolicy, dice: random.Random, clock: Clock) -> None:
        self._policy = policy
        self._dice = dice
        self._clock = clock
        self._trying = False
        self._until: float | None = None  # monotonic
        self.failures = 0  # calls in a row that did not get through
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether the target counts as down."""
        return self._until is not None

    @property
    def retry_at(self) -> datetime | None:
        """When a call may try again, by the wall clock as it stands; None where it is closed."""
        if self._until is None:
            return None
        return self._clock.now() + timedelta(seconds=self._until - self._clock.monotonic())

    @property
    def next_try(self) -> datetime | None:
        """When a call may try again; None where it is closed, and while one tries: its answer is waited for."""
        return None if self._trying else self.retry_at

    def lets_through(self) -> bool:
        """Whether a call may go now. Of an open breaker that is one trial; the caller owes `succeed`, `fail` or `forgo`."""
        if self._until is None:
            return True
        if self._trying or self._clock.monotonic() < self._until:
            return False
        self._trying = True
        return True

    def succeed(self) -> bool:
        """A call got through. Answers whether that closed it.

        One that was under way when it opened says nothing about afterwards: what was asked for by Retry-After still holds.
        """
        if not self._trying:
            return False
        self._trying = False
        self.failures, self._until, self.reason = 0, None, ""
        return True

    def fail(self, *, reason: str, retry_after: timedelta | None) -> None:
        """A call did not get through.

        Calls that were under way when it opened add nothing to what the first one said, but may ask for a longer pause.
        """
        now = self._clock.monotonic()
        until = now if self._until is None else self._until
        if self._trying or self._until is None:
            self.failures += 1
            self.reason = reason
            until = now + self._policy.delay(self.failures, dice=self._dice).total_seconds()
        self._trying = False
        self._until = max(until, now + honoured(retry_after).total_seconds())

    def forgo(self) -> None:
        """The trial had nothing to send."""
        self._trying = False
