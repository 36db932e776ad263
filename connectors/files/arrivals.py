"""Which files have come to rest: complete, as far as anybody can tell from outside. Pure but for the times it is handed.

Order: a file that is still moving holds back those after it, so that a later file does not overtake an earlier one; for at
most a minute, so that one that never rests (a log somebody appends to) stops nothing for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.files.folder import Entry
from connectors.files.settings import DoneMarker, Guard, StableSize

HOLDS_BACK_FOR: Final = 60.0  # seconds
LINK_GRACE: Final = 5.0  # seconds: a program that publishes by link and unlink shows two links for a moment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    entry: Entry
    since: float  # monotonic: it has looked like this from then on
    first_seen: float


class Arrivals:
    """What earlier looks at the folder showed. Times are seconds of the monotonic clock."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._looks: dict[str, _Look] = {}
        self._next_rest: float | None = None

    def look(self, listed: Sequence[Entry], names: Collection[str], now: float) -> list[Entry]:
        """The files that may be taken, in the order listed; `names` is everything in the folder."""
        self._looks = {entry.name: self._look(entry, now) for entry in listed}
        if isinstance(self._guard, DoneMarker):
            return [entry for entry in listed if entry.name + self._guard.suffix in names]
        return self._rested(self._guard, now)

    def next_rest(self, now: float) -> float | None:
        """Seconds until a file may have come to rest; None where none is moving."""
        return None if self._next_rest is None else max(self._next_rest - now, 0.0)

    def forget(self, name: str) -> None:
        """It moved after all: it has to rest anew."""
        self._looks.pop(name, None)

    def _look(self, entry: Entry, now: float) -> _Look:
        last = self._looks.get(entry.name)
        if last is None:
            return _Look(entry=entry, since=now, first_seen=now)
        since = last.since if last.entry == entry else now
        return _Look(entry=entry, since=since, first_seen=last.first_seen)

    def _rested(self, guard: StableSize, now: float) -> list[Entry]:
        rested: list[Entry] = []
        is_held = False
        rests_at: list[float] = []
        for look in self._looks.values():
            at = look.since + _needed_rest(look.entry, guard)
            if at > now:
                rests_at.append(at)
                is_held = is_held or _holds_back(look, now)
            elif not is_held:
                rested.append(look.entry)
        self._next_rest = min(rests_at, default=None)
        return rested


def _needed_rest(entry: Entry, guard: StableSize) -> float:
    rest = guard.rest.total_seconds()
    if entry.kind:
        return rest
    if entry.links > 1:
        return max(rest, LINK_GRACE)
    return rest if entry.fingerprint.size else max(rest, guard.empty_rest.total_seconds())


def _holds_back(look: _Look, now: float) -> bool:
    is_plain = not look.entry.kind and look.entry.links == 1 and look.entry.fingerprint.size > 0
    return is_plain and now - look.first_seen < HOLDS_BACK_FOR
