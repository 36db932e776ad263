"""How long to wait before trying again: exponential with full jitter, bounded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

LONGEST_WISH: Final = timedelta(hours=1)
"""A partner's Retry-After is honoured up to here; a wish of years is a mistake of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` is the budget of tries that fail by the record's own fault; an outage never uses it up."""

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=5)
    factor: float = 2.0
    attempts: int = 8

    def delay(self, attempt: int, *, dice: random.Random) -> timedelta:
        """The pause after failed try number `attempt` (from 1): between half and the whole of the exponential step."""
        exponent = min(attempt - 1, 60)
        step = min(self.first.total_seconds() * self.factor**exponent, self.longest.total_seconds())
        return timedelta(seconds=step * (0.5 + dice.random() / 2))

    def is_spent(self, attempts: int) -> bool:
        """Whether the budget is used up."""
        return attempts >= self.attempts


def honoured(wish: timedelta | None) -> timedelta:
    """A partner's Retry-After, clamped to between nothing and an hour."""
    return min(max(wish or timedelta(0), timedelta(0)), LONGEST_WISH)
