"""How a files source waits: woken by notices, by the folder's own time, by rest, and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.files.settings import SourceSettings, StableSize
from connectors.files.source import FilesSource
from connectors.formats.settings import CsvSettings
from connectors.testing import HeldMemory, surroundings
from state.model.errors import NotConnectedError

ROWS = b"sku,qty\nA,1\nB,2\nC,3\n"


class Inbox:
    """A watched folder, its source and the agent's memory."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.folder = home / "in"
        self.folder.mkdir()
        self.memory = HeldMemory()
        guard = StableSize(rest=timedelta(0), empty_rest=timedelta(0))
        known = {"folder": "in", "format": CsvSettings(), "guard": guard} | settings
        self.source = FilesSource(SourceSettings.model_validate(known), surroundings(home, memory=self.memory))
        self.records = 0

    def put(self, name: str, content: bytes = ROWS) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    async def run(self) -> int:
        """How many records were new."""
        before = self.records
        async for batch in self.source.read():
            self.records += len(batch.records)
            self.memory.commit(batch)
            await self.source.settle(batch)
        return self.records - before

    def names(self, folder: str = ".") -> list[str]:
        return sorted(path.name for path in (self.folder / folder).iterdir() if not path.is_dir())


MakeInbox = Callable[..., Inbox]


@pytest.fixture
async def make_inbox(tmp_path: Path) -> AsyncIterator[MakeInbox]:
    made: list[Inbox] = []

    def make(home: Path = tmp_path, **settings: Any) -> Inbox:
        made.append(Inbox(home, **settings))
        return made[-1]

    yield make
    for inbox in made:
        await inbox.source.close()


async def arrival_wakes(inbox: Inbox, name: str = "plan.csv") -> float:
    """Seconds until a wait ended that an arrival should have ended."""
    await inbox.run()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.source.wait(timedelta(seconds=20)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        inbox.put(name)
        started = time.monotonic()
    return time.monotonic() - started


async def test_waiting_ends_at_once_when_a_file_arrives(make_inbox: MakeInbox) -> None:
    assert await arrival_wakes(make_inbox()) < 0.8


async def test_waiting_ends_soon_on_a_share_that_sends_no_notices(
    make_inbox: MakeInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_inbox()
    monkeypatch.setattr(inbox.source, "_concerns_us", lambda change, path: False)
    monkeypatch.setattr("connectors.files.source._LOOK_AT_FOLDER_EVERY_MS", 300)
    assert await arrival_wakes(inbox) < 2


async def test_waiting_by_polling_ends_when_a_file_arrives(make_inbox: MakeInbox) -> None:
    assert await arrival_wakes(make_inbox(force_polling=True)) < 2


async def test_a_file_that_arrived_after_the_last_look_ends_the_wait(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    await inbox.run()
    await asyncio.sleep(0.02)
    inbox.put("plan.csv")
    async with asyncio.timeout(0.8):
        await inbox.source.wait(timedelta(seconds=20))


async def test_waiting_ends_after_the_longest_and_outlives_a_folder_that_vanishes(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    await inbox.run()
    inbox.folder.rmdir()
    with pytest.raises(NotConnectedError):
        await inbox.run()
    started = time.monotonic()
    await inbox.source.wait(timedelta(milliseconds=300))
    assert 0.25 < time.monotonic() - started < 1
    inbox.folder.mkdir()
    assert await arrival_wakes(inbox) < 0.8


async def test_waiting_ends_when_a_moving_file_may_have_come_to_rest(make_inbox: MakeInbox) -> None:
    inbox = make_inbox(guard=StableSize(rest=timedelta(milliseconds=400)))
    inbox.put("plan.csv")
    await inbox.run()
    started = time.monotonic()
    await inbox.source.wait(timedelta(seconds=20))
    assert time.monotonic() - started < 1.5
    assert await inbox.run() == 3


async def test_closing_ends_a_wait(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    await inbox.run()
    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(inbox.source.wait(timedelta(seconds=20)))
        await asyncio.sleep(0.2)
        await inbox.source.close()


async def test_a_cancelled_wait_lets_the_next_one_watch(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    await inbox.run()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await inbox.source.wait(timedelta(seconds=20))
    assert await arrival_wakes(inbox) < 0.8
