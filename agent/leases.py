"""Leases: which claims are in the hands of a worker that is still believed alive.

A lease is registered and looked up on the store's writer thread, inside the units that claim and recover, so a claim is never
seen without its lease. It is judged by the monotonic clock: a process that was stopped for an hour finds its lease expired
before it sends.
"""

from __future__ import annotations

from state.model.clock import Clock
from state.model.ids import Fence


class Leases:
    """The leases of one running agent. What an earlier run held is held by nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expiries: dict[Fence, float] = {}

    def grant(self, fence: Fence, seconds: float) -> None:
        """Hold `fence` for `seconds` from now."""
        self._expiries[fence] = self._clock.monotonic() + seconds

    def holds(self, fence: Fence) -> bool:
        """Whether `fence` is held and has not expired."""
        return self._expiries.get(fence, float("-inf")) > self._clock.monotonic()

    def end(self, fence: Fence) -> None:
        """The worker is done with it."""
        self._expiries.pop(fence, None)
