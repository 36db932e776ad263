"""`distctl demo` as it is typed: the real agents, the report, the exit code, and nothing left running however it ends."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.control.schema import DeadLetterRow
from connectors.simulators.judge import Check
from connectors.simulators.play import Report
from console.cli.demo import write_report
from console.cli.demo_agents import parked
from console.cli.output import Format, Output

FIGURES = (
    *("planned", "injected_bad", "delivered", "parked", "lost", "doubled", "order_inversions", "fenced", "resupplied"),
)
SITES = ("hq", "dc-north", "dc-south", "web")
DISTCTL = [sys.executable, "-m", "console.cli.app"]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [*DISTCTL, "demo", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(holds: Callable[[], bool], *, within: float) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(home: Path) -> list[int]:
    """Every process whose command line names the folder, but for the demo itself."""
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in entries if str(home).encode() in command_line(entry)]


def command_line(entry: Path) -> bytes:
    try:
        words = (entry / "cmdline").read_bytes()
    except OSError:
        return b""
    return b"" if b"\0demo\0" in words else words


def distctl(home: Path, site: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*DISTCTL, "--data", str(home / site / "data"), *arguments, "-o", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_the_demo_holds_every_check_and_can_be_kept_and_looked_at(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    with started("--keep", "--headless", "-o", "json", "--home", str(home)) as process:
        assert process.stderr is not None
        talk: list[str] = []
        while "ctrl-c ends it" not in (line := process.stderr.readline()):
            assert line, f"it ended: {''.join(talk)}"
            talk.append(line)
        assert len(processes_of(home)) == 9
        for site in SITES:
            assert json.loads(distctl(home, site, "status").stdout)["totals"]["pending"] == 0
            assert distctl(home, site, "audit", "verify").returncode == 0
        letters = json.loads(distctl(home, "dc-south", "dlq", "list", "--limit", "1000").stdout)
        agents = json.loads(distctl(home, "hq", "agents", "list").stdout)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    report = json.loads(output)
    assert list(report) == [*FIGURES, "agents", "checks", "elapsed_s"]
    assert [check for check in report["checks"] if not check["ok"]] == []
    assert report["planned"] >= 1000
    assert report["delivered"] == report["planned"] - report["injected_bad"]
    assert report["parked"] == report["injected_bad"] == sum(row["flow"] == "recommendations" for row in letters)
    assert report["lost"] == report["doubled"] == report["order_inversions"] == 0
    assert report["fenced"] == 1
    assert report["resupplied"] > 0
    assert [row["site"] for row in report["agents"] if row["fenced"]] == ["web"]
    assert {row["site"]: row["epoch"] for row in report["agents"]} == {"hq": 2, "dc-north": 1, "dc-south": 1, "web": 2}
    assert {row["agent"]: row["state"] for row in agents} == dict.fromkeys(SITES[1:], "open")
    assert processes_of(home) == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_whatever_ends_the_demo_nothing_of_it_is_left(tmp_path: Path, number: int, code: int) -> None:
    home = tmp_path / "demo"
    with started("--headless", "--home", str(home)) as process:
        wait_until(lambda: len(processes_of(home)) == 9, within=60)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == code
    wait_until(lambda: processes_of(home) == [], within=15)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with started("--home", str(tmp_path)) as process:
        _, talk = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "is not empty" in talk
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def a_report(*checks: Check) -> Report:
    figures = dict.fromkeys(FIGURES, 0)
    agents = [{"site": "web", "state": "open", "epoch": 2}]
    return Report(**{**figures, "planned": 3}, agents=agents, checks=checks, elapsed_s=1.25)


def written(report: Report, form: Format | None) -> str:
    data = io.StringIO()
    write_report(report, Output(format=form, data=data, talk=io.StringIO()))
    return data.getvalue()


def test_people_read_the_failed_checks_first_and_scripts_one_object() -> None:
    report = a_report(Check(name="good", ok=True, detail="yes"), Check(name="bad", ok=False, detail="1: X"))
    first, second, agent, figures, last = written(report, None).splitlines()
    assert (first, second) == ("FAILED  bad: 1: X", "ok      good: yes")
    assert agent == "agent of web: open, epoch 2"
    assert figures.startswith("planned 3, injected bad 0")
    assert last == "1 of 2 checks failed"
    assert json.loads(written(report, Format.JSON)) == report.to_json()
    assert not report.ok


@pytest.mark.parametrize(
    ("place", "file", "line"),
    [
        ("reco-2011-W13.csv line 14", "reco-2011-W13.csv", 14),
        ("reco-2011-W13.csv line 14, column 118", "reco-2011-W13.csv", 14),
        ("a file.csv line 2, field #14", "a file.csv", 2),
        ("reco-empty.csv", "reco-empty.csv", 0),
    ],
)
def test_a_dead_letter_is_known_by_its_file_and_line(place: str, file: str, line: int) -> None:
    now = datetime.now(UTC)
    row = DeadLetterRow(
        id=1,
        kind="record",
        state="open",
        flow="f",
        system="s",
        place=place,
        rule="a rule",
        code="c",
        message="m",
        hint="h",
        parked_at=now,
    )
    assert (parked(row).file, parked(row).line) == (file, line)
