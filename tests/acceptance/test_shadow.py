"""A shadow target is delivered to beside the one in force and compared with it; it never counts, blocks or parks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.hostile import accepts_then_says_nothing, refuses
from tests.acceptance.agent_process import (
    ORDER,
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    counted,
    open_partner,
    taken,
    to_erp,
    until,
)

pytestmark = pytest.mark.slow

REFERENCES = ("R-1", "R-2", "R-3", "R-1", "R-2", "R-1")


@pytest.fixture
def erp() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def newcomer() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def estate(tmp_path: Path, erp: Partner, newcomer: Partner) -> EstateFolder:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", erp.url, memory={"key_lifetime": "1h"})
    estate.add_erp("newcomer", newcomer.url, memory={})
    estate.add_flow("reco", to_erp("erp"), to_erp("newcomer", probe=False, shadow_of="erp"))
    estate.write()
    return estate


@pytest.fixture
def agent(tmp_path: Path, estate: EstateFolder) -> Iterator[AgentProcess]:
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        yield agent


@pytest.fixture
def planner(estate: EstateFolder) -> Planner:
    return Planner(estate.folder / "planning")


def compared(agent: AgentProcess, count: int) -> tuple[int, int]:
    """How many were alike and different, once that many are compared."""
    return until(lambda: _if_compared(agent, count), f"{count} deliveries are compared")


def _if_compared(agent: AgentProcess, count: int) -> tuple[int, int] | None:
    lane = agent.lane("newcomer")
    return (lane.alike, lane.different) if lane.alike + lane.different == count else None


def test_a_shadow_gets_what_the_target_gets_and_is_found_alike(
    agent: AgentProcess, planner: Planner, erp: Partner, newcomer: Partner
) -> None:
    agent.run()
    planner.publish(*REFERENCES)
    assert compared(agent, len(REFERENCES)) == (len(REFERENCES), 0)
    assert taken(erp) == taken(newcomer) == planner.published
    status = agent.status()
    assert status.totals.delivered == len(REFERENCES), "a shadow's deliveries are nobody's"
    assert counted(agent) == []


def test_a_shadow_that_would_get_something_else_is_counted_as_different(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, newcomer: Partner
) -> None:
    target = estate.flows["reco"]["targets"][1]
    target["mapping"] = {"fields": ORDER | {"revision": "record.revision == 1 ? 1 : 0"}}
    estate.write()
    agent.run()
    planner.publish(*REFERENCES)
    assert compared(agent, len(REFERENCES)) == (3, 3)


def test_a_shadow_that_is_down_holds_nobody_up_and_counts_for_nothing(
    agent: AgentProcess, planner: Planner, erp: Partner, newcomer: Partner
) -> None:
    newcomer.close_shop()
    agent.run()
    planner.publish(*REFERENCES)
    until(lambda: taken(erp) == planner.published, "the target in force has it all")
    until(lambda: agent.status().totals.delivered == len(REFERENCES), "and it is settled")
    until(lambda: agent.lane("newcomer").breaker == "open", "the shadow is known to be down")
    status = agent.status()
    assert (status.totals.backlog, status.totals.owed) == (0, 0)
    assert agent.lane("newcomer").backlog == len(REFERENCES)
    assert status.conditions == []
    assert agent.client.flows().items[0].owed == 0


def test_what_a_shadow_refuses_or_leaves_open_is_noted_as_different_and_never_set_aside(
    agent: AgentProcess, planner: Planner, erp: Partner, newcomer: Partner
) -> None:
    newcomer.script("POST", refuses(422, {"detail": "unknown sku"}), accepts_then_says_nothing())
    agent.run()
    planner.publish(*REFERENCES)
    assert compared(agent, len(REFERENCES)) == (len(REFERENCES) - 2, 2)
    lane = agent.lane("newcomer")
    assert (lane.parked, lane.discarded, lane.in_doubt, lane.owed) == (0, 2, 0, 0)
    status = agent.status()
    assert (status.open_dead_letters, status.conditions) == (0, [])
    assert agent.client.in_doubt().items == []
    assert taken(erp) == planner.published


def test_what_cannot_be_rendered_for_a_shadow_is_never_set_aside(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    target = estate.flows["reco"]["targets"][1]
    target["mapping"] = {"fields": ORDER | {"revision": "10 / (record.revision - 2)"}}
    estate.write()
    agent.run()
    planner.publish(*REFERENCES)
    until(lambda: taken(erp) == planner.published, "the target in force has it all")
    compared(agent, len(REFERENCES))
    assert agent.lane("newcomer").parked == 0
    assert agent.status().open_dead_letters == 0


def test_a_shadow_that_was_on_its_way_when_the_agent_died_asks_nobody(
    agent: AgentProcess, planner: Planner, erp: Partner, newcomer: Partner
) -> None:
    newcomer.script("POST", *[accepts_then_says_nothing()] * 3)
    agent.run()
    planner.publish("R-1", "R-2", "R-3")
    until(lambda: len(newcomer.ledger) == 3, "the shadow has been called")
    agent.kill()
    agent.run()
    assert compared(agent, 3) == (0, 3)
    assert agent.lane("newcomer").discarded == 3
    planner.publish("R-1", "R-2")
    assert compared(agent, 5) == (2, 3)
