"""Whose turn it is: lanes share a target by the weight of their tier, and none starves. Pure; stride scheduling.

Each lane has a virtual time that advances by work / weight; the lane that is furthest behind goes first. A lane that was idle
does not collect a claim on the past: it joins at the time of those that worked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from state.lanes import Lane


class FairShares:
    """The turns of one target's lanes."""

    def __init__(self, weights: Mapping[int, int]) -> None:
        self._weights = dict(weights)
        self._times: dict[int, float] = {}
        self._now = 0.0

    def order(self, lanes: Iterable[Lane]) -> Sequence[Lane]:
        """The lanes, the one whose turn it is first."""
        return sorted(lanes, key=lambda lane: (max(self._times.get(lane.id, 0.0), self._now), lane.tier, lane.id))

    def charge(self, lane: Lane, work: int) -> None:
        """The lane did `work` deliveries."""
        start = max(self._times.get(lane.id, 0.0), self._now)
        self._now = start
        self._times[lane.id] = start + work / self._weights.get(lane.tier, 1)
