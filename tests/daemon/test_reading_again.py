"""A store that was put back reads its sources again: what the life before may have delivered is in doubt, the rest is not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from agent.crash_points import ignore
from agent.intake import Intake
from agent.sync.outgoing import Outgoing
from connectors.base import Batch, RawDocument, SourceRecord
from state import life
from state.database import Database
from state.lanes import list_lanes
from state.model.clock import to_millis
from state.model.errors import NotConnectedError
from state.testing import temporary_database
from tests.daemon.test_attacks import an_estate, in_force, the_ground
from tests.daemon.test_relay import CLOCK

HOUR = timedelta(hours=1)


class ScriptedSource:
    """Yields what it is given, one document a record, and then breaks off where it is told to."""

    def __init__(self) -> None:
        self.records: list[tuple[str, datetime | None]] = []
        self.breaks_off = False

    async def read(self) -> AsyncGenerator[Batch, None]:
        records, self.records = self.records, []
        for name, changed_at in records:
            raw = name.encode()
            fields = {"id": name, "sku": "S-1", "qty": "12", "day": "2026-03-02"}
            document = RawDocument(name=name, sha256=hashlib.sha256(raw).hexdigest(), size=len(raw), content=raw)
            record = SourceRecord(position="1", place=name, fields=fields, raw=raw, changed_at=changed_at)
            yield Batch(document=document, records=[record])
        if self.breaks_off:
            raise NotConnectedError("the line broke")

    async def settle(self, batch: Batch) -> None:
        pass

    async def wait(self, longest: timedelta) -> None:
        await asyncio.sleep(3600)

    async def close(self) -> None:
        pass


class Reader:
    """A site that reads one source, in as many lives as its store has."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self.source = ScriptedSource()
        self._folder = folder
        self._compiled = an_estate(targets=[{"system": "n/erp"}], folder=folder)

    async def start(self) -> None:
        await self.database.write(partial(in_force, self._compiled))
        await self.database.write(lambda connection: life.begin(connection, "n", now=to_millis(CLOCK.now())))
        await self.open()

    async def open(self) -> None:
        lanes = await self.database.read(list_lanes)
        ground = the_ground(self._folder, self.database)
        self._intake = Intake(
            self._compiled.flows["reco"],
            lambda: self.source,
            lanes={(lane.flow, lane.target): lane for lane in lanes},
            outgoing=Outgoing("n", None),
            database=self.database,
            archive=ground.archive,
            clock=CLOCK,
            dice=ground.dice,
            crash=ignore,
            on_owed=lambda targets: None,
            on_sent=lambda _: None,
            on_read=lambda flow, accepted, refused: None,
        )

    async def begins_again(self) -> None:
        """What `distctl restore` does."""
        await self.database.write(lambda connection: life.begin_epoch(connection, now=to_millis(CLOCK.now())))
        await self.open()

    async def reads(self, *records: tuple[str, datetime | None]) -> None:
        self.source.records = list(records)
        await self._intake.read(self.source, asyncio.Event())

    async def states(self) -> dict[str, str]:
        rows = await self.database.read(
            lambda connection: connection.execute(
                "SELECT e.subject, d.state FROM deliveries d JOIN events e ON e.seq = d.event_seq"
            ).fetchall()
        )
        return dict(rows)

    async def first_sent(self) -> Sequence[tuple[int]]:
        return await self.database.read(
            lambda connection: connection.execute("SELECT first_sent_at FROM deliveries ORDER BY id").fetchall()
        )


@asynccontextmanager
async def reader(folder: Path) -> AsyncIterator[Reader]:
    async with temporary_database(folder, now=CLOCK.now()) as database:
        one = Reader(folder, database)
        await one.start()
        yield one


async def test_what_a_source_without_times_yields_first_may_have_been_read_before(tmp_path: Path) -> None:
    async with reader(tmp_path) as site:
        await site.reads(("R-1", None))
        await site.begins_again()
        await site.reads(("R-2", None), ("R-3", None))
        await site.reads(("R-4", None))
        assert await site.states() == {"R-1": "pending", "R-2": "in_doubt", "R-3": "in_doubt", "R-4": "pending"}


async def test_a_clock_of_the_source_that_is_ahead_hides_nothing_that_was_read_before(tmp_path: Path) -> None:
    async with reader(tmp_path) as site:
        await site.begins_again()
        await site.reads(("R-1", CLOCK.now() + HOUR))
        await site.reads(("R-2", CLOCK.now() + HOUR), ("R-3", CLOCK.now() - HOUR))
        assert await site.states() == {"R-1": "in_doubt", "R-2": "pending", "R-3": "in_doubt"}


async def test_a_reading_that_broke_off_or_ended_with_the_agent_is_not_the_whole_of_it(tmp_path: Path) -> None:
    async with reader(tmp_path) as site:
        await site.begins_again()
        site.source.breaks_off = True
        try:
            await site.reads(("R-1", None))
        except NotConnectedError:
            site.source.breaks_off = False
        await site.open()  # the agent started anew
        await site.reads(("R-2", None))
        await site.open()
        await site.reads(("R-3", None))
        assert await site.states() == {"R-1": "in_doubt", "R-2": "in_doubt", "R-3": "pending"}


async def test_each_life_reads_everything_through_once_and_the_first_doubts_nothing(tmp_path: Path) -> None:
    async with reader(tmp_path) as site:
        await site.reads(("R-1", None))
        for number in (2, 3):
            await site.begins_again()
            await site.reads((f"R-{number}", None))
        assert await site.states() == {"R-1": "pending", "R-2": "in_doubt", "R-3": "in_doubt"}


async def test_the_memory_of_a_target_counts_from_what_the_store_knew_last(tmp_path: Path) -> None:
    async with reader(tmp_path) as site:
        await site.reads(("R-1", None))
        [(recorded,)] = await site.database.read(lambda c: c.execute("SELECT recorded_at FROM events").fetchall())
        await site.begins_again()
        said = CLOCK.now() - HOUR
        await site.reads(("R-2", None), ("R-3", said))
        assert await site.first_sent() == [(None,), (recorded,), (to_millis(said),)]
