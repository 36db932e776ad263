"""A site that enrolled and was given no estate: it has one as soon as its hub can be reached, with real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from connectors.simulators.leash import leashed
from tests.acceptance.agent_process import AgentProcess, Planner, left, until
from tests.acceptance.test_bundles import Whole

pytestmark = pytest.mark.slow


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    """The hub and the north at work; the south is enrolled, and its data folder has nothing but its identity."""
    (tmp_path / "data").mkdir()
    whole = Whole(tmp_path)
    with ExitStack() as stack:
        for site in ("hq", "north"):
            stack.enter_context(whole.agent(site))
        stack.enter_context(as_a_user_starts_it(whole, "south"))
        whole.agents["hq"].run()
        for site in ("north", "south"):
            whole.enrol(site)
        whole.agents["north"].run()
        until(partial(whole.is_told, "north", state="good"), "the north runs")
        yield whole


def as_a_user_starts_it(whole: Whole, site: str) -> AgentProcess:
    """`distctl --data D agent run`, and nothing else."""
    agent = whole.agent(site, estate=False)
    agent.command = leashed(
        [sys.executable, "-m", "console.cli.app", "--data", str(agent.data), "agent", "run", "--log", "json"]
    )
    return agent


def test_a_site_starts_with_nothing_but_its_identity_and_gets_what_waited_for_it(whole: Whole) -> None:
    planner = Planner(whole.folder / "planning")
    planner.publish("R-1", "R-2")
    until(lambda: left(whole.folder / "erp") == planner.published, "the hub has it, and keeps it for the south")
    south = whole.agents["south"]
    south.run()
    assert whole.estate("south") == whole.estate("hq")
    until(lambda: left(whole.folder / "wms") == planner.published, "it is delivered")
    assert south.status().open_dead_letters == 0
    until(partial(whole.is_told, "south", state="good"), "the first estate is good", seconds=90)
    south.kill()
    south.run()
    planner.publish("R-1")
    until(lambda: left(whole.folder / "wms") == planner.published, "it starts by what it has")


def test_a_site_without_an_estate_waits_for_a_hub_that_is_away(whole: Whole) -> None:
    hub, south = whole.agents["hq"], whole.agents["south"]
    hub.stop()
    south.start()
    until(lambda: "nothing is exchanged with the hub hq now" in south.log(), "it dials in vain")
    south.stop()
    assert not (south.data / "starts").exists(), "waiting is no start that came to nothing"
    south.start()
    hub.run()
    until(lambda: "is running" in south.log(), "it runs")
    assert whole.estate("south") == whole.estate("hq")


def test_a_first_estate_that_the_site_does_not_allow_is_refused_until_it_does(whole: Whole) -> None:
    south = whole.agents["south"]
    allowed = south.data / "allow.yaml"
    allowed.write_text("hub_may:\n  connectors: [http]\n")
    south.start()
    until(lambda: whole.told("south").get("refused") == 1, "the hub is told")
    assert "does not let the hub use files" in whole.told("south")["reason"]
    assert "is running" not in south.log()
    south.stop()
    allowed.unlink()
    south.run()
    assert whole.estate("south") == whole.estate("hq")
