"""Streams between this store and another: what is sent, what the other has of it, what is here of the other's.

A stream's end moves in the transaction that admits its events, and the mark of what was received in the one that takes them
in, so neither has gaps nor forgets. Ends and marks are read here, inside the transaction, and never kept outside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NewType, TypeAlias

from state import inbox
from state.model.errors import InvariantError
from state.model.event import Event
from state.model.ids import EventId, Seq
from state.model.stream import Mark
from state.origins import Origins
from state.queries import load

_SQL = load("streams")

PeerId = NewType("PeerId", int)
"""The local number of another agent; see `state.peers`."""

Marks: TypeAlias = Mapping[int, Mark]
"""By tier."""

Item: TypeAlias = tuple[Seq, EventId, bytes]
"""What is sent of an event: its local number, its id, its data."""


def append(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, tier: int, items: Iterable[Item]) -> int:
    """Send these events to `peer`, behind what it is sent already; returns how many they are."""
    row = connection.execute(_SQL.end, (peer, epoch, tier)).fetchone()
    if row is None:
        connection.execute(_SQL.open, (peer, epoch, tier))
        row = connection.execute(_SQL.end, (peer, epoch, tier)).fetchone()
    stream, seq, chain = row
    end = Mark(seq, chain)

    def behind() -> Iterator[tuple[int, int, Seq, bytes]]:
        nonlocal end
        for number, event, data in items:
            end = end.after(event, data)
            yield stream, end.seq, number, end.chain

    connection.executemany(_SQL.add_item, behind())
    connection.execute(_SQL.move_end, (end.seq, end.chain, stream))
    return end.seq - int(seq)


def tier_for(connection: sqlite3.Connection, peer: PeerId, domain: str, *, epoch: int, tier: int) -> int:
    """By which tier events of the order domain are sent to `peer`: `tier`, or the one before while some are under way by it.

    Streams of two tiers overtake each other, and the events of a key must not.
    """
    row = connection.execute(_SQL.tier_under_way, (peer, domain, epoch)).fetchone()
    return int(row[0]) if row else tier


def note_domain(connection: sqlite3.Connection, peer: PeerId, domain: str, *, epoch: int, tier: int) -> None:
    """Events of the order domain are the last of the stream."""
    connection.execute(_SQL.note_domain, (peer, domain, epoch, tier))


def sent(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> Marks:
    """Where each stream to `peer` ends."""
    return _marks(connection.execute(_SQL.sent, (peer, epoch)))


def acknowledged(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> Marks:
    """How much of each stream `peer` said it has."""
    return _marks(connection.execute(_SQL.acknowledged, (peer, epoch)))


def chains_at(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, marks: Marks) -> dict[int, bytes]:
    """Our own chains at the sequences of `marks`, by tier, where we still hold them."""
    found = {}
    for tier, mark in marks.items():
        row = connection.execute(_SQL.chain_at, (peer, epoch, tier, mark.seq)).fetchone()
        if row is not None:
            found[tier] = row[0]
    return found


def acknowledge(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, marks: Marks) -> None:
    """Note what `peer` says it has."""
    connection.executemany(_SQL.acknowledge, [(peer, epoch, tier, mark.seq) for tier, mark in marks.items()])


def events_after(
    connection: sqlite3.Connection, peer: PeerId, *, epoch: int, tier: int, seq: int, limit: int
) -> Iterator[Event]:
    """The events of a stream behind `seq`, in its order, read one by one. Raises `InvariantError` at a hole."""
    origins = Origins(connection)
    for place, row in enumerate(connection.execute(_SQL.events_after, (peer, epoch, tier, seq, limit)), seq + 1):
        if row[0] != place:
            raise InvariantError(
                f"the stream of tier {tier} lacks its event {place}",
                hint="the store was changed by something else: keep it, and put back the last verified backup",
                code="stream-hole",
            )
        yield inbox.event_of(row[1:], origins)


def received(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> Marks:
    """What is here of the streams of `peer` in its epoch."""
    return _marks(connection.execute(_SQL.received, (peer, epoch)))


def receive(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, tier: int, mark: Mark) -> None:
    """What is here of one stream of `peer`, from this transaction on; its events were admitted before."""
    connection.execute(_SQL.receive, (peer, epoch, tier, mark.seq, mark.chain))
    connection.execute(_SQL.note_arrival, (peer, epoch, tier, mark.seq))


def received_before(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> tuple[int, Marks]:
    """Of what life of `peer` before `epoch` anything was received last, and how much; (0, {}) where nothing was."""
    rows = connection.execute(_SQL.received_before, (peer, epoch)).fetchall()
    return (rows[0][0] if rows else 0), _marks(row[1:] for row in rows)


def acknowledged_before(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> tuple[int, Marks]:
    """In which of our lives before `epoch` `peer` was sent something last, and what it acknowledged of it; (0, {}) in none."""
    (ended,) = connection.execute(_SQL.sent_last_before, (peer, epoch)).fetchone()
    return ended, acknowledged(connection, peer, epoch=ended)


def owed(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> dict[int, int]:
    """How many events `peer` has not acknowledged, by tier."""
    return dict(connection.execute(_SQL.owed, (peer, epoch)).fetchall())


def renumber(connection: sqlite3.Connection, *, ended: int, epoch: int) -> int:
    """Carry what nobody acknowledged in the `ended` epoch over into streams of `epoch`; returns how many events.

    Event ids stay, so what was received all the same is known where it arrives.
    """
    carried = 0
    rows = connection.execute(_SQL.unacknowledged, (ended,))
    for (peer, tier, is_again), group in groupby(rows, key=lambda row: (row[0], row[1], row[5])):
        items = ((Seq(number), EventId(event.hex()), data) for _, _, number, event, data, _ in group)
        moved = append(connection, PeerId(peer), epoch=epoch, tier=tier, items=items)
        if is_again:
            connection.execute(_SQL.set_again, (peer, epoch, tier, moved))
        carried += moved
    connection.execute(_SQL.move_domains, (None, epoch))
    return carried


def mark_again(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, reach: int) -> None:
    """A life of `peer` has ended: it may have had what it acknowledged, and `reach` events more of each stream."""
    connection.execute(_SQL.mark_again, (peer, epoch, reach))


def mark_all_again(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> None:
    """Lives have ended at both ends: `peer` may have had whatever it is sent until this store has gathered."""
    for tier in (1, 2, 3):
        connection.execute(_SQL.open, (peer, epoch, tier))
    connection.execute(_SQL.mark_all_again, (peer, epoch))


def end_marking(connection: sqlite3.Connection) -> None:
    """This store has gathered: what it sends from now on nobody had."""
    connection.execute(_SQL.end_marking)


def again(connection: sqlite3.Connection, peer: PeerId, *, epoch: int) -> dict[int, int]:
    """Up to which place a life of `peer` that ended may have had each stream, by tier."""
    return dict(connection.execute(_SQL.again, (peer, epoch)).fetchall())


def give_back(
    connection: sqlite3.Connection,
    peer: PeerId,
    *,
    epoch: int,
    lost: Mapping[int, tuple[int, int]],
    arose_at: str = "",
    not_at: str = "",
    contract: str = "",
) -> int:
    """Send `peer` again what it sent here in lives that ended; returns how many events.

    `lost` says between which local numbers they lie, by tier. Of those the ones that arose at `arose_at`, or anywhere but at
    `not_at`, and, where it is given, of `contract` only.
    """
    if not lost:
        return 0
    after, upto = min(one for one, _ in lost.values()), max(one for _, one in lost.values())
    rows = connection.execute(_SQL.came_of, (after, upto, arose_at, not_at, contract))
    items = ((Seq(number), EventId(event.hex()), data) for number, event, data in rows)
    return append(connection, peer, epoch=epoch, tier=1, items=items)


def arrived_beyond(
    connection: sqlite3.Connection, peer: PeerId, *, ended: int, marks: Marks, epoch: int
) -> dict[int, tuple[int, int]]:
    """Between which local numbers lies what `peer` sent before `epoch` and beyond `marks` of its epoch `ended`, by tier.

    Other events may lie between them. Tiers of which nothing came beyond are left out.
    """
    found = {}
    for tier in (1, 2, 3):
        seq = marks[tier].seq if tier in marks else 0
        after, upto = connection.execute(_SQL.arrivals_beyond, (peer, tier, ended, seq, epoch)).fetchone()
        if upto > after:
            found[tier] = (after, upto)
    return found


def resupply(connection: sqlite3.Connection, peer: PeerId, *, epoch: int, held: int, marks: Marks) -> int:
    """Put what ended epochs sent and `peer` has lost before what `epoch`, of which it has nothing, is to send.

    `marks` are what it has of the epoch `held`; of those after that it has nothing. Returns how many events are to be sent again,
    0 where nothing of an ended epoch was lost. The streams of `epoch` are numbered anew, which nobody has seen who goes on.
    """
    ended = connection.execute(_SQL.ended, (peer, held, epoch)).fetchall()
    has = {(one, tier): marks[tier].seq if one == held and tier in marks else 0 for one, tier in ended}
    if not sum(connection.execute(_SQL.lose, (peer, *stream, seq)).rowcount for stream, seq in has.items()):
        return 0
    connection.execute(_SQL.forget, (peer, epoch))
    lost = connection.execute(_SQL.lost, (peer, held, epoch)).fetchall()
    connection.execute(_SQL.drop_items, (peer, epoch))
    connection.execute(_SQL.begin_anew, (peer, epoch))
    for tier, group in groupby(lost, key=lambda row: row[0]):
        items = ((Seq(number), EventId(event.hex()), data) for _, number, event, data in group)
        connection.execute(
            _SQL.set_again, (peer, epoch, tier, append(connection, peer, epoch=epoch, tier=tier, items=items))
        )
    connection.execute(_SQL.move_domains, (peer, epoch))
    return len(lost)


def _marks(rows: Iterable[tuple[int, int, bytes]]) -> dict[int, Mark]:
    return {tier: Mark(seq, chain) for tier, seq, chain in rows}
