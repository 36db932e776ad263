"""A hub has so many frames in work and no more; who waited long is asked to come again, and keeps its link."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.sync.turns import COME_AGAIN_AFTER, FRAMES, Turns, is_busy
from state.model.errors import TransientError
from tests.daemon.link_rig import estatewide, holds, until


async def all_places(turns: Turns, places: int) -> AsyncExitStack:
    """Whoever holds every place; it gives them back when it is closed."""
    held = AsyncExitStack()
    for _ in range(places):
        await held.enter_async_context(turns)
    return held


async def test_who_comes_to_a_full_house_waits_until_somebody_leaves() -> None:
    turns, seen = Turns(2), list[str]()
    held = await all_places(turns, 2)

    async def comes() -> None:
        async with turns:
            seen.append("in")

    waiting = asyncio.create_task(comes())
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen == []
    await held.aclose()
    await waiting
    assert seen == ["in"]


async def test_who_waited_long_is_asked_to_come_again() -> None:
    turns = Turns(1, patience=0)
    async with turns:
        with pytest.raises(TransientError) as caught:
            async with turns:
                raise AssertionError("there was no place")
    assert is_busy(caught.value)
    assert caught.value.retry_after == COME_AGAIN_AFTER


async def test_a_place_in_the_line_that_is_left_is_nobodys() -> None:
    turns = Turns(1)
    held = await all_places(turns, 1)
    left = asyncio.create_task(turns.__aenter__())
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    await held.aclose()
    async with asyncio.timeout(5), turns:
        pass


async def test_a_site_that_is_asked_to_come_again_keeps_its_link(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as estate:
        north, hub, wire = estate.agents["north"], estate.agents["hq"], estate.wires["north"]
        estate.start("north")
        await until(lambda: holds(hub.rows("SELECT count(*) FROM peers WHERE heard_at IS NOT NULL"), [(1,)]))
        turns = estate.hub._turns = Turns(patience=0)
        held = await all_places(turns, FRAMES)
        await north.arises(north.event("R-1", 1))
        estate.hub.wake(["north"])
        await until(lambda: min(wire.calls.count("push"), wire.calls.count("pull")) > 2)
        assert await hub.owes("hq/erp") == []
        await held.aclose()
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1)]))
        assert wire.calls.count("hello") == 1
        assert estate.links["north"].trouble is None
