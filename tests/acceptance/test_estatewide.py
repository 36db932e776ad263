"""Three agents as processes: a hub and two sites that enrol, keep in step, die, and are told apart from their copies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from agent.control.endpoint import store_in
from agent.crash_points import OF_A_HUB, OF_A_SITE
from agent.identity.testing import free_port
from connectors.simulators.leash import leashed
from state import life
from tests.acceptance.agent_process import (
    COLUMNS,
    ORDER,
    AgentProcess,
    EstateFolder,
    Partner,
    open_partner,
    taken,
    until,
)

pytestmark = pytest.mark.slow

SITES = ("hq", "north", "south")
PATIENCE = 120.0
"""Seconds: a site that found its hub dead a few times dials again after a minute."""


class Whole:
    """The estate, its agents, the planner's folder in the north and the ERP at the hub."""

    def __init__(self, folder: Path, erp: Partner, *, url: str = "") -> None:
        self.folder = folder
        self.erp = erp
        self.url = url or f"https://127.0.0.1:{free_port()}"
        self.agents: dict[str, AgentProcess] = {}
        self.published: dict[str, int] = {}
        for site in SITES:
            self._write(site)

    def data_of(self, name: str) -> Path:
        """The data folder of that name."""
        return self.folder / "data" / name

    @property
    def planning(self) -> Path:
        """Where the planner's files arrive."""
        return self.folder / "planning"

    @property
    def warehouse(self) -> Path:
        """Where the south's warehouse gets its files."""
        return self.folder / "wms"

    def agent(self, site: str, data: str = "") -> AgentProcess:
        """The agent of a site, on a data folder of its own."""
        name = data or site
        made = AgentProcess(self.folder / "estates" / site, self.data_of(name))
        made.command = leashed(
            [
                *(sys.executable, "-m", "console.cli.app", "--data", str(made.data), "--site", site),
                *("agent", "run", "--estate", str(self.folder / "estates" / site), "--log", "json"),
            ]
        )
        self.agents[name] = made
        return made

    def distctl(self, *words: str, data: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command against one agent."""
        return subprocess.run(
            [sys.executable, "-m", "console.cli.app", "--data", str(self.data_of(data)), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )

    def enrol(self, site: str) -> None:
        """Invite the site at the hub and enrol its agent."""
        invited = self.distctl("agents", "invite", site, "-o", "json", data="hq")
        assert invited.returncode == 0, invited.stderr
        token = json.loads(invited.stdout)["token"]
        enrolled = self.distctl("agent", "enrol", "--hub", self.url, data=site, DISTCTL_INVITATION=token)
        assert enrolled.returncode == 0, enrolled.stderr

    def publish(self, *references: str) -> None:
        """One file of the planner in the north with the next revision of each reference."""
        lines = [",".join(COLUMNS)]
        for reference in references:
            revision = self.published[reference] = self.published.get(reference, 0) + 1
            lines.append(f"{reference},{revision},SKU-1,5,EA,2026-12-01,2026-11-23")
        path = self.planning / f"reco-{sum(self.published.values()):06}.csv"
        path.write_text("\n".join(lines) + "\n")
        path.with_name(f"{path.name}.done").touch()

    def arrived(self) -> bool:
        """Whether the ERP holds every revision once and in order, and the south's warehouse as many."""
        expected = {reference: list(range(1, count + 1)) for reference, count in self.published.items()}
        left = len(list(self.warehouse.glob("*.json")))
        return taken(self.erp) == expected and left == sum(self.published.values())

    def row(self, site: str) -> dict[str, Any]:
        """How the hub sees an agent."""
        listed = self.distctl("agents", "list", "-o", "json", data="hq")
        return next(row for row in json.loads(listed.stdout) if row["agent"] == site)

    def _write(self, site: str) -> None:
        home = self.folder / "estates" / site
        systems: Mapping[str, Mapping[str, Any]] = {
            "hq": {
                "erp": {
                    "connector": "http",
                    "settings": {"base_url": self.erp.url, "path": "/orders"},
                    "memory": {"key_lifetime": "1h"},
                }
            },
            "north": {"planning": {"connector": "files", "settings": {"folder": str(self.planning)}}},
            "south": {
                "wms": {
                    "connector": "files",
                    "settings": {"folder": str(self.warehouse), "name": "{subject}-{key}.json"},
                }
            },
        }
        targets = [{"system": name, "mapping": {"fields": ORDER}} for name in ("erp", "wms")]
        flow = EstateFolder(home).add_flow("reco", *targets)
        flow["source"]["settings"]["folder"] = str(self.planning)
        port = self.url.rpartition(":")[2]
        hub = {"site": "hq", "url": self.url, "listen": f"127.0.0.1:{port}"}
        files = {
            "estate.yaml": {"name": "acme", "environment": "test", "currency": "EUR", "hub": hub},
            **{f"sites/{one}.yaml": {"site": one, "systems": systems[one]} for one in SITES},
            "flows/reco.yaml": flow,
        }
        for name, content in files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(json.dumps(content))


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    for name in ("planning", "wms", "data"):
        (tmp_path / name).mkdir()
    with open_partner() as erp, ExitStack() as stack:
        whole = Whole(tmp_path, erp)
        for site in SITES:
            stack.enter_context(whole.agent(site))
        whole.agents["hq"].run()
        for site in ("north", "south"):
            whole.enrol(site)
            whole.agents[site].run()
        yield whole


def test_sites_enrol_keep_in_step_and_survive_the_death_of_every_agent(whole: Whole) -> None:
    whole.publish("R-1", "R-2")
    until(whole.arrived, "both targets have it")
    whole.agents["hq"].kill()
    whole.publish("R-1", "R-3")
    whole.agents["south"].kill()
    whole.publish("R-2", "R-1")
    whole.agents["north"].kill()
    for site in SITES:
        whole.agents[site].run() if site == "hq" else whole.agents[site].start()
    until(whole.arrived, "everything arrives once and in order")
    until(lambda: all(whole.row(site)["waiting"] == 0 for site in ("north", "south")), "everybody has everything")
    assert {whole.row(site)["state"] for site in ("north", "south")} == {"open"}


IS_FULL = int(os.environ.get("DISTCTL_KILLS", "0")) > 100
HUB_POINTS = OF_A_HUB if IS_FULL else [point for point in OF_A_HUB if "push" in point or "pull" in point]
SITE_POINTS = OF_A_SITE if IS_FULL else [point for point in OF_A_SITE if "take_in" in point]
"""`make kills` passes all of them."""


@pytest.mark.parametrize(("site", "points"), [("hq", HUB_POINTS), ("north", SITE_POINTS)], ids=["hub", "site"])
def test_killed_at_the_commits_of_the_exchange_nothing_is_lost_doubled_or_out_of_order(
    whole: Whole, site: str, points: Sequence[str]
) -> None:
    agent = whole.agents[site]
    for point in points:
        whole.publish("R-1", "R-2")
        until(whole.arrived, "both targets have it", seconds=PATIENCE)
        agent.kill()
        agent.start(crash_at=point)
        whole.publish("R-1", "R-2")
        assert agent.wait(PATIENCE) == -signal.SIGKILL, f"{point} was not passed"
        agent.start()
    until(whole.arrived, "everything arrives once and in order", seconds=PATIENCE)
    assert {whole.row(site)["state"] for site in ("north", "south")} == {"open"}


def test_a_copy_of_an_agent_is_fenced_and_a_person_decides_which_one_goes_on(whole: Whole) -> None:
    whole.publish("R-1")
    until(whole.arrived, "both targets have it")
    north = whole.agents["north"]
    north.stop()
    shutil.copytree(north.data, whole.data_of("copy"))
    north.run()
    whole.publish("R-1", "R-2")
    until(whole.arrived, "the original goes on")
    north.stop()
    with whole.agent("north", data="copy") as copy:
        copy.start()
        until(lambda: whole.row("north")["state"] == "fenced", "the copy is found")
        copy.stop()
    north.start()
    until(lambda: "is fenced" in north.log(), "the original is told")
    assert "agents adopt north" in whole.row("north")["to_do"]
    adopted = whole.distctl("agents", "adopt", "north", "--reason", "the copy was a mistake", data="hq")
    assert adopted.returncode == 0, adopted.stderr
    north.kill()
    north.start()
    whole.publish("R-1")
    until(whole.arrived, "it goes on, in a new epoch")
    assert (whole.row("north")["state"], whole.row("north")["epoch"]) == ("open", 2)


_LOOKS_SOON = "import agent.sync.site as s; s._FENCED_PAUSE = 0.5; from console.cli.app import main; main()"
"""An agent that asks the hub twice a second whether a person has decided, rather than once a minute."""


def test_an_agent_that_fenced_itself_works_again_when_it_is_adopted_while_it_runs(whole: Whole) -> None:
    whole.publish("R-1")
    until(whole.arrived, "both targets have it")
    north = whole.agents["north"]
    north.stop()
    with closing(sqlite3.connect(store_in(north.data))) as connection, connection:
        assert life.fence(connection, "event 1 of its tier 1 is one event here and another there")
    north.command = [_LOOKS_SOON if word == "console.cli.app" else word for word in north.command]
    north.command[north.command.index(_LOOKS_SOON) - 1] = "-c"
    north.start()
    whole.publish("R-1", "R-2")
    until(lambda: whole.row("north")["state"] == "fenced", "the hub is told")
    troubles = north.client.health().troubles
    assert any("this store is fenced" in one and "distctl agents adopt north" in one for one in troubles), troubles
    assert taken(whole.erp) == {"R-1": [1]}, "a store that may not go on takes in nothing"
    adopted = whole.distctl("agents", "adopt", "north", "--reason", "it is the only one", data="hq")
    assert adopted.returncode == 0, adopted.stderr
    until(whole.arrived, "it works again, and was not started anew")
    assert north.is_running
    assert (whole.row("north")["state"], whole.row("north")["epoch"]) == ("open", 2)


def test_a_site_that_is_denied_is_out_within_seconds_and_keeps_what_it_has(whole: Whole) -> None:
    denied = whole.distctl("agents", "deny", "north", "--reason", "stolen", data="hq")
    assert denied.returncode == 0, denied.stderr
    whole.publish("R-1")
    north = whole.agents["north"]
    until(lambda: any("stolen" in one for one in north.client.health().troubles), "the site says why", seconds=10)
    assert taken(whole.erp) == {}
    assert whole.distctl("agents", "allow", "north", "--reason", "found", data="hq").returncode == 0
    until(whole.arrived, "what it kept arrives", seconds=90)


def test_a_hub_that_stops_lets_those_who_wait_go_and_breaks_no_connection(whole: Whole) -> None:
    whole.publish("R-1")
    until(whole.arrived, "both targets have it")
    hub = whole.agents["hq"]
    assert hub.stop() == 0
    assert "Traceback" not in hub.log(), "nobody was cut off"
