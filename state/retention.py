"""What a store lets go of, and what it keeps: the one rule of retention, as units of work that are bounded in their rows.

An event goes that was recorded and settled long enough before a verified backup was made which holds it, that every peer it was
sent to has acknowledged, and that nothing open refers to. What was settled long enough is counted back from the moment of the
backup and never from a clock here, so a clock that jumps lets nothing go. The latest event of each business key stays, without
its document; the ids of the others stay for good.

Order: the items of streams go first, oldest first, since an event stays as long as one refers to it; then events with all that
hangs on them; then documents that nothing refers to any more. Crash: each unit leaves a store that is whole, and the next one
goes on from what it finds. The file of a document goes after its row, and a note that says so is kept until it is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NewType

import orjson

from state import backup, life
from state.model.clock import from_millis, to_millis
from state.model.ids import Seq
from state.queries import load
from state.streams import PeerId

_SQL = load("retention")

DocumentId = NewType("DocumentId", int)
"""The local number of a raw document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far the rule reaches now.

    `before` is the moment, in milliseconds, before which something must have been settled. Events up to `own` are in the last
    verified backup of this store. Where another agent is the hub, `hub` is its site, and `held` says up to where its backup has
    the streams that this store sends it, by (epoch, tier); elsewhere `hub` is empty and nothing beyond `own` goes.
    """

    before: int
    backup: str  # what a person knows it by
    own: Seq
    hub: str = ""
    held: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def last_event(self) -> int:
        """Events after this one stay."""
        return 2**63 - 1 if self.hub else self.own


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a verified backup of the hub holds of the streams of one site: up to which sequence, by (epoch, tier)."""

    taken_at: datetime
    streams: Mapping[tuple[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is here and what went: when the oldest event was recorded, and how many were let go ever."""

    oldest_at: datetime | None
    let_go: int


def bound(connection: sqlite3.Connection, *, hub: str | None, settled: timedelta, now: datetime) -> Bound | None:
    """How far the rule reaches, where `hub` is the site of the hub; None where nothing may go: there is no verified backup, or
    this store is fenced or gathers what a life before had.
    """
    here = life.get(connection)
    if here.fenced or here.is_gathering:
        return None
    noted = backup.last(connection)
    own = noted.last_event if noted else Seq(0)
    if hub is None or hub == here.site:
        return (
            None if noted is None else Bound(before=_before(noted.taken_at, settled, now), backup=noted.name, own=own)
        )
    held = _told(connection, hub)
    if held is None:
        return None
    told = f"the hub's of {held.taken_at:%Y-%m-%d %H:%M}Z"
    return Bound(before=_before(held.taken_at, settled, now), backup=told, own=own, hub=hub, held=held.streams)


def held_of(connection: sqlite3.Connection, peer: PeerId) -> Held | None:
    """What the last verified backup of this store holds of the streams of `peer`; None where there is no backup."""
    noted = backup.last(connection)
    if noted is None:
        return None
    marks = connection.execute(_SQL.held, (noted.id, peer))
    return Held(taken_at=noted.taken_at, streams={(epoch, tier): seq for epoch, tier, seq in marks})


def be_told(connection: sqlite3.Connection, hub: PeerId, held: Held | None) -> None:
    """Keep what the hub says that its last verified backup holds of our streams."""
    text = None
    if held is not None:
        streams = [[*stream, seq] for stream, seq in sorted(held.streams.items())]
        text = orjson.dumps({"taken_at": to_millis(held.taken_at), "streams": streams}).decode()
    connection.execute(_SQL.tell, (text, hub))


def _told(connection: sqlite3.Connection, hub: str) -> Held | None:
    row = connection.execute(_SQL.told, (hub,)).fetchone()
    if row is None or row[0] is None:
        return None
    said = orjson.loads(row[0])
    streams = {(epoch, tier): seq for epoch, tier, seq in said["streams"]}
    return Held(taken_at=from_millis(said["taken_at"]), streams=streams)


def _before(taken_at: datetime, settled: timedelta, now: datetime) -> int:
    return to_millis(min(taken_at, now) - settled)


# --- streams ------------------------------------------------------------------------------------------------------


def let_go_items(connection: sqlite3.Connection, bound: Bound, *, limit: int) -> int:
    """Let go of up to `limit` items, the oldest of each stream that were acknowledged and are held; returns how many went.

    A stream of a later epoch is touched only when those of the ended ones to the same peer are gone: whoever finds that the
    present one begins further on knows that nothing of those before is left.
    """
    here = life.get(connection)
    connection.execute(_SQL.note_first_sent)
    gone, unfinished = 0, dict[int, int]()  # by peer: the oldest epoch of which something is left
    for stream, peer, site, epoch, tier, acked, begin in connection.execute(_SQL.streams).fetchall():
        if epoch > unfinished.get(peer, epoch) or gone >= limit:
            continue
        upto = min(acked, bound.held.get((epoch, tier), 0)) if bound.hub else acked
        if not bound.hub or site == bound.hub:
            gone += _let_go_of_stream(connection, bound, stream, begin, upto, limit - gone)
        if epoch < here.epoch:
            if connection.execute(_SQL.count_left, (stream, acked)).fetchone()[0]:
                unfinished.setdefault(peer, epoch)
            else:
                gone += connection.execute(_SQL.drop_carried, (stream, acked, limit - gone)).rowcount
    return gone


def _let_go_of_stream(
    connection: sqlite3.Connection, bound: Bound, stream: int, begin: int, upto: int, limit: int
) -> int:
    last: tuple[Any, ...] | None = None
    count = 0
    for item in connection.execute(_SQL.oldest_items, (stream, begin, upto, limit)):
        _, _, event, recorded_at = item
        if recorded_at >= bound.before or event > bound.last_event:
            break
        last, count = item, count + 1
    if last is not None:
        seq, chain, _, recorded_at = last
        connection.execute(_SQL.drop_items, (stream, begin, seq))
        connection.execute(_SQL.move_beginning, (seq, chain, recorded_at, stream))
    return count


# --- events -------------------------------------------------------------------------------------------------------


def next_events(
    connection: sqlite3.Connection, bound: Bound, *, after: int, limit: int
) -> tuple[list[Seq], Seq | None]:
    """Of the next `limit` events behind `after` those that are old enough, and the last looked at; None where there is none."""
    rows = connection.execute(_SQL.part, (bound.before, after, bound.last_event, limit)).fetchall()
    return [Seq(seq) for seq, is_old in rows if is_old], Seq(rows[-1][0]) if rows else None


def settled(connection: sqlite3.Connection, bound: Bound, events: Iterable[Seq]) -> list[Seq]:
    """Those of `events` of which something may go."""
    gone, parted = _judge(connection, bound, events)
    return sorted([*gone, *parted])


def let_go_events(connection: sqlite3.Connection, bound: Bound, events: Iterable[Seq]) -> int:
    """Let go of those of `events` that the rule lets go, judged again; returns how many."""
    gone, parted = _judge(connection, bound, events)
    connection.execute(_SQL.part_from_document, (orjson.dumps(parted).decode(),))
    if gone:
        given = (orjson.dumps(gone).decode(),)
        for statement in (_SQL.drop_attempts, _SQL.drop_letters, _SQL.drop_deliveries, _SQL.drop_trace, _SQL.keep_ids):
            connection.execute(statement, given)
        connection.execute(_SQL.drop_events, given)
        connection.execute(_SQL.count, (len(gone),))
        connection.execute(_SQL.note_upto, (max(gone),))
    return len(gone)


def let_go_arrivals(connection: sqlite3.Connection, *, upto: Seq, limit: int) -> int:
    """How far each stream of others had come is known no further back than `upto`; lets go of up to `limit` rows a stream."""
    gone = 0
    for stream in connection.execute(_SQL.arriving).fetchall():
        rows = connection.execute(_SQL.oldest_arrivals, (*stream, limit + 1)).fetchall()
        past = [seq for seq, event in rows if event <= upto]
        if len(past) > 1:
            gone += connection.execute(_SQL.drop_arrivals, (*stream, past[-1])).rowcount
    return gone


def _judge(connection: sqlite3.Connection, bound: Bound, events: Iterable[Seq]) -> tuple[list[Seq], list[Seq]]:
    """Those that go, and those that stay as the latest of their key and part from their document."""
    here = life.get(connection)
    first_sent = connection.execute(_SQL.first_sent).fetchone()
    row = {
        "seqs": orjson.dumps(list(events)).decode(),
        "before": bound.before,
        "own": bound.own,
        "here": here.site if bound.hub else "",
        "sent": first_sent[0] if first_sent else 2**63 - 1,
    }
    gone: list[Seq] = []
    parted: list[Seq] = []
    for seq, is_latest, has_document in connection.execute(_SQL.settled, row):
        if not is_latest:
            gone.append(Seq(seq))
        elif has_document:
            parted.append(Seq(seq))
    return gone, parted


# --- what is left over --------------------------------------------------------------------------------------------


def let_go_records(connection: sqlite3.Connection, bound: Bound, *, limit: int) -> int:
    """Let go of up to `limit` records that were set aside and closed as long ago; they are not set aside again."""
    closed = [number for (number,) in connection.execute(_SQL.closed_records, (bound.before, limit))]
    if closed:
        given = (orjson.dumps(closed).decode(),)
        connection.execute(_SQL.keep_record_ids, given)
        connection.execute(_SQL.drop_records, given)
    return len(closed)


def needless_documents(
    connection: sqlite3.Connection, bound: Bound, *, after: int, limit: int
) -> tuple[list[tuple[DocumentId, int]], int | None]:
    """Of the next `limit` documents behind `after` those that nothing refers to, each with its size, and the last looked at."""
    found = connection.execute(_SQL.needless_documents, (after, limit, bound.before)).fetchall()
    (last,) = connection.execute(_SQL.last_of_part, (after, limit)).fetchone()
    return [(DocumentId(number), size) for number, size in found], last


def let_go_documents(connection: sqlite3.Connection, documents: Sequence[DocumentId]) -> int:
    """Let go of those that nothing refers to; the files of those that lie in the archive folder are noted. Returns how many."""
    gone = connection.execute(_SQL.drop_documents, (orjson.dumps(documents).decode(),)).fetchall()
    connection.executemany(_SQL.note_file, [(sha256,) for sha256, is_archived in gone if is_archived])
    return len(gone)


def files(connection: sqlite3.Connection, *, limit: int) -> list[tuple[str, bool]]:
    """Files of the archive folder to be removed, by SHA-256, each with whether its document came again meanwhile."""
    return [(sha256, bool(is_needed)) for sha256, is_needed in connection.execute(_SQL.files, (limit,))]


def forget_file(connection: sqlite3.Connection, sha256: str) -> None:
    """It is removed, or needed again."""
    connection.execute(_SQL.forget_file, (bytes.fromhex(sha256),))


def kept(connection: sqlite3.Connection) -> Kept:
    """What is here and what went, in short."""
    row = connection.execute(_SQL.oldest).fetchone()
    (let_go,) = connection.execute(_SQL.counted).fetchone()
    return Kept(oldest_at=from_millis(row[0]) if row else None, let_go=let_go)
