"""How a files source waits: woken by notices, by the folder's own time, by rest, and never for ever."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from connectors.files.settings import StableSize
from state.model.errors import NotConnectedError
from tests.adapters.watched_folder import Inbox, MakeInbox


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


async def test_waiting_ends_while_files_keep_arriving(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    await inbox.run()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.source.wait(timedelta(seconds=20)))
        await asyncio.sleep(0.3)
        for number in range(70):
            inbox.put(f"plan-{number}.csv")
            await asyncio.sleep(0.02)
        assert waiting.done()


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
