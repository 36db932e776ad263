"""The frozen clock that ships for tests."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from state.model.clock import Clock
from state.testing import NOON, FrozenClock


async def test_it_moves_only_by_hand_and_wakes_who_is_due_in_order() -> None:
    clock: Clock = FrozenClock()
    assert isinstance(clock, FrozenClock)
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    sleepers = [asyncio.ensure_future(sleeper(seconds)) for seconds in (30, 10, 20)]
    await asyncio.sleep(0)
    assert (clock.now(), clock.monotonic(), clock.sleepers) == (NOON, 0.0, 3)
    clock.advance(20)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert woken == [10, 20]
    clock.advance(timedelta(seconds=10))
    await asyncio.gather(*sleepers)
    assert clock.now() == NOON + timedelta(seconds=30)


async def test_a_jump_moves_the_wall_and_wakes_nobody() -> None:
    clock = FrozenClock()
    sleeper = asyncio.ensure_future(clock.sleep(10))
    await asyncio.sleep(0)
    clock.jump(timedelta(days=-1))
    await asyncio.sleep(0)
    assert not sleeper.done()
    assert (clock.now(), clock.monotonic()) == (NOON - timedelta(days=1), 0.0)
    sleeper.cancel()
    await asyncio.sleep(0)
    assert clock.sleepers == 0
