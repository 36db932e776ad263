"""A whole run of the demo with a relay of the tests in the agents' place."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.simulators.judge import Check, Parked
from connectors.simulators.play import Act, Play, Played, Report, Scene, kill_erp, performed
from connectors.simulators.stage import Stage, write_estate
from state.model.errors import DistctlError

RELAY = Path(__file__).with_name("demo_relay.py")
WRONG = Check(name="two and two are four", ok=False, detail="they are five")


class RelayOfTheTests:
    """Stands where the agents stand."""

    def __init__(self, stage: Stage) -> None:
        self.home = stage.home
        self.program = stage.program("relay", sys.executable, str(RELAY), str(stage.home))
        self.programs = [self.program]
        self.acts = [
            Act(title="relay killed", play=self.die),
            Act(title="ERP killed", play=kill_erp),
            Act(title="sums", play=lambda _: Played(told="four", checks=[WRONG])),
        ]

    def start(self) -> None:
        self.program.start()
        self.program.wait_until((self.home / "parked.json").exists, within=30)

    def die(self, play: Play) -> Played:
        to_come = play.at_work()
        self.program.kill()
        self.start()
        return Played(told=f"{to_come} to come", checks=[], fenced={"relay": "for a test"}, resupplied=2)

    def owes(self) -> bool:
        return False

    def parked(self) -> Sequence[Parked]:
        return [Parked(**each) for each in json.loads((self.home / "parked.json").read_bytes())]

    def rows(self) -> Sequence[Mapping[str, Any]]:
        return [{"site": "relay", "state": "open", "epoch": 1}]


def run(home: Path) -> tuple[Report, list[Scene], list[int]]:
    scenes: list[Scene] = []
    with performed(home, seed=1, employ=RelayOfTheTests, show=scenes.append, pause=0.4) as report:
        pids = [json.loads(path.read_bytes())["pid"] for path in (home / "ready").glob("*.json")]
        assert all(is_running(pid) for pid in pids)
    return report, scenes, pids


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_in_a_run_every_check_holds_but_what_an_act_found_and_no_process_is_left(tmp_path: Path) -> None:
    report, scenes, pids = run(tmp_path)
    assert [check for check in report.checks if not check.ok] == [WRONG]
    assert not report.ok
    assert report.planned >= 1000
    assert report.delivered == report.planned - report.injected_bad
    assert report.parked == report.injected_bad
    assert (report.lost, report.doubled, report.order_inversions) == (0, 0, 0)
    assert {scene.phase for scene in scenes} == {"starting", "relay killed", "ERP killed", "sums", "settling"}
    assert [line.partition(" s  ")[2].partition(":")[0] for line in scenes[-1].told] == [
        *("1 agents work", "relay killed", "ERP killed", "sums")
    ]
    assert scenes[-1].told[-1].endswith("sums: FAILED: two and two are four: they are five")
    assert (report.fenced, report.resupplied) == (1, 2)
    assert report.agents == [{"site": "relay", "state": "open", "epoch": 1, "fenced": "for a test"}]
    assert not any(is_running(pid) for pid in pids)
    assert list(report.to_json()) == [*report.figures, "agents", "checks", "elapsed_s"]


def test_a_program_that_ends_by_itself_ends_the_run_and_says_where_its_log_is(tmp_path: Path) -> None:
    class Frail(RelayOfTheTests):
        def __init__(self, stage: Stage) -> None:
            super().__init__(stage)
            self.acts = [Act(title="end", play=self.end)]

        def end(self, play: Play) -> Played:
            os.kill(json.loads((self.home / "ready" / "wms.json").read_bytes())["pid"], signal.SIGKILL)
            play.publish()
            raise AssertionError("the warehouse is gone")

    with (
        pytest.raises(DistctlError, match="wms ended by itself") as raised,
        performed(tmp_path, seed=1, employ=Frail, show=lambda _: None),
    ):
        pass
    assert str(tmp_path / "logs" / "wms.log") in raised.value.hint


def test_every_site_has_the_estate_with_the_addresses_of_erp_and_hub(tmp_path: Path) -> None:
    write_estate(tmp_path, erp_url="http://127.0.0.1:1234", hub_port=5678)
    assert 'base_url: "http://127.0.0.1:1234"' in (tmp_path / "sites" / "hq.yaml").read_text()
    assert 'url: "https://127.0.0.1:5678"' in (tmp_path / "estate.yaml").read_text()
    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == [
        *("confirmations.yaml", "recommendations.yaml", "sales-orders.yaml", "stock.yaml")
    ]
