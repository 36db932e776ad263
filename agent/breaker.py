"""A circuit breaker for one target: an outage is waited out, tried by one call at a time, and parks nothing. Pure."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from state.model.retry import RetryPolicy, honoured

OUTAGE: Final = RetryPolicy(longest=timedelta(minutes=1))
"""How a target that is down is tried."""


class Breaker:
    """Closed: calls go. Open: none goes before `retry_at`; then one tries, and its answer closes or reopens."""

    def __init__(self, policy: RetryPolicy, dice: random.Random) -> None:
        self._policy = policy
        self._dice = dice
        self._trying = False
        self.failures = 0  # calls in a row that did not get through
        self.retry_at: datetime | None = None
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether the target counts as down."""
        return self.retry_at is not None

    @property
    def next_try(self) -> datetime | None:
        """When a call may try again; None where it is closed, and while one tries: its answer is waited for."""
        return None if self._trying else self.retry_at

    def lets_through(self, now: datetime) -> bool:
        """Whether a call may go now. Of an open breaker that is one trial; the caller owes `succeed`, `fail` or `forgo`."""
        if self.retry_at is None:
            return True
        self.retry_at = min(self.retry_at, now + self._longest())
        if self._trying or now < self.retry_at:
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
        self.failures, self.retry_at, self.reason = 0, None, ""
        return True

    def fail(self, now: datetime, *, reason: str, retry_after: timedelta | None) -> datetime:
        """A call did not get through. Answers when the next may try.

        Calls that were under way when it opened add nothing to what the first one said, but may ask for a longer pause.
        """
        if self._trying or not self.is_open:
            self.failures += 1
            self.reason = reason
            self.retry_at = now + self._policy.delay(self.failures, dice=self._dice)
        self._trying = False
        self.retry_at = max(self.retry_at or now, now + honoured(retry_after))
        return self.retry_at

    def forgo(self) -> None:
        """The trial had nothing to send."""
        self._trying = False

    def _longest(self) -> timedelta:
        """No pause is longer: where one seems to be, the wall clock went back."""
        return max(self._policy.longest, honoured(timedelta.max))
