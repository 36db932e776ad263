"""Intake: from a source's records to canonical events, with everything that hangs on them in one transaction.

One task a flow's source reads batch after batch, in order. A batch is read and mapped outside the store; then one unit of work
writes the raw document, the checkpoint, the events, their deliveries and the dead letters of what could not be read. Only then is
the source told (`settle`), which archives the file or acknowledges the page. A crash before the commit leaves nothing, a crash
after it makes the source hand over the same records again, whose events have the same ids and are known.

A bad record never stops a file: it becomes a dead letter with its place, rule, cure and raw bytes, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

from agent import taken_ids
from agent.crash_points import CrashPoint
from agent.estate.compiled import CompiledFlow, CompiledLane
from agent.mapping import Document, Refused
from agent.owing import owe
from agent.raw_archive import RawArchive
from agent.router import route
from agent.supervisor import sleep_unless, unless
from agent.sync.outgoing import Departure, Outgoing
from connectors.base import Batch, Source, SourceRecord, UnreadableRecord
from state import checkpoints, dead_letters, inbox, life
from state.database import Database
from state.dead_letters import Letter
from state.inbox import Admitted, Arrival
from state.lanes import Lane
from state.model.canonical.reading import parse
from state.model.clock import Clock, to_millis
from state.model.errors import NotConnectedError, RejectedError, StoreError, TransientError
from state.model.ids import EventId, event_id
from state.model.retry import RetryPolicy, honoured

_log = logging.getLogger("distctl.intake")
_PATIENCE: Final = RetryPolicy(longest=timedelta(minutes=1))

_LINE: Final = re.compile(r"(?P<head>.*)\bline (?P<line>[0-9]{1,12})", re.DOTALL)
RANGES_LIMIT: Final = 5
"""Ranges of lines that the place of one dead letter names."""

_Passing: TypeAlias = NotConnectedError | TransientError | StoreError

LOW_WATER: Final = 64 * 1024 * 1024
"""Bytes of free disk below which nothing new is taken in; deliveries go on."""


class StoredMemory:
    """`connectors.base.Memory` of one source, in the store."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self._source = source

    async def checkpoint(self) -> bytes | None:
        """The checkpoint of the last committed batch."""
        return await self._database.read(lambda connection: checkpoints.find(connection, self._source))

    async def known(self, items: Collection[str]) -> set[str]:
        """Those of `items` that were remembered."""
        return await self._database.read(lambda connection: checkpoints.known(connection, self._source, items))


@dataclass(slots=True)
class _Harvest:
    """What one batch came to."""

    arrivals: list[Arrival] = field(default_factory=list)
    lanes: dict[str, Sequence[CompiledLane]] = field(default_factory=dict)  # by event id
    letters: list[Letter] = field(default_factory=list)


