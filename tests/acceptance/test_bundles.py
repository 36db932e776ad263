"""The hub's estate at its sites, with real processes: it comes, is judged, is refused, crashes, and is given back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.identity.testing import free_port
from agent.site_estate import REVERT_AFTER
from connectors.simulators.leash import leashed
from tests.acceptance.agent_process import ORDER, AgentProcess, EstateFolder, Planner, left, until

pytestmark = pytest.mark.slow

SITES = ("hq", "north", "south")


class Whole:
    """A hub and two sites, each with a folder that it was started with; files go from the north to the hub and the south."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.agents: dict[str, AgentProcess] = {}
        self.systems: dict[str, dict[str, Any]] = {
            "hq": {"erp": self._files("erp")},
            "north": {"planning": self._files("planning")},
            "south": {"wms": self._files("wms")},
        }
        flow = EstateFolder(folder / "unused").add_flow(
            "reco", *({"system": name, "mapping": {"fields": ORDER}} for name in ("erp", "wms"))
        )
        flow["source"]["settings"]["folder"] = str(folder / "planning")
        self.flows: dict[str, dict[str, Any]] = {"reco": flow}
        for site in SITES:
            self.write(site)

    def _files(self, name: str) -> dict[str, Any]:
        (self.folder / name).mkdir(exist_ok=True)
        settings = {"folder": str(self.folder / name), "name": "{subject}-{key}.json"}
        return {"connector": "files", "settings": settings if name != "planning" else {"folder": settings["folder"]}}

    def write(self, site: str) -> None:
        """Write the estate as it should be now into the folder of a site."""
        hub = {"site": "hq", "url": f"https://127.0.0.1:{self.port}", "listen": f"127.0.0.1:{self.port}"}
        files: Mapping[str, Any] = {
            "estate.yaml": {"name": "acme", "environment": "test", "currency": "EUR", "hub": hub},
            **{f"sites/{one}.yaml": {"site": one, "systems": self.systems[one]} for one in SITES},
            **{f"flows/{name}.yaml": flow for name, flow in self.flows.items()},
        }
        for name, content in files.items():
            path = self.folder / "estates" / site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))

    def add_flow(self, name: str, **system: Any) -> Planner:
        """Another flow of files from the north to the south, from a folder of its own; `system` is its source."""
        (self.folder / name).mkdir()
        self.systems["north"][name] = {"connector": "files", "settings": {"folder": str(self.folder / name)}, **system}
        flow = json.loads(json.dumps(self.flows["reco"]))
        flow |= {
            "flow": name,
            "targets": [{"system": "wms", "mapping": {"fields": ORDER}}],
            "order": {"domain": "reco"},
        }
        flow["source"] |= {"system": name}
        flow["source"]["settings"] |= {"folder": str(self.folder / name), "pattern": f"{name}-*.csv"}
        self.flows["reco"]["order"] = {"domain": "reco"}
        self.flows[name] = flow
        return Planner(self.folder / name, prefix=name)

    def agent(self, site: str, *, estate: bool = True) -> AgentProcess:
        """The agent of a site, told its folder or not."""
        made = AgentProcess(self.folder / "estates" / site, self.folder / "data" / site)
        folder = ["--estate", str(self.folder / "estates" / site)] if estate else []
        made.command = leashed(
            [
                *(sys.executable, "-m", "console.cli.app", "--data", str(made.data), "--site", site),
                *("agent", "run", "--log", "json", *folder),
            ]
        )
        self.agents[site] = made
        return made

    def distctl(self, *words: str, site: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command against one agent."""
        return subprocess.run(
            [sys.executable, "-m", "console.cli.app", "--data", str(self.folder / "data" / site), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )

    def enrol(self, site: str) -> None:
        """Invite the site at the hub and enrol its agent."""
        invited = self.distctl("agents", "invite", site, "-o", "json", site="hq")
        assert invited.returncode == 0, invited.stderr
        token = json.loads(invited.stdout)["token"]
        url = f"https://127.0.0.1:{self.port}"
        enrolled = self.distctl("agent", "enrol", "--hub", url, site=site, DISTCTL_INVITATION=token)
        assert enrolled.returncode == 0, enrolled.stderr

    def estate(self, site: str) -> str:
        """The hash of the estate in force."""
        return self.agents[site].status().estate_hash

    def edit(self) -> str:
        """Write the estate into the hub's folder; the hash once it is in force there."""
        before = self.estate("hq")
        self.write("hq")
        until(lambda: self.estate("hq") != before, "the edit is in force at the hub")
        return self.estate("hq")

    def told(self, site: str) -> dict[str, Any]:
        """What the hub shows of a site's bundles."""
        shown = self.distctl("agents", "show", site, "-o", "json", site="hq")
        assert shown.returncode == 0, shown.stderr
        return dict(json.loads(shown.stdout)["bundle"] or {})

    def is_told(self, site: str, **expected: Any) -> bool:
        """Whether the hub shows that of a site's bundles."""
        return expected.items() <= self.told(site).items()

    def runs(self, site: str, estate: str) -> bool:
        """Whether that estate is in force there."""
        return self.estate(site) == estate

    def troubles(self, site: str) -> str:
        return "; ".join(self.agents[site].client.health().troubles)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    (tmp_path / "data").mkdir()
    whole = Whole(tmp_path)
    with ExitStack() as stack:
        for site in SITES:
            stack.enter_context(whole.agent(site))
        whole.agents["hq"].run()
        for site in ("north", "south"):
            whole.enrol(site)
            whole.agents[site].run()
            until(partial(whole.is_told, site, state="good"), f"{site} takes its estate from the hub")
        yield whole


def test_an_edit_at_the_hub_is_in_force_at_every_site_and_an_edit_at_a_site_at_none(whole: Whole) -> None:
    planner = whole.add_flow("bulk")
    edited = whole.edit()
    for site in ("north", "south"):
        until(partial(whole.runs, site, edited), f"{site} runs it too")
    planner.publish("R-1")
    until(lambda: left(whole.folder / "wms") == {"R-1": [1]}, "the new flow works")
    status = whole.agents["north"].status()
    assert status.estate_from.startswith("bundle 2 (")
    assert status.estate_from.endswith("north differs and is not read")
    until(lambda: whole.told("north").get("number") == 2, "the hub knows")
    adopted = next(one for one in whole.agents["north"].client.audit().items if one.action == "adopt")
    assert adopted.reason.startswith("bundle 2 (")
    whole.flows["reco"]["owner"] = "the people of the north"
    whole.write("north")
    until(lambda: "differs" in whole.agents["north"].status().estate_from, "it is seen")
    assert whole.estate("north") == edited


def test_a_bundle_that_one_site_cannot_run_is_refused_there_and_works_elsewhere(whole: Whole) -> None:
    before, key = whole.estate("north"), whole.folder / "key"
    auth = {"kind": "bearer", "token": f"file:{key}"}
    settings = {"base_url": "http://127.0.0.1:9", "path": "/", "auth": auth}
    whole.systems["north"]["shop"] = {"connector": "http", "settings": settings, "memory": {"key_lifetime": "1h"}}
    whole.flows["reco"]["targets"].append({"system": "shop", "mapping": {"fields": ORDER}})
    edited = whole.edit()
    until(lambda: whole.estate("south") == edited, "the south runs it")
    until(lambda: whole.told("north").get("refused") == 2, "the north says that it cannot")
    assert (whole.told("north")["number"], whole.estate("north")) == (1, before)
    assert str(key) in whole.told("north")["reason"]
    assert "bundle 2" in whole.troubles("north")
    Planner(whole.folder / "planning").publish("R-1")
    until(lambda: left(whole.folder / "erp") == {"R-1": [1]}, "the north works as before")


def test_a_bundle_under_which_the_agent_crashes_is_given_back_and_never_tried_again(whole: Whole) -> None:
    north, before = whole.agents["north"], whole.estate("north")
    north.stop()
    north.run(crash_at="intake.take_in.before_commit")
    whole.add_flow("bulk").publish("R-1")
    whole.edit()
    for _ in range(REVERT_AFTER):
        assert north.wait() == -signal.SIGKILL
        north.start(crash_at="intake.take_in.before_commit", anew=False)
    until(lambda: north.is_running and _answers(north), "it runs again")
    assert whole.estate("north") == before
    assert f"{REVERT_AFTER} starts under it came to nothing" in whole.troubles("north")
    until(lambda: whole.told("north").get("refused") == 2, "the hub is told")
    assert [one.action for one in north.client.audit().items if "came to nothing" in one.reason] == ["revert"]
    north.kill()
    north.start()
    until(lambda: _answers(north), "it starts")
    assert whole.estate("north") == before, "the same number is not tried again"
    whole.flows["bulk"]["owner"] = "somebody else"
    edited = whole.edit()
    until(lambda: whole.estate("north") == edited, "a newer one is")


def test_what_a_site_does_not_allow_is_refused_until_it_does(whole: Whole) -> None:
    before, allowed = whole.estate("north"), whole.agents["north"].data / "allow.yaml"
    allowed.write_text("hub_may:\n  connectors: [files]\n")
    whole.systems["north"]["shop"] = {"connector": "http", "settings": {"base_url": "http://127.0.0.1:9", "path": "/"}}
    edited = whole.edit()
    until(lambda: whole.estate("south") == edited, "the south runs it")
    until(lambda: whole.told("north").get("refused") == 2, "the north refuses it")
    assert "does not let the hub use http" in whole.told("north")["reason"]
    assert whole.estate("north") == before
    allowed.unlink()
    whole.agents["north"].client.reload()
    until(lambda: whole.estate("north") == edited, "it is judged again")


def test_an_estate_of_a_sites_own_reaches_no_target_before_the_hub_has_it(whole: Whole) -> None:
    north = whole.agents["north"]
    north.stop()
    (north.data / "identity").rename(north.data / "identity.away")
    whole.flows["reco"]["owner"] = "the people of the north"
    whole.write("north")
    north.start()
    until(lambda: _answers(north), "it runs its own")
    planner = Planner(whole.folder / "planning")
    planner.publish("R-1")
    until(lambda: north.rows("SELECT 1 FROM events"), "it was taken in")
    north.stop()
    (north.data / "identity.away").rename(north.data / "identity")
    north.start()
    until(lambda: whole.agents["hq"].rows("SELECT 1 FROM unapplied"), "it waits at the hub")
    conditions = {one.name: one.text for one in whole.agents["hq"].status().conditions}
    assert "1 of north for estate" in conditions["unknown-estate"]
    planner.publish("R-2")
    until(lambda: left(whole.folder / "erp") == {"R-2": [1]}, "what is of the hub's estate goes on")
    assert left(whole.folder / "wms") in ({}, {"R-2": [1]})
    whole.edit()
    until(lambda: sorted(left(whole.folder / "erp")) == ["R-1", "R-2"], "the hub has it too by now")


def test_a_site_that_has_a_bundle_needs_no_folder(whole: Whole) -> None:
    north, before = whole.agents["north"], whole.estate("north")
    north.stop()
    with whole.agent("north", estate=False) as alone:
        alone.run()
        assert whole.estate("north") == before
        Planner(whole.folder / "planning").publish("R-1")
        until(lambda: left(whole.folder / "erp") == {"R-1": [1]}, "it works")


def _answers(agent: AgentProcess) -> bool:
    """Whether it is there, well or not."""
    try:
        return bool(agent.client.status())
    except Exception:  # noqa: BLE001  it is starting
        return False


def test_what_comes_late_of_a_flow_that_the_estate_no_longer_has_is_delivered_all_the_same(whole: Whole) -> None:
    planner = whole.add_flow("bulk")
    edited = whole.edit()
    for site in ("north", "south"):
        until(partial(whole.is_told, site, number=2), f"{site} runs it")
        assert whole.estate(site) == edited
    north = whole.agents["north"]
    whole.agents["hq"].stop()
    planner.publish("R-1", "R-2")
    until(lambda: north.rows("SELECT count(*) FROM events") == [(2,)], "the north alone has them")
    north.stop()
    whole.agents["hq"].run()
    del whole.flows["bulk"]
    (whole.folder / "estates" / "hq" / "flows" / "bulk.yaml").unlink()
    removed = whole.edit()
    until(partial(whole.runs, "south", removed), "the south has forgotten the flow, and owes nothing of it")
    north.run()
    until(lambda: left(whole.folder / "wms") == {"R-1": [1], "R-2": [1]}, "the lane is worked again")
    until(lambda: whole.agents["south"].status().totals.backlog == 0, "nothing is owed")
