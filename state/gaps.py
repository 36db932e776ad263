"""Gaps: what one agent needed of another's stream when the other had let it go. Both keep them, and nothing closes one.

The stream goes on behind a gap with the chain that it had there, which its sender kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from state import streams
from state.model.clock import from_millis, to_millis
from state.model.stream import BEGINNING, Mark
from state.queries import load
from state.streams import PeerId

_SQL = load("gaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where a stream begins that was let go up to `mark`; the event there was recorded at `until`."""

    mark: Mark
    until: datetime


Beginnings: TypeAlias = Mapping[int, Mapping[int, Beginning]]
"""By epoch of the sender and tier, of streams of which anything was let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events of one stream that its receiver does not have and its sender holds no more: both sequences are among them.

    What came before was recorded at `since`, None where nothing did or nobody knows; the last of them was at `until`.
    """

    epoch: int
    tier: int
    first: int
    last: int
    since: datetime | None
    until: datetime
    is_ours: bool = field(default=False, compare=False)  # of a stream that this store sent
    of_give_back: bool = (
        False  # its sender lost it too, and got back of it what was not let go: nobody knows which are missing
    )


def beginnings(connection: sqlite3.Connection, peer: PeerId) -> Beginnings:
    """Where our streams to `peer` begin."""
    found: dict[int, dict[int, Beginning]] = {}
    for epoch, tier, seq, chain, until in connection.execute(_SQL.beginnings, (peer,)):
        found.setdefault(epoch, {})[tier] = Beginning(mark=Mark(seq, chain), until=from_millis(until))
    return found


def pass_over(
    connection: sqlite3.Connection, peer: PeerId, begin: Beginnings, *, upto_epoch: int, now: datetime
) -> list[Gap]:
    """Go on where the streams of `peer` begin, as far as less of them is here; returns what is missing for good."""
    found = missing(connection, peer, begin, upto_epoch=upto_epoch)
    for gap in found:
        mark = begin[gap.epoch][gap.tier].mark
        streams.receive(connection, peer, epoch=gap.epoch, tier=gap.tier, mark=mark)
    add(connection, peer, found, is_ours=False, now=now)
    return found


def missing(connection: sqlite3.Connection, peer: PeerId, begin: Beginnings, *, upto_epoch: int) -> list[Gap]:
    """What lies before where the streams of `peer` begin and is not here.

    Epochs later than `upto_epoch`, the peer's present one, are none of it.
    """
    found = []
    for epoch, tiers in sorted(begin.items()):
        received = streams.received(connection, peer, epoch=epoch) if epoch <= upto_epoch else {}
        for tier, beginning in sorted(tiers.items()) if epoch <= upto_epoch else ():
            here = received.get(tier, BEGINNING)
            if here.seq >= beginning.mark.seq:
                continue
            since = connection.execute(_SQL.recorded, (peer, epoch, tier, here.seq)).fetchone()
            found.append(
                Gap(
                    epoch=epoch,
                    tier=tier,
                    first=here.seq + 1,
                    last=beginning.mark.seq,
                    since=from_millis(since[0]) if since else None,
                    until=beginning.until,
                )
            )
    return found


def not_given_back(
    connection: sqlite3.Connection, peer: PeerId, *, ended: int, marks: streams.Marks, epoch: int
) -> list[Gap]:
    """Where something was let go here of what `peer` sent before `epoch` and beyond `marks` of its epoch `ended`, and has lost.

    That is known to the frame by which it came. What was listed before is not listed again.
    """
    listed = {(gap.epoch, gap.tier, gap.first): gap.last for gap in list_all(connection, peer) if gap.of_give_back}
    found = []
    for of_epoch, tier, end in connection.execute(_SQL.ended, (peer, ended, epoch)).fetchall():
        mark = marks[tier].seq if of_epoch == ended and tier in marks else 0
        while (of_epoch, tier, mark + 1) in listed:
            mark = listed[of_epoch, tier, mark + 1]
        (before,) = connection.execute(_SQL.number_before, (peer, of_epoch, tier, mark)).fetchone()
        last, number = _last_gone(connection, (peer, of_epoch, tier), mark, before)
        if last <= mark:
            continue
        since, until = connection.execute(_SQL.around, (before, number)).fetchone()
        found.append(
            Gap(
                epoch=of_epoch,
                tier=tier,
                first=mark + 1,
                last=min(last, end),
                since=None if since is None else from_millis(since),
                until=from_millis(until),
                of_give_back=True,
            )
        )
    return found


def _last_gone(
    connection: sqlite3.Connection, stream: tuple[PeerId, int, int], mark: int, before: int
) -> tuple[int, int]:
    """The end of the last frame behind `mark`, and local number `before`, of which something was let go; `mark` if none was.

    The events of a frame have the local numbers next to the one that is noted with it: they were taken in one after another.
    """
    (upto,) = connection.execute(_SQL.let_go_upto).fetchone()
    frames = connection.execute(_SQL.frames, (*stream, mark))
    for seq, number, seq_before, number_before in frames:
        width = seq - (mark if seq_before is None else seq_before)
        first = max(before if number_before is None else number_before, number - width)
        if first < upto and connection.execute(_SQL.count_here, (first, number)).fetchone()[0] < number - first:
            return seq, number
    return mark, before


def add(
    connection: sqlite3.Connection, peer: PeerId, gaps: Iterable[Gap], *, is_ours: bool, now: datetime
) -> list[Gap]:
    """Keep these, of streams of ours or of the peer's; returns those that are new."""
    return [gap for gap in gaps if connection.execute(_SQL.add, _row(peer, gap, is_ours, now)).rowcount]


def list_all(connection: sqlite3.Connection, peer: PeerId) -> list[Gap]:
    """Every gap between this store and `peer`, oldest epoch first."""
    return [
        Gap(
            epoch=epoch,
            tier=tier,
            first=first,
            last=last,
            since=None if since is None else from_millis(since),
            until=from_millis(until),
            is_ours=bool(is_ours),
            of_give_back=bool(of_give_back),
        )
        for is_ours, epoch, tier, first, last, since, until, of_give_back in connection.execute(_SQL.list, (peer,))
    ]


def _row(peer: PeerId, gap: Gap, is_ours: bool, now: datetime) -> tuple[object, ...]:
    since = None if gap.since is None else to_millis(gap.since)
    seqs = (gap.epoch, gap.tier, gap.first, gap.last)
    return (peer, is_ours, *seqs, since, to_millis(gap.until), gap.of_give_back, to_millis(now))
