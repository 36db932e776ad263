"""How long others will still take to get what waits for them: what was left for each, looked at now and then for a minute."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Final

LOOKS_EVERY: Final = 5.0
"""Seconds."""

_LOOKS: Final = 13  # a minute's worth


class Pace:
    """What was left, by name, at the last looks."""

    def __init__(self) -> None:
        self._looks: defaultdict[str, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=_LOOKS))

    def note(self, left: Mapping[str, int], now: float) -> None:
        """So much is left for each. `now` is monotonic, in seconds."""
        for name, count in left.items():
            if count == 0:
                self._looks.pop(name, None)  # what waits next begins a backlog of its own
            else:
                self._looks[name].append((now, count))

    def done_in(self, name: str) -> float | None:
        """Seconds until nothing is left, at the rate of the last minute; None where it does not become less."""
        looks = self._looks.get(name)
        if not looks:
            return None
        (began, before), (now, left) = looks[0], looks[-1]
        return left * (now - began) / (before - left) if left < before else None
