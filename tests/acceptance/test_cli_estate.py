"""The commands that need no agent, and the first estate of a newcomer: written, checked, run, and delivering."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import doctor
from agent.doctor import Grade
from console.exit_codes import ExitCode


def distctl(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "console.cli.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    folder = tmp_path / "estate"
    assert distctl("init", folder).returncode == ExitCode.DONE
    return folder


@pytest.fixture
def running(estate: Path, tmp_path: Path) -> Iterator[Path]:
    """The data folder of an agent that runs the estate as a process."""
    data = tmp_path / "data"
    log = (tmp_path / "agent.log").open("w")
    command = [sys.executable, "-m", "console.cli.app", "agent", "run", "--estate", str(estate), "--data", str(data)]
    with log, subprocess.Popen(command, stderr=log) as process:
        until(lambda: distctl("status", "--data", data).returncode == ExitCode.DONE)
        yield data
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.DONE
    assert "Traceback" not in (tmp_path / "agent.log").read_text()


def until(wish: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not wish():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def test_the_first_estate_passes_check(estate: Path) -> None:
    answer = distctl("check", estate)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert json.loads(distctl("check", estate, "-o", "json").stdout) == []


def test_init_refuses_to_overwrite_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "estate.yaml").write_text("mine")
    answer = distctl("init", tmp_path)
    assert answer.returncode == ExitCode.USAGE
    assert "exists already" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["estate.yaml"]
    assert (tmp_path / "estate.yaml").read_text() == "mine"


def test_init_names_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = distctl("init", tmp_path / "file" / "estate")
    assert answer.returncode == ExitCode.USAGE
    assert "cannot write" in answer.stderr


def test_check_names_file_line_and_column(estate: Path) -> None:
    flow = estate / "flows" / "recommendations.yaml"
    flow.write_text(flow.read_text().replace("record.qty", "record.qantity"))
    line = next(n for n, text in enumerate(flow.read_text().splitlines(), start=1) if "qantity" in text)
    people = distctl("check", estate)
    assert people.returncode == ExitCode.USAGE
    assert people.stdout.startswith(f"flows/recommendations.yaml:{line}:")
    assert people.stderr == f"{estate}: 1 error, 0 warnings\n"
    [finding, *_] = json.loads(distctl("check", estate, "-o", "json").stdout)
    assert (finding["file"], finding["line"], finding["severity"]) == ("flows/recommendations.yaml", line, "error")
    assert finding["column"] > 0


def test_an_estate_that_is_wrong_does_not_start(estate: Path, tmp_path: Path) -> None:
    (estate / "estate.yaml").write_text("name: starter\n")
    answer = distctl("agent", "run", "--estate", estate, "--data", tmp_path / "data")
    assert answer.returncode == ExitCode.USAGE
    assert "estate.yaml" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_first_estate_delivers_what_is_dropped_into_it(estate: Path, running: Path) -> None:
    dropped = estate / "exchange" / "planning" / "out" / "reco-1.csv"
    dropped.write_bytes((estate / "samples" / "reco.csv").read_bytes())
    taken = estate / "exchange" / "erp" / "in"
    until(lambda: len(list(taken.glob("*.json"))) == 3)
    orders = [json.loads(file.read_text()) for file in taken.glob("R-1001-*.json")]
    assert sorted((order["revision"], order["sku"]) for order in orders) == [(1, "ALLOY-FRAME"), (2, "ALLOY-FRAME")]
    until(lambda: _status(running)["totals"]["delivered"] == 3)
    steps = json.loads(distctl("trace", "R-1001", "--data", running, "-o", "json").stdout)["steps"]
    assert [step["place"] for step in steps if step["deliveries"]] == ["reco-1.csv line 2", "reco-1.csv line 4"]
    assert distctl("audit", "verify", "--data", running).returncode == ExitCode.DONE
    assert distctl("doctor", "--data", running, "--estate", estate).returncode == ExitCode.DONE


def test_a_bad_line_is_set_aside_and_the_rest_goes_on(estate: Path, running: Path) -> None:
    text = (estate / "samples" / "reco.csv").read_text().replace("250", "25O")
    (estate / "exchange" / "planning" / "out" / "reco-2.csv").write_text(text)
    until(lambda: _status(running)["totals"]["delivered"] == 2)
    [letter] = json.loads(distctl("dlq", "list", "--data", running, "-o", "json").stdout)
    assert "reco-2.csv" in letter["place"]
    assert "line 3" in letter["place"]
    assert letter["hint"]
    shown = distctl("dlq", "show", str(letter["id"]), "--data", running)
    assert "R-1002,1,BRAKE-PAD,SUP-BRAKES,25O" in shown.stdout
    assert distctl("status", "--fail-on", "parked", "--data", running).returncode == ExitCode.UNHEALTHY


def test_a_second_agent_on_the_same_data_is_refused(estate: Path, running: Path) -> None:
    answer = distctl("agent", "run", "--estate", estate, "--data", running)
    assert answer.returncode == ExitCode.CONFLICT
    assert distctl("status", "--data", running).returncode == ExitCode.DONE


def _status(data: Path) -> dict[str, dict[str, int]]:
    answer: dict[str, dict[str, int]] = json.loads(distctl("status", "--data", data, "-o", "json").stdout)
    return answer


@pytest.mark.parametrize("kind", ["estate", "site", "flow"])
def test_editors_get_a_schema_of_each_kind_of_file(kind: str) -> None:
    schema = json.loads(distctl("schema", kind).stdout)
    assert schema["additionalProperties"] is False
    assert "[kind]" in distctl("schema", "--help").stdout
    assert schema["$schema"].endswith("2020-12/schema")


# --- doctor


def test_doctor_examines_a_machine_without_any_agent(tmp_path: Path) -> None:
    answer = distctl("doctor", "--data", tmp_path / "none", "-o", "json")
    found = {one["name"]: one["grade"] for one in json.loads(answer.stdout)}
    assert answer.returncode == ExitCode.DONE
    assert found["data"] == "warning"
    assert set(found) >= {"engine", "clock", "watches", "files"}


def test_doctor_finds_a_damaged_store(tmp_path: Path) -> None:
    path = tmp_path / "distctl.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
    connection.close()
    raw = bytearray(path.read_bytes())
    raw[4096:4608] = os.urandom(512)
    path.write_bytes(raw)
    answer = distctl("doctor", "--data", tmp_path)
    assert answer.returncode == ExitCode.UNHEALTHY
    assert "damaged" in answer.stdout


def test_doctor_finds_a_data_folder_that_is_open_to_everybody(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert doctor.rights(tmp_path).grade is Grade.WARNING
    tmp_path.chmod(0o750)
    assert doctor.rights(tmp_path).grade is Grade.GOOD


def test_doctor_finds_a_clock_that_cannot_be_right(tmp_path: Path) -> None:
    assert doctor.clock(None, datetime(1970, 1, 1, tzinfo=UTC)).grade is Grade.BAD
    assert doctor.clock(tmp_path).grade is Grade.GOOD