class Intake:
    """The intake of one flow."""

    def __init__(
        self,
        flow: CompiledFlow,
        open_source: Callable[[], Source],
        *,
        lanes: Mapping[tuple[str, str], Lane],
        outgoing: Outgoing,
        database: Database,
        archive: RawArchive,
        clock: Clock,
        dice: random.Random,
        crash: CrashPoint,
        on_owed: Callable[[Collection[str]], None],
        on_sent: Callable[[Collection[str]], None],
        on_read: Callable[[str, int, int], None],
    ) -> None:
        self._flow = flow
        self._open_source = open_source
        self._lanes = lanes  # by (flow, target)
        self._outgoing = outgoing
        self._database = database
        self._archive = archive
        self._clock = clock
        self._dice = dice
        self._crash = crash
        self._on_owed = on_owed
        self._on_sent = on_sent
        self._on_read = on_read
        self.trouble: _Passing | None = None  # why the source cannot be read at the moment
        self._site, _, self._system = flow.source.partition("/")

    @property
    def name(self) -> str:
        """How the store knows this source."""
        return source_name(self._flow)

    async def run(self, stopping: asyncio.Event) -> None:
        """Read whatever comes until the agent stops; a batch under way is finished first."""
        failures = 0
        source = self._open_source()
        try:
            while not stopping.is_set():
                try:
                    await self.read(source, stopping)
                    if self.trouble:
                        _log.info("%s can be read again", self.name, extra={"flow": self._flow.spec.flow})
                    failures, self.trouble = 0, None
                    await self._wait(source, stopping)
                except (NotConnectedError, TransientError, StoreError) as error:
                    failures, self.trouble = failures + 1, error
                    await self._pause(error, failures, stopping)
        finally:
            await source.close()

    async def read(self, source: Source, stopping: asyncio.Event) -> None:
        """Take in everything that is there now."""
        self._require_room()
        parts: list[Batch] = []
        async with aclosing(source.read()) as batches:
            async for batch in batches:
                parts.append(batch)
                if self._flow.is_grouped and not batch.last:
                    continue  # a document of several rows is known to be whole at the end of its file
                await self.take_in(_joined(parts))
                parts.clear()
                if batch.last:
                    self._crash("intake.before_settle")
                    await source.settle(batch)
                    self._crash("intake.after_settle")
                if stopping.is_set():
                    return
                self._require_room()

    async def take_in(self, batch: Batch) -> None:
        """Make events of the batch's records and commit them with its checkpoint."""
        harvest = await asyncio.to_thread(self._harvest, batch)
        sent_to = await self._database.write(partial(self._store, batch, harvest), name="intake.take_in")
        self._on_read(self._flow.spec.flow, len(harvest.arrivals), len(harvest.letters))
        self._on_owed({lane.name for lanes in harvest.lanes.values() for lane in lanes})
        self._on_sent(sent_to)
        _report(batch.document.name, harvest.letters)

    # Reading and mapping: no store.

    def _harvest(self, batch: Batch) -> _Harvest:
        self._archive.keep(batch.document)
        harvest = _Harvest()
        harvest.letters = [self._unreadable(batch, one) for one in batch.records if isinstance(one, UnreadableRecord)]
        for made in self._documents(batch.records):
            try:
                if isinstance(made, Refused):
                    raise made.error
                self._accept(batch, made, harvest)
            except RejectedError as error:
                harvest.letters.append(self._refused(batch, made.rows, error))
            except Exception as error:  # noqa: BLE001 - our own fault, and yet one bad record never stops a file
                harvest.letters.append(self._refused(batch, made.rows, _own_fault(made.rows[0], error)))
        return harvest

    def _documents(self, records: Sequence[SourceRecord | UnreadableRecord]) -> Iterator[Document | Refused]:
        """Record by record, unless the flow needs them all at once: what fails with one is no other's trouble."""
        for together in [records] if self._flow.is_grouped else ([one] for one in records):
            try:
                yield from self._flow.documents(together)
            except Exception as error:  # noqa: BLE001 - our own fault, if it is no refusal, and it stops no file either
                refusal = error if isinstance(error, RejectedError) else _own_fault(together[0], error)
                yield Refused(error=refusal, rows=[one for one in together if isinstance(one, SourceRecord)])

    def _accept(self, batch: Batch, document: Document, harvest: _Harvest) -> None:
        entity = parse(self._flow.spec.contract, document.data)
        first, now = document.rows[0], self._clock.now()
        content = b"".join(row.raw for row in document.rows)
        event = self._flow.event(
            entity,
            identity=self._identity(batch, first.position, entity.business_key, content),
            time=first.changed_at or now,
            recorded=now,
            place=first.place,
            rawref=batch.document.sha256,
        )
        harvest.lanes[event.id] = route(event, self._flow)
        harvest.arrivals.append(Arrival(event, entity.references()))

    def _identity(self, batch: Batch, position: str, key: str, content: bytes) -> EventId:
        return event_id(
            source=f"/{self._flow.source}",
            flow=self._flow.spec.flow,
            batch=batch.document.identity,
            position=position,
            key=key,
            content=content,
        )

    def _unreadable(self, batch: Batch, record: UnreadableRecord) -> Letter:
        return self._letter(
            batch,
            position=record.position,
            place=record.place,
            field=record.field,
            rule=record.rule,
            code=record.code,
            shown=record.shown,
            message=record.message,
            hint=record.hint,
            raw=record.raw,
        )

    def _refused(self, batch: Batch, rows: Sequence[SourceRecord], error: RejectedError) -> Letter:
        return self._letter(
            batch,
            position=rows[0].position,
            place=_place(rows),
            field=error.place.removeprefix("field "),
            rule=error.rule or error.message,
            code=error.code,
            shown=error.shown,
            message=error.message,
            hint=error.hint,
            raw=b"\n".join(row.raw for row in rows),
            content=b"".join(row.raw for row in rows),
        )

    def _letter(
        self,
        batch: Batch,
        *,
        position: str,
        place: str,
        field: str,
        rule: str,
        code: str,
        shown: str,
        message: str,
        hint: str,
        raw: bytes,
        content: bytes | None = None,  # what its id is made of; default `raw`
    ) -> Letter:
        return Letter(
            record_id=self._identity(batch, position, "dead-letter", raw if content is None else content),
            site=self._site,
            system=self._system,
            flow=self._flow.spec.flow,
            place=place,
            field=field,
            rule=rule,
            code=code,
            shown=shown,
            message=message,
            hint=hint,
            raw=raw,
        )

    # The unit of work.

    def _store(self, batch: Batch, harvest: _Harvest, connection: sqlite3.Connection) -> frozenset[str]:
        """Returns the sites that are to have something of it."""
        now = self._clock.now()
        millis = to_millis(now)
        document = batch.document
        raw_id = inbox.keep_raw(
            connection,
            sha256=document.sha256,
            name=document.name,
            size=document.size,
            content=document.content,
            now=millis,
        )
        checkpoints.advance(
            connection,
            self.name,
            checkpoint=batch.checkpoint,
            remember=batch.remember,
            records=len(batch.records),
            unreadable=len(harvest.letters),
            now=millis,
        )
        set_aside = partial(taken_ids.set_aside, connection, came_from=document.name, now=now)
        admitted = inbox.admit(connection, harvest.arrivals, raw_id=raw_id, on_taken=set_aside)
        routed = [(one, harvest.lanes[one.event.id]) for one in admitted]
        flow = self._flow.spec
        again = _read_before(connection, admitted)
        owe(connection, routed, self._lanes, flow=flow.flow, came_in=document.name, now=now, again=again)
        dead_letters.add(connection, harvest.letters, raw_id=raw_id, now=millis)
        departures = [
            Departure(one, flow.tier, {lane.site for lane in lanes}, flow.order_domain) for one, lanes in routed
        ]
        return self._outgoing.send(connection, departures)

    # Waiting.

    def _require_room(self) -> None:
        free = shutil.disk_usage(self._database.path.parent).free
        if free < LOW_WATER:
            raise StoreError(
                f"only {free // 1_048_576} MiB are free where the store is, so nothing new is taken in",
                hint=f"free space until {LOW_WATER // 1_048_576} MiB are there; deliveries go on meanwhile",
                code="disk-low",
            )

    async def _pause(
        self, error: NotConnectedError | TransientError | StoreError, failures: int, stopping: asyncio.Event
    ) -> None:
        wish = None if isinstance(error, StoreError) else error.retry_after
        pause = max(_PATIENCE.delay(failures, dice=self._dice), honoured(wish))
        _log.warning(
            "%s cannot be read now, trying again in %.0f s: %s",
            self.name,
            pause.total_seconds(),
            error,
            extra={"flow": self._flow.spec.flow, "code": error.code},
        )
        await sleep_unless(stopping, pause.total_seconds(), clock=self._clock)

    async def _wait(self, source: Source, stopping: asyncio.Event) -> None:
        await unless(stopping, source.wait(self._flow.spec.source.every))


