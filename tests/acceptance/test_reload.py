"""The estate is edited while the agent runs: good edits take effect, bad ones are refused, and old work goes its old way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.agent_process import (
    ORDER,
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    left,
    open_partner,
    taken,
    to_erp,
    to_folder,
    until,
)

pytestmark = pytest.mark.slow

MEMORY = {"key_lifetime": "1h"}


@pytest.fixture
def erp() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def estate(tmp_path: Path, erp: Partner) -> EstateFolder:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", erp.url, memory=MEMORY)
    estate.add_flow("reco", to_erp("erp"))
    estate.write()
    return estate


@pytest.fixture
def agent(tmp_path: Path, estate: EstateFolder) -> Iterator[AgentProcess]:
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        yield agent


@pytest.fixture
def planner(estate: EstateFolder) -> Planner:
    return Planner(estate.folder / "planning")


def troubles(agent: AgentProcess) -> str:
    return "".join(condition.text for condition in agent.status().conditions if condition.name == "trouble")


def wait_for_estate(agent: AgentProcess, *, other_than: str) -> str:
    """The hash of the next estate in force."""
    until(lambda: agent.status().estate_hash != other_than, "the edited estate is in force")
    return agent.status().estate_hash


def strand(agent: AgentProcess, erp: Partner, planner: Planner, *references: str) -> None:
    """Close the ERP and publish for it, until all of it waits there."""
    erp.close_shop()
    planner.publish(*references)
    until(lambda: agent.lane("erp").backlog == len(references), "the deliveries wait")
    until(lambda: agent.lane("erp").breaker == "open", "the breaker is open")


def test_a_flow_that_is_added_works_without_a_restart(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    before = agent.status().estate_hash
    folder = estate.add_folder("warehouse")
    estate.add_flow("stock", to_folder("warehouse"), pattern="stock-*.csv")
    estate.write()
    wait_for_estate(agent, other_than=before)
    stock = Planner(planner.folder, prefix="stock")
    stock.publish("S-1", "S-2")
    planner.publish("R-1")
    agent.settle()
    until(lambda: left(folder) == stock.published, "the new flow delivers")
    until(lambda: taken(erp) == planner.published, "the old flow delivers")
    assert agent.rows("SELECT action, reason FROM audit ORDER BY seq") == [
        ("adopt", "the first estate"),
        ("adopt", "the estate folder changed"),
    ]


@pytest.mark.parametrize("how", ["corrected", "taken back"])
def test_a_bad_edit_is_refused_and_told_and_the_running_estate_delivers(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner, how: str
) -> None:
    agent.run()
    before = agent.status().estate_hash
    mapping = estate.flows["reco"]["mapping"]["fields"]
    estate.flows["reco"]["mapping"]["fields"] = mapping | {"sku": "record.skuu"}
    estate.write()
    told = until(lambda: troubles(agent), "the refusal shows in the status")
    assert "flows/reco.yaml" in told
    assert "skuu" in told
    assert agent.status().estate_hash == before
    planner.publish("R-1", "R-2")
    until(lambda: taken(erp) == planner.published, "the running estate delivers")

    estate.flows["reco"]["mapping"]["fields"] = mapping
    if how == "corrected":
        estate.flows["reco"]["owner"] = "somebody@acme.example"
    estate.write()
    until(lambda: not troubles(agent), "the trouble is over")
    assert (agent.status().estate_hash == before) is (how == "taken back")


def test_an_edit_that_no_connector_can_open_leaves_the_rest_at_work(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    estate.add_erp("channel", "http://127.0.0.1:9", memory=MEMORY)
    estate.systems["channel"]["settings"]["auth"] = {"kind": "bearer", "token": "env:DISTCTL_NOT_SET"}
    estate.add_flow("channel", to_erp("channel"), pattern="channel-*.csv")
    estate.write()
    until(lambda: "DISTCTL_NOT_SET" in troubles(agent), "the missing secret shows in the status")
    planner.publish("R-1", "R-2")
    until(lambda: taken(erp) == planner.published, "the other flow delivers")


def test_what_a_removed_flow_owes_is_delivered_all_the_same(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    strand(agent, erp, planner, "R-1", "R-2", "R-1")
    folder = estate.add_folder("warehouse")
    del estate.flows["reco"]
    estate.add_flow("stock", to_folder("warehouse"), pattern="stock-*.csv")
    before = agent.status().estate_hash
    estate.write()
    wait_for_estate(agent, other_than=before)
    erp.open_shop()
    until(lambda: taken(erp) == planner.published, "the removed flow's lane is worked")
    until(lambda: agent.lane("erp").owed == 0, "nothing is owed")
    assert not any(flow.flow == "reco" for flow in agent.client.flows().items)
    assert list(folder.iterdir()) == []


def test_an_event_goes_by_the_mapping_of_the_estate_that_it_carries(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    strand(agent, erp, planner, "R-1", "R-2", "R-3", "R-1")
    estate.flows["reco"]["targets"][0]["mapping"] = {"fields": ORDER | {"mapped": "'anew'"}}
    before = agent.status().estate_hash
    estate.write()
    wait_for_estate(agent, other_than=before)
    planner.publish("R-1", "R-4")
    erp.open_shop()
    until(lambda: taken(erp) == planner.published, "old and new are delivered")
    anew = {(entry.body["reference"], entry.body["revision"]) for entry in erp.ledger if "mapped" in entry.body}
    assert anew == {("R-1", 3), ("R-4", 1)}


def test_a_restart_works_what_earlier_estates_owe_by_their_own_mapping(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    strand(agent, erp, planner, "R-1", "R-2")
    agent.signal(signal.SIGKILL)
    agent.wait()
    estate.flows["reco"]["targets"][0]["mapping"] = {"fields": ORDER | {"mapped": "'anew'"}}
    estate.write()
    planner.publish("R-1")
    erp.open_shop()
    agent.run()
    until(lambda: taken(erp) == planner.published, "old and new are delivered")
    assert [entry.body["reference"] for entry in erp.ledger if "mapped" in entry.body] == ["R-1"]


def test_an_agent_killed_while_it_adopts_an_edit_comes_back_with_it(
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run(crash_at="runtime.adopt_estate.before_commit:2")
    before = agent.status().estate_hash
    estate.flows["reco"]["owner"] = "somebody@acme.example"
    estate.write()
    assert agent.wait() == -signal.SIGKILL
    agent.run()
    assert agent.status().estate_hash != before
    planner.publish("R-1")
    until(lambda: taken(erp) == planner.published, "it delivers")
