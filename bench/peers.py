"""Peers: durable queues on SQLite that commit each message, told to be as durable as the store is.

One message is put, taken and acknowledged. huey takes and acknowledges in one commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from bench.orders import orders
from bench.rounds import Round, stopwatch

Peer: TypeAlias = Callable[[bytes], None]
"""Takes one message through."""

_MESSAGES: Final = 400


def rounds(folder: Path) -> Mapping[str, Round]:
    """A round of each peer, in messages a second. Raises `SystemExit` where one is not installed."""
    try:
        peers = {"huey": _huey(folder), "persist-queue": _persist_queue(folder)}
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -e '.[bench]', or make bench") from error
    return {name: _round(peer) for name, peer in peers.items()}


def _huey(folder: Path) -> Peer:
    from huey import SqliteHuey

    storage = SqliteHuey(filename=str(folder / "huey.db"), fsync=True).storage
    _require_full(storage.conn)

    def through(payload: bytes) -> None:
        storage.enqueue(payload)
        if bytes(storage.dequeue()) != payload:
            raise SystemExit("huey did not give back what it took")

    return through


def _persist_queue(folder: Path) -> Peer:
    import persistqueue

    queue = persistqueue.SQLiteAckQueue(str(folder / "persist-queue"), auto_commit=True)
    _require_full(queue._conn)

    def through(payload: bytes) -> None:
        queue.put(payload)
        taken = queue.get(raw=True)
        if taken["data"] != payload:
            raise SystemExit("persist-queue did not give back what it took")
        queue.ack(id=taken["pqid"])

    return through


def _round(peer: Peer) -> Round:
    async def run() -> float:
        payloads = orders(_MESSAGES)
        with stopwatch() as watch:
            for payload in payloads:
                peer(payload)
        return watch.rate(_MESSAGES)

    return run


def _require_full(connection: sqlite3.Connection) -> None:
    asked = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    if asked != ["wal", 2]:
        raise SystemExit(f"a peer is not as durable as the store: journal and synchronous are {asked}")
