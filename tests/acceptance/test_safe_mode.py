"""An agent whose starts keep coming to nothing waits for a person instead of trying for ever (F08)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.start_count import SAFE_AFTER, StartCount
from state.model.errors import ConfigError, ConflictError, DistctlError
from tests.acceptance.agent_process import (
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    open_partner,
    taken,
    to_erp,
    until,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def erp() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def estate(tmp_path: Path, erp: Partner) -> EstateFolder:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", erp.url, memory={"key_lifetime": "1h"})
    estate.add_flow("reco", to_erp("erp", probe=False))
    estate.write()
    return estate


@pytest.fixture
def agent(estate: EstateFolder, tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        yield agent


def speaks(agent: AgentProcess) -> bool:
    assert agent.is_running, agent.log()[-2000:]
    try:
        return bool(agent.status())
    except DistctlError:
        return False


def crash_at_every_start(agent: AgentProcess) -> None:
    for _ in range(SAFE_AFTER):
        agent.start(crash_at="reaper.recover.before_commit", anew=False)
        assert agent.wait() == -signal.SIGKILL


def test_after_five_starts_that_were_killed_it_answers_and_touches_nothing_until_a_person_resumes_it(
    agent: AgentProcess, estate: EstateFolder, erp: Partner
) -> None:
    planner = Planner(estate.folder / "planning")
    crash_at_every_start(agent)
    planner.publish("R-1")
    agent.start(anew=False)
    until(lambda: speaks(agent), "it answers")
    health = agent.client.health()
    assert not health.ok
    assert "safe mode" in health.troubles[0]
    assert "agent resume" in health.troubles[0]
    assert (estate.folder / "planning" / "reco-000001.csv").exists(), "nothing is taken in"
    agent.client.resume(reason="may it go on?", dry_run=True)
    assert not agent.client.health().ok
    agent.client.resume(reason="the disk was replaced")
    until(agent.answers, "it goes on")
    until(lambda: taken(erp) == {"R-1": [1]}, "it delivers")
    entries = agent.client.audit().items
    [resumed] = [entry for entry in entries if entry.action == "resume"]
    assert resumed.reason == "the disk was replaced"
    with pytest.raises(ConflictError, match="not in safe mode"):
        agent.client.resume(reason="once more")
    assert agent.stop() == 0


def test_safe_mode_ends_when_told_to_and_an_orderly_end_is_no_failure(agent: AgentProcess) -> None:
    crash_at_every_start(agent)
    agent.start(anew=False)
    until(lambda: speaks(agent), "it answers")
    assert agent.stop() == 0
    agent.start(anew=False)
    until(agent.answers, "the count began anew")
    assert agent.stop() == 0
    assert not (agent.data / "starts").exists()


def test_an_estate_that_is_refused_is_no_crash(agent: AgentProcess, estate: EstateFolder) -> None:
    estate.put("estate.yaml", "name: [")
    for _ in range(SAFE_AFTER + 1):
        assert agent.start(anew=False).wait() == 2
    estate.put("estate.yaml", "{}")
    estate.write()
    agent.run(anew=False)
    assert agent.stop() == 0


def test_it_goes_on_with_the_estate_as_it_is_by_then(agent: AgentProcess, estate: EstateFolder) -> None:
    crash_at_every_start(agent)
    agent.start(anew=False)
    until(lambda: speaks(agent), "it answers")
    before = agent.status().estate_hash
    estate.put("estate.yaml", "name: [")
    with pytest.raises(ConfigError):
        agent.client.resume(reason="it was the estate")
    assert "safe mode" in agent.client.health().troubles[0]
    estate.flows["reco"]["tier"] = 2
    estate.write()
    agent.client.resume(reason="it was the estate")
    until(agent.answers, "it goes on")
    assert agent.status().estate_hash != before
    assert [entry.action for entry in agent.client.audit().items].count("resume") == 1
    assert agent.stop() == 0


def test_a_second_agent_that_is_refused_leaves_the_count_of_the_first_alone(
    agent: AgentProcess, estate: EstateFolder
) -> None:
    crash_at_every_start(agent)
    agent.start(anew=False)
    until(lambda: speaks(agent), "it answers")
    with AgentProcess(estate.folder, agent.data) as second:
        assert second.start(anew=False).wait() == 6
    agent.kill()
    agent.start(anew=False)
    until(lambda: speaks(agent), "it answers")
    assert "safe mode" in agent.client.health().troubles[0]


@pytest.mark.parametrize("content", ["", "many", "-1", "9" * 5000, "\x00\xff", "\u0661\u0662"])
def test_a_count_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "starts"
    path.write_text(content)
    count = StartCount(path)
    count.begin()
    assert count.failed == 0
    assert path.read_text() == "1\n"
