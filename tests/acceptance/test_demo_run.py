"""A whole run of the demo with a relay of the tests in the agent's place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from connectors.simulators.judge import Parked
from connectors.simulators.play import Report, Scene, performed
from connectors.simulators.stage import Stage, write_estate

RELAY = Path(__file__).with_name("demo_relay.py")


class RelayOfTheTests:
    """Stands where the agent stands."""

    def __init__(self, stage: Stage) -> None:
        self.home = stage.home
        self.program = stage.program("relay", sys.executable, str(RELAY), str(stage.home))

    def is_ready(self) -> bool:
        return (self.home / "parked.json").exists()

    def owes(self) -> bool:
        return False

    def parked(self) -> Sequence[Parked]:
        return [Parked(**each) for each in json.loads((self.home / "parked.json").read_bytes())]


def run(home: Path) -> tuple[Report, list[Scene], list[int]]:
    scenes: list[Scene] = []
    stages: list[Stage] = []

    def employ(stage: Stage) -> RelayOfTheTests:
        stages.append(stage)
        return RelayOfTheTests(stage)

    with performed(home, seed=1, employ=employ, show=scenes.append, pause=0.4) as report:
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
def test_a_run_in_which_all_goes_well_holds_every_check_and_leaves_no_process(tmp_path: Path) -> None:
    report, scenes, pids = run(tmp_path)
    assert [check for check in report.checks if not check.ok] == []
    assert report.planned >= 1000
    assert report.delivered == report.planned - report.injected_bad
    assert report.parked == report.injected_bad
    assert (report.lost, report.doubled, report.order_inversions) == (0, 0, 0)
    assert {scene.phase for scene in scenes} == {"starting", "publishing", "agent killed", "ERP killed", "settling"}
    assert not any(is_running(pid) for pid in pids)
    assert list(report.to_json()) == [
        *(
            "planned",
            "injected_bad",
            "delivered",
            "parked",
            "lost",
            "doubled",
            "order_inversions",
            "checks",
            "elapsed_s",
        )
    ]


def test_the_estate_is_written_with_the_address_of_the_erp(tmp_path: Path) -> None:
    write_estate(tmp_path, erp_url="http://127.0.0.1:1234")
    assert 'base_url: "http://127.0.0.1:1234"' in (tmp_path / "sites" / "dc-north.yaml").read_text()
    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == [
        *("confirmations.yaml", "recommendations.yaml", "stock.yaml")
    ]
