"""Peers: durable queues on SQLite that commit each message, told to be as durable as the store is.

One message is put, taken and acknowledged, in two commits: huey takes and acknowledges in one, eventsourcing stores an event,
reads its notification and tracks that it was handled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

from bench.orders import orders
from bench.rounds import Round, stopwatch

Peer: TypeAlias = Callable[[bytes], None]
"""Takes one message through."""

_MESSAGES: Final = 400


def rounds(folder: Path) -> Mapping[str, Round]:
    """A round of each peer, in messages a second. Raises `SystemExit` where one is not installed."""
    try:
        peers = {"huey": _huey(folder), "eventsourcing": _eventsourcing(folder)}
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -e '.[bench]', or make bench") from error
    return {name: _round(peer) for name, peer in peers.items()}


def _huey(folder: Path) -> Peer:
    from huey import SqliteHuey

    storage = SqliteHuey(filename=str(folder / "huey.db"), fsync=True).storage
    _require_full(storage.conn.cursor())

    def through(payload: bytes) -> None:
        storage.enqueue(payload)
        if bytes(storage.dequeue()) != payload:
            raise SystemExit("huey did not give back what it took")

    return through


def _eventsourcing(folder: Path) -> Peer:
    from eventsourcing.persistence import StoredEvent, Tracking
    from eventsourcing.sqlite import SQLiteDatastore, SQLiteProcessRecorder

    datastore = SQLiteDatastore(str(folder / "eventsourcing.db"))
    recorder = SQLiteProcessRecorder(datastore)
    recorder.create_table()
    with datastore.transaction(commit=False) as cursor:
        _require_full(cursor)

    def through(payload: bytes) -> None:
        event = StoredEvent(originator_id=uuid4(), originator_version=1, topic="order", state=payload)
        number = max(recorder.insert_events([event]) or [0])
        taken = recorder.select_notifications(number, 1)[0]
        if taken.state != payload:
            raise SystemExit("eventsourcing did not give back what it took")
        recorder.insert_events([], tracking=Tracking("orders", number))

    return through


def _round(peer: Peer) -> Round:
    async def run() -> float:
        payloads = orders(_MESSAGES)
        with stopwatch() as watch:
            for payload in payloads:
                peer(payload)
        return watch.rate(_MESSAGES)

    return run


class _Cursor(Protocol):
    def execute(self, sql: str, /) -> object: ...

    def fetchone(self) -> Any: ...


def _require_full(cursor: _Cursor) -> None:
    asked = {"journal_mode": "wal", "synchronous": 2}
    for name, expected in asked.items():
        cursor.execute(f"PRAGMA {name}")
        if (answer := cursor.fetchone()[0]) != expected:
            raise SystemExit(f"a peer is not as durable as the store: its {name} is {answer}")