def _joined(parts: Sequence[Batch]) -> Batch:
    """The parts of one document as one batch."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[-1],
        records=[record for part in parts for record in part.records],
        remember=[item for part in parts for item in part.remember],
    )


def _own_fault(record: SourceRecord | UnreadableRecord, error: Exception) -> RejectedError:
    _log.error("%s cannot be taken in by our own fault", record.place, exc_info=error)
    return RejectedError(
        f"taking it in failed ({type(error).__name__})",
        rule="a record becomes an event or is refused for a reason",
        hint="this is a fault of distctl: the log has the details; report it, and send the record anew when it is mended",
        code="intake-fault",
    )


def _place(rows: Sequence[SourceRecord]) -> str:
    """Where the rows of one document stand: `orders.csv lines 12-14, 20`; of rows that have no lines, the first and the last."""
    if len(rows) == 1:
        return rows[0].place
    found = [_LINE.fullmatch(row.place) for row in rows]
    lines = [int(one["line"]) for one in found if one is not None]
    heads = {one and one["head"] for one in found}
    if len(heads) > 1 or len(lines) < len(rows):
        return f"{rows[0].place} to {rows[-1].place}"
    return f"{heads.pop()}lines {_ranges(lines)}"


def _ranges(lines: Sequence[int]) -> str:
    """`12-14, 20`, at most `RANGES_LIMIT` of them."""
    ranges: list[list[int]] = []
    for line in lines:
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    told = [f"{first}-{last}" if first < last else str(first) for first, last in ranges[:RANGES_LIMIT]]
    return ", ".join(told) + (f" and more up to {lines[-1]}" if len(ranges) > RANGES_LIMIT else "")


def source_name(flow: CompiledFlow) -> str:
    """How the store knows the source of a flow: `recommendations@dc-north/planning`."""
    return f"{flow.spec.flow}@{flow.source}"


def _report(document: str, letters: Sequence[Letter]) -> None:
    """One line for each kind of mistake in a document, with its first place: a bad export must not flood the log."""
    kinds: dict[str, list[Letter]] = {}
    for letter in letters:
        kinds.setdefault(letter.code, []).append(letter)
    for code, alike in kinds.items():
        first = alike[0]
        more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
        told = first.message if first.message.startswith(first.place) else f"{first.place}: {first.message}"
        _log.warning(
            "set aside %s%s. %s",
            told,
            more,
            first.hint,
            extra={"flow": first.flow, "code": code, "place": first.place, "document": document, "count": len(alike)},
        )


def _read_before(connection: sqlite3.Connection, admitted: Iterable[Admitted]) -> dict[EventId, datetime]:
    """Which of these events a life of this store that ended may have read and delivered, and when at the earliest.

    What was there when this life began may have been read before.
    """
    here = life.find(connection)
    if here is None or here.epoch == 1:
        return {}
    return {one.event.id: one.event.time for one in admitted if to_millis(one.event.time) <= here.began_at}
