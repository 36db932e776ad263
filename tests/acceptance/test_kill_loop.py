"""The agent is killed at every named crash point and at random moments; the partners' ledgers judge what became of each record.

`DISTCTL_KILLS=n` sets the number of kills (the default is for every day), `DISTCTL_SEED=n` the order of things.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.crash_points import POINTS
from connectors.hostile import (
    Behaviour,
    accepts_then_says_nothing,
    lands_late,
    refuses,
    reset,
)
from tests.acceptance.agent_process import (
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    counted,
    left,
    open_partner,
    taken,
    to_erp,
    to_folder,
    until,
)

KILLS = int(os.environ.get("DISTCTL_KILLS", "50"))
SEED = int(os.environ.get("DISTCTL_SEED", "1"))

FIRST_STARTS = tuple(point for point in POINTS if point.startswith("migration."))
ONCE_A_START = tuple(point for point in POINTS if point.startswith(("runtime.", "reaper.")))
"""Passed by every start, before anything is delivered: killing there is a crash during recovery."""

AT_WORK = tuple(point for point in POINTS if point not in FIRST_STARTS + ONCE_A_START)
ANY_MOMENT = ""
REFERENCES = [f"R-{number:02}" for number in range(40)]


def plan(kills: int, dice: random.Random) -> list[str]:
    """Where each start is killed: the first ones while they migrate, later ones anywhere, and a row of failed recoveries."""
    kills -= len(FIRST_STARTS) + len(ONCE_A_START)
    points = AT_WORK * (kills * 4 // 5 // len(AT_WORK))
    rest = [*points, *[ANY_MOMENT] * (kills - len(points))]
    dice.shuffle(rest)
    middle = len(rest) // 2
    return [*FIRST_STARTS, *rest[:middle], *ONCE_A_START, *rest[middle:]]


def misbehave(partner: Partner, dice: random.Random) -> None:
    """What some of the next orders meet. A call that was given up may land 0.5 s after it came."""
    wrongs = (
        accepts_then_says_nothing(),
        lands_late(0.5),
        refuses(503),
        refuses(429, retry_after="0"),
        Behaviour(name="lands, then resets", reply=reset),
    )
    honest = [Behaviour(name="is honest")] * 12
    partner.script("POST", *honest[: dice.randrange(4)], dice.choice(wrongs), *honest)


@pytest.fixture
def estate(tmp_path: Path) -> EstateFolder:
    return EstateFolder(tmp_path / "estate")


@pytest.fixture
def remembering() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def forgetful() -> Iterator[Partner]:
    with open_partner(remembers_keys=False) as partner:
        yield partner


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_out_of_order_wherever_the_agent_is_killed(
    tmp_path: Path,
    estate: EstateFolder,
    remembering: Partner,
    forgetful: Partner,
    tally: Counter[str],
) -> None:
    estate.add_erp("erp", remembering.url, memory={"key_lifetime": "1h"})
    estate.add_erp("old-erp", forgetful.url, memory={"lands_within": "1s"})
    folder = estate.add_folder("warehouse")
    estate.add_flow("reco", to_erp("erp", probe=False), to_erp("old-erp"), to_folder("warehouse"))
    estate.write()
    planner = Planner(estate.folder / "planning")
    dice = random.Random(SEED)

    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        for point in plan(KILLS, dice):
            planner.publish(*dice.choices(REFERENCES, k=12), spoiled=dice.randrange(2))
            misbehave(remembering, dice)
            misbehave(forgetful, dice)
            kill(agent, point, dice)
            tally[f"kills, {point or 'at any moment'}"] += 1
        agent.run()
        agent.settle(seconds=60)
        assert agent.client.audit_verdict().ok
        assert agent.stop() == 0

    assert taken(remembering) == planner.published
    assert taken(forgetful) == planner.published
    assert left(folder) == planner.published
    assert agent.rows("SELECT kind, count(*) FROM dead_letters GROUP BY kind") == [("record", planner.spoiled)]
    assert counted(agent) == []
    assert agent.rows("PRAGMA integrity_check") == [("ok",)]


def kill(agent: AgentProcess, point: str, dice: random.Random) -> None:
    """Start the agent and end it there. Fails where that point is never passed."""
    if point == ANY_MOMENT:
        agent.start()
        time.sleep(dice.uniform(0.3, 1.8))
        agent.kill()
        return
    often = {"relay": 12, "store": 12, "intake": 2 if point.startswith("intake.take_in") else 1}
    passage = dice.randint(1, often[point.partition(".")[0]]) if point in AT_WORK else 1
    agent.start(crash_at=f"{point}:{passage}")
    until(lambda: not agent.is_running, f"passage {passage} of {point}\n{agent.log()[-2000:]}", seconds=20)
    assert agent.wait() == -signal.SIGKILL, agent.log()[-4000:]
