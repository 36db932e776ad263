"""Two troubles at once, at a hub and two sites: a full disk while a store gathers, an edit of the estate while a site drains."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from agent.intake import LOW_WATER
from tests.acceptance.agent_process import Planner, left, until
from tests.acceptance.test_agent_faults import ballast
from tests.acceptance.test_bundles import SITES, Whole

pytestmark = pytest.mark.slow


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Whole]:
    (tmp_path / "data").mkdir()
    whole = Whole(tmp_path)
    with ExitStack() as stack:
        for site in SITES:
            stack.enter_context(whole.agent(site))
        yield whole


def begin(whole: Whole) -> None:
    """Start all three, and wait until both sites have the hub's estate."""
    whole.agents["hq"].run()
    for site in ("north", "south"):
        whole.enrol(site)
        whole.agents[site].run()
        until(partial(whole.is_told, site, state="good"), f"{site} takes its estate from the hub")


@pytest.fixture
def small_hub(unstarted: Whole) -> Iterator[Path]:
    """The hub's data on a disk of its own, with just the room that a backup needs."""
    folder = unstarted.agents["hq"].data
    folder.mkdir()
    size = f"size={2 * LOW_WATER + (48 << 20)}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    unstarted.agents["hq"].kill()
    subprocess.run(["umount", "--lazy", folder], check=True)


def command(whole: Whole, *words: str, site: str = "hq") -> str:
    done = whole.distctl(*words, site=site)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_hub_whose_disk_is_full_while_it_gathers_goes_on_when_there_is_room(
    unstarted: Whole, small_hub: Path
) -> None:
    whole, hub, planner = unstarted, unstarted.agents["hq"], Planner(unstarted.folder / "planning")
    begin(whole)
    planner.publish("R-1")
    until(lambda: left(whole.folder / "erp") == {"R-1": [1]}, "the first arrives")
    command(whole, "backup", str(whole.folder / "backups"))
    planner.publish("R-1", *[f"R-{number}" for number in range(2, 40)])
    for target in ("wms", "erp"):
        until(lambda: left(whole.folder / target) == planner.published, "what the backup does not have arrives")  # noqa: B023
    for site in ("north", "south", "hq"):
        whole.agents[site].stop()
    [manifest] = (whole.folder / "backups").glob("*/manifest.json")
    for file in small_hub.glob("distctl.db*"):
        file.unlink()
    command(whole, "restore", str(manifest.parent), "--reason", "the disk is new")
    planner.publish("R-2")
    with ballast(small_hub, leaving=0, reserve=False):
        hub.start()
        assert hub.wait() == 7, hub.log()[-3000:]
        assert "cannot be opened" in hub.log()
    hub.start()
    until(lambda: "has to hear from" in hub.log(), "it gathers")
    with ballast(small_hub, leaving=0, reserve=(small_hub / "reserve").exists()):
        for site in ("north", "south"):
            whole.agents[site].start()
        until(lambda: "full" in hub.log() + whole.agents["north"].log(), "what is given back finds no room")
        time.sleep(2)
        assert hub.is_running, hub.log()[-3000:]
    for target in ("wms", "erp"):
        until(lambda: left(whole.folder / target) == planner.published, "everything arrives once and in order")  # noqa: B023
    until(lambda: hub.status().totals.backlog == 0, "nothing is owed")
    assert hub.client.audit_verdict().ok


def test_an_edit_while_a_site_drains_lets_nothing_in_before_the_drain_ends(unstarted: Whole) -> None:
    whole, north = unstarted, unstarted.agents["north"]
    begin(whole)
    command(whole, "agents", "drain", "north", "--reason", "the machine moves")
    until(lambda: "drained" in str(north.status().conditions), "it owes nothing")
    planner = whole.add_flow("bulk")
    planner.publish("R-1")
    edited = whole.edit()
    until(partial(whole.runs, "north", edited), "the edit is in force at a site that drains")
    assert "drained" in str(north.status().conditions)
    time.sleep(3)  # long enough for a file to come to rest and be read
    north.kill()
    north.run()
    time.sleep(3)
    assert (left(whole.folder / "wms"), north.rows("SELECT count(*) FROM events")) == ({}, [(0,)])
    command(whole, "agents", "undrain", "north", "--reason", "it stands")
    until(lambda: left(whole.folder / "wms") == planner.published, "the new flow is read")
