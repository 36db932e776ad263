"""Lets go of what the rule of retention lets go (`state.retention`), little by little, once for each verified backup.

What is old enough depends on the last verified backup and on nothing else that moves, so a pass begins when there is another
one, and goes through the store once. A reader looks for what may go, and units of the writer, of a few milliseconds each, judge
it again and let it go, with pauses in between. Crash: a pass that was cut short begins anew with the next start, and what went,
went whole.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from agent.crash_points import CrashPoint
from agent.raw_archive import RawArchive
from agent.supervisor import sleep_unless
from state import audit, retention
from state.database import Database
from state.group_commit import Unit
from state.model.clock import Clock, from_millis, to_millis
from state.model.ids import Seq
from state.retention import Bound, DocumentId

_log: Final = logging.getLogger("distctl.retention")

LOOKS_EVERY: Final = 60.0
"""Seconds between two looks whether there is another backup."""

PAUSE: Final = 0.05
"""Seconds in which the writer is everybody else's, after each unit."""

LOOKED_AT: Final = 1_000
"""Rows that a reader goes through at once."""

AT_ONCE: Final = 200
"""Events or items of one unit."""

BYTES_AT_ONCE: Final = 1024 * 1024
"""Of raw documents in one unit; a larger one is a unit of its own."""


class Retention:
    """The retention of one agent."""

    def __init__(
        self,
        database: Database,
        archive: RawArchive,
        clock: Clock,
        *,
        hub: Callable[[], str | None],
        settled: Callable[[], timedelta],
        is_backing_up: Callable[[], bool],
        on_let_go: Callable[[int], None],
        crash: CrashPoint,
    ) -> None:
        """`hub` is the site of the hub; `settled` how long what is settled stays; `on_let_go` is told how many events went."""
        self._database = database
        self._archive = archive
        self._clock = clock
        self._hub = hub
        self._settled = settled
        self._is_backing_up = is_backing_up
        self._on_let_go = on_let_go
        self._crash = crash
        self._done: Bound | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Let go until the agent stops."""
        await self.sweep(stopping)
        while not await sleep_unless(stopping, LOOKS_EVERY, clock=self._clock):
            await self.sweep(stopping)

    async def sweep(self, stopping: asyncio.Event) -> int:
        """Let go of all that may go now, unless that was done already; returns how many events went."""
        bound = await self._database.read(
            partial(retention.bound, hub=self._hub(), settled=self._settled(), now=self._clock.now())
        )
        await self._remove_files(stopping)
        if bound is None or bound == self._done:
            return 0
        while await self._unit(partial(retention.let_go_items, bound=bound, limit=AT_ONCE), "items", stopping):
            pass
        count = await self._let_go_events(bound, stopping)
        while await self._unit(partial(retention.let_go_records, bound=bound, limit=AT_ONCE), "records", stopping):
            pass
        await self._let_go_documents(bound, stopping)
        await self._remove_files(stopping)
        if not stopping.is_set():
            self._done = bound
        if count:
            _log.info("%d events were let go: settled before %s, and in backup %s", count, *_told(bound))
        return count

    async def _let_go_events(self, bound: Bound, stopping: asyncio.Event) -> int:
        count, last_old = 0, Seq(0)
        after: Seq | None = Seq(0)
        while after is not None and not stopping.is_set():
            old, after = await self._database.read(
                partial(retention.next_events, bound=bound, after=after, limit=LOOKED_AT)
            )
            last_old = old[-1] if old else last_old
            found = await self._database.read(partial(retention.settled, bound=bound, events=old))
            for begin in range(0, len(found), AT_ONCE):
                some = found[begin : begin + AT_ONCE]
                gone = await self._unit(partial(self._let_go, bound, some, is_first=not count), "events", stopping)
                self._on_let_go(gone)
                count += gone
        let_go_arrivals = partial(retention.let_go_arrivals, upto=last_old, limit=AT_ONCE)
        while await self._unit(let_go_arrivals, "arrivals", stopping):
            pass
        return count

    def _let_go(self, bound: Bound, events: Sequence[Seq], connection: sqlite3.Connection, *, is_first: bool) -> int:
        gone = retention.let_go_events(connection, bound, events)
        if gone and is_first:
            before, backup = _told(bound)
            audit.append(
                connection,
                at_ms=to_millis(self._clock.now()),
                actor="agent",
                action="let go",
                target="events",
                reason=f"settled before {before}, and in backup {backup}: the rule of retention",
            )
        return gone

    async def _let_go_documents(self, bound: Bound, stopping: asyncio.Event) -> None:
        after: int | None = 0
        while after is not None and not stopping.is_set():
            found, after = await self._database.read(
                partial(retention.needless_documents, bound=bound, after=after, limit=LOOKED_AT)
            )
            for some in _parts(found):
                await self._unit(partial(retention.let_go_documents, documents=some), "documents", stopping)

    async def _remove_files(self, stopping: asyncio.Event) -> None:
        """Remove archived documents whose rows are gone. A backup under way may still want them."""
        for sha256, is_needed in await self._database.read(partial(retention.files, limit=AT_ONCE)):
            if stopping.is_set() or self._is_backing_up():
                return
            self._crash("retention.before_remove")
            if is_needed or await asyncio.to_thread(self._archive.remove, sha256):
                self._crash("retention.after_remove")
                await self._unit(partial(_forget, sha256), "files", stopping)

    async def _unit(self, unit: Unit[int], name: str, stopping: asyncio.Event) -> int:
        if stopping.is_set():
            return 0
        count = await self._database.write(unit, name=f"retention.{name}")
        await sleep_unless(stopping, PAUSE, clock=self._clock)
        return count


def _forget(sha256: str, connection: sqlite3.Connection) -> int:
    retention.forget_file(connection, sha256)
    return 1


def _parts(documents: list[tuple[DocumentId, int]]) -> list[list[DocumentId]]:
    """In parts of at most so many bytes and documents."""
    parts: list[list[DocumentId]] = []
    room = 0
    for number, size in documents:
        if not parts or room < size or len(parts[-1]) == AT_ONCE:
            parts.append([])
            room = BYTES_AT_ONCE
        parts[-1].append(number)
        room -= size
    return parts


def _told(bound: Bound) -> tuple[str, str]:
    return f"{from_millis(bound.before):%Y-%m-%d %H:%M}Z", bound.backup
