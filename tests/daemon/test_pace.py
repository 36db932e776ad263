"""How long it is said to take until another agent has what waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from agent.fleet import Fleet
from agent.pace import LOOKS_EVERY, Pace
from state import life, peers, streams
from state.model.stream import Mark
from state.testing import FrozenClock
from tests.daemon.link_rig import HUB, estatewide, until


def test_what_is_left_takes_as_long_as_the_last_minute_says() -> None:
    pace = Pace()
    pace.note({"hq": 10_000}, 100.0)
    pace.note({"hq": 9_000}, 105.0)
    pace.note({"hq": 6_000}, 110.0)
    assert pace.done_in("hq") == pytest.approx(15.0)


def test_a_rate_of_long_ago_is_forgotten() -> None:
    pace = Pace()
    for look in range(40):
        pace.note({"hq": 100_000 - look * (1_000 if look < 20 else 10)}, look * 5.0)
    assert pace.done_in("hq") == pytest.approx((100_000 - 390) / 10 * 5.0)


@pytest.mark.parametrize("counts", [(500,), (500, 500), (500, 800), (500, 300, 0)])
def test_nothing_is_said_of_a_backlog_that_does_not_become_less(counts: tuple[int, ...]) -> None:
    pace = Pace()
    for look, count in enumerate(counts):
        pace.note({"hq": count}, look * 5.0)
    assert pace.done_in("hq") is None


def test_each_agent_has_its_own_pace() -> None:
    pace = Pace()
    pace.note({"north": 100, "south": 100}, 0.0)
    pace.note({"north": 50, "south": 100}, 5.0)
    assert (pace.done_in("north"), pace.done_in("south"), pace.done_in("web")) == (5.0, None, None)


async def test_a_site_says_how_long_its_hub_will_still_take(tmp_path: Path) -> None:
    clock, stopping = FrozenClock(), asyncio.Event()
    async with estatewide(tmp_path) as whole:
        north = whole.agents["north"]
        await north.arises(*(north.event(f"R-{number}", 1) for number in range(10)))
        fleet = Fleet(
            north.database,
            site="north",
            estate=lambda: whole.compiled.estate,
            identity=lambda: None,
            clock=clock,
            on_life=lambda: None,
        )
        watching = asyncio.create_task(fleet.watch(stopping))
        await _pass_a_look(clock)
        assert [(row.waiting, row.done_in) for row in await fleet.agents()] == [(10, None)]
        await north.database.write(partial(_acknowledge, upto=4))
        await _pass_a_look(clock)
        assert [(row.waiting, row.done_in) for row in await fleet.agents()] == [(6, 7.5)]
        stopping.set()
        await watching


async def _pass_a_look(clock: FrozenClock) -> None:
    await until(lambda: clock.sleepers)
    clock.advance(LOOKS_EVERY)
    await until(lambda: clock.sleepers)


def _acknowledge(connection: sqlite3.Connection, *, upto: int) -> None:
    peer, epoch = peers.ensure(connection, HUB), life.get(connection).epoch
    streams.acknowledge(connection, peer.id, epoch=epoch, marks={1: Mark(upto, bytes(32))})
