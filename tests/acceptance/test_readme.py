"""The README as a reader meets it: its walk-through is run as it is written, in one shell, and shows what the README shows."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from console.exit_codes import MEANING
from tests.acceptance.walk_through import BLOCK, assert_shows, blocks, expectations, run, section

README = Path(__file__).parents[2] / "README.md"
WALK_THROUGH = "An estate by hand"
PORT = "8071"
SECONDS = 120


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make demo` leaves in a clone, as far as the walk-through touches it."""
    folder = tmp_path / "distctl"
    folder.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.slow
def test_an_estate_written_by_hand_from_the_readme_works_at_the_first_try(clone: Path) -> None:
    steps = blocks(README, WALK_THROUGH)
    done = run(steps, clone, instead={PORT: free_port()}, seconds=SECONDS)
    for number, step in expectations(steps):
        assert_shows(done[number].shown, step.text)


def test_the_walk_through_shows_a_bad_line_its_cure_and_a_trace() -> None:
    steps = blocks(README, WALK_THROUGH)
    typed = " ".join(step.text for step in steps if step.language == "sh")
    for command in ("check", "agent run", "status", "dlq list", "dlq show 1", "trace R-1001"):
        assert f"distctl {command}" in typed
    assert len(list(expectations(steps))) >= 6


def test_the_readme_opens_with_the_two_commands_and_a_picture() -> None:
    opening = README.read_text().partition("\n## ")[0]
    assert BLOCK.search(opening)["text"].split("\n") == ["make demo", "make test", ""]  # type: ignore[index]
    assert opening.index("make demo") < opening.index("![")


def test_the_readme_has_the_one_table_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section(README, "Exit codes"), re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANING.items()]
