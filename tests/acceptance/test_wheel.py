"""What is shipped: the built wheel alone holds all that the commands, the store and the demo need."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a wheel that was built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("distctl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "packages")
    return folder / "packages"


def run(unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the wheel's packages before all others, away from the source tree."""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=unpacked.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_code_that_runs_is_the_wheels(unpacked: Path) -> None:
    done = run(unpacked, "-c", "import console, state; print(console.__file__, state.__file__)")
    assert all(path.startswith(str(unpacked)) for path in done.stdout.split())


def test_an_estate_is_started_and_checked_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    started = run(unpacked, "-m", "console.cli.app", "init", str(tmp_path / "estate"))
    assert started.returncode == 0, started.stderr
    checked = run(unpacked, "-m", "console.cli.app", "check", str(tmp_path / "estate"))
    assert checked.returncode == 0, checked.stderr + checked.stdout


def test_every_file_that_is_no_code_is_in_the_wheel(unpacked: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "state", "connectors", "agent", "console"], cwd=ROOT, capture_output=True, check=True
    )
    wanted = [name for name in listed.stdout.decode().splitlines() if not name.endswith(".py")]
    assert [name for name in wanted if not (unpacked / name).exists()] == []
    assert any(name.endswith(".sql") for name in wanted)


def test_the_four_packages_are_all_there_is(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == {
        "agent",
        "connectors",
        "console",
        "state",
    }
