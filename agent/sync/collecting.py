"""Fills a frame: which events of which streams go next, so that no tier starves another."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from agent.sync.frames import FRAME_EVENTS, FULL_BYTES, Segment, size_of
from state import streams
from state.model.event import Event
from state.model.stream import BEGINNING, Mark
from state.streams import Marks, PeerId


def shares(owed: Mapping[int, int], weights: Mapping[int, int], room: int) -> dict[int, int]:
    """How many events of each tier fill `room`: by weight, at least one of each that owes; what one leaves the others take."""
    taken: dict[int, int] = {}
    left = {tier: count for tier, count in sorted(owed.items()) if count > 0}
    while left and room > 0:
        whole, free = sum(weights.get(tier, 1) for tier in left), room
        for tier, count in list(left.items()):
            part = min(count, room, max(1, free * weights.get(tier, 1) // whole))
            taken[tier] = taken.get(tier, 0) + part
            left[tier] -= part
            room -= part
            if left[tier] == 0:
                del left[tier]
    return taken


def collect(
    connection: sqlite3.Connection, peer: PeerId, *, epoch: int, after: Marks, weights: Mapping[int, int]
) -> list[Segment]:
    """The next frame for `peer`, which has of our streams of `epoch` what `after` says."""
    ends = streams.sent(connection, peer, epoch=epoch)
    owed = {tier: end.seq - after.get(tier, BEGINNING).seq for tier, end in ends.items()}
    again = streams.again(connection, peer, epoch=epoch)
    segments, room = [], FULL_BYTES
    for tier, count in shares(owed, weights, FRAME_EVENTS).items():
        begin = after.get(tier, BEGINNING)
        events, room = _events(connection, peer, epoch, tier, begin, count, room)
        count_again = min(len(events), max(0, again[tier] - begin.seq))
        segments.append(Segment(tier=tier, after=begin, events=events, again=count_again))
        if room <= 0:
            break
    return segments


def _events(
    connection: sqlite3.Connection, peer: PeerId, epoch: int, tier: int, after: Mark, count: int, room: int
) -> tuple[list[Event], int]:
    """The events that are next, and the room that they leave."""
    events: list[Event] = []
    for event in streams.events_after(connection, peer, epoch=epoch, tier=tier, seq=after.seq, limit=count):
        events.append(event)
        room -= size_of(event)
        if room <= 0:
            break
    return events, room
