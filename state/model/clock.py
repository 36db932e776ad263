"""The time port. Pure code takes `now` as an argument; daemons take a `Clock`, so that a simulation can own time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records and monotonic time for leases and retries."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from a fixed, unknown point; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        ...


def to_millis(moment: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC, the form in which the store keeps instants. Refuses a time without offset."""
    if moment.tzinfo is None:
        raise ValueError("an instant needs an offset")
    return round(moment.timestamp() * 1000)


def from_millis(millis: int) -> datetime:
    """The UTC instant of `to_millis`."""
    return datetime.fromtimestamp(millis / 1000, UTC)
