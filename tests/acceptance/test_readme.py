"""The README as a reader meets it: its walk-through is run as it is written, in one shell, and shows what the README shows."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from console.exit_codes import MEANING

README = Path(__file__).parents[2] / "README.md"
WALK_THROUGH = "An estate by hand"
PORT = "8071"
SECONDS = 120

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_END_OF_STEP = "\x1e"
_VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"estate [0-9a-f]{8}\b"), "estate HASH"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: `sh` is typed, `text` is what the step before it shows, the rest are files that name themselves."""

    language: str
    text: str

    @property
    def file(self) -> str:
        return self.text.splitlines()[0].removeprefix("# ")


def section(title: str) -> str:
    return README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title: str) -> list[Block]:
    return [Block(language=found["language"], text=found["text"]) for found in _BLOCK.finditer(section(title))]


def script(steps: Sequence[Block]) -> str:
    """One shell that does everything; what is left running ends with it."""
    return "".join(
        [
            "set -e; trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n",
            *(_typed(step) for step in steps if step.language != "text"),
        ]
    )


def _typed(step: Block) -> str:
    if step.language == "sh":
        return f"{step.text}printf '{_END_OF_STEP}'\n"
    return f"cat > '{step.file}' <<'END OF FILE'\n{step.text}END OF FILE\n"


def plain(shown: str) -> list[str]:
    """Its lines, without what differs from day to day: times, the estate's hash, and how wide columns are."""
    for pattern, name in _VARIABLE:
        shown = pattern.sub(name, shown)
    return [" ".join(line.split()) for line in shown.strip().splitlines()]


def assert_shows(shown: str, told: str) -> None:
    """A line that ends with an ellipsis was cut, as a terminal does."""
    cut = [
        f"{line[: len(wanted) - 1]}…" if wanted.endswith("…") else line
        for line, wanted in zip_longest(plain(shown), plain(told), fillvalue="")
    ]
    assert cut == plain(told)


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


def shown_in_order(steps: Sequence[Block], clone: Path) -> list[str]:
    """What each typed step shows. The port is another one, since several suites may run on this machine."""
    typed = script(steps).replace(PORT, free_port())
    plain_environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTCTL_")}
    log = clone / "shown"
    with log.open("w") as shown:
        shell = subprocess.Popen(
            ["bash", "-c", typed],
            cwd=clone,
            env=plain_environment,
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=shown,
            start_new_session=True,
        )
    ended = _ended(shell)
    assert ended == 0, f"the walk-through ended with {ended} and showed:\n{log.read_text()}"
    return log.read_text().split(_END_OF_STEP)


def _ended(shell: subprocess.Popen[bytes]) -> int | str:
    """What the shell exits with; nothing that it started is left."""
    try:
        return shell.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return "no result"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def expectations(steps: Sequence[Block]) -> Iterator[tuple[int, Block]]:
    """Each `text` block with the number of the typed step that shows it."""
    typed = -1
    for step in steps:
        if step.language == "sh":
            typed += 1
        elif step.language == "text":
            yield typed, step


@pytest.mark.slow
def test_an_estate_written_by_hand_from_the_readme_works_at_the_first_try(clone: Path) -> None:
    steps = blocks(WALK_THROUGH)
    shown = shown_in_order(steps, clone)
    for number, step in expectations(steps):
        assert_shows(shown[number], step.text)


def test_the_walk_through_shows_a_bad_line_its_cure_and_a_trace() -> None:
    typed = " ".join(step.text for step in blocks(WALK_THROUGH) if step.language == "sh")
    for command in ("check", "agent run", "status", "dlq list", "dlq show 1", "trace R-1001"):
        assert f"distctl {command}" in typed
    assert len(list(expectations(blocks(WALK_THROUGH)))) >= 6


def test_the_readme_opens_with_the_two_commands_and_a_picture() -> None:
    opening = README.read_text().partition("\n## ")[0]
    assert _BLOCK.search(opening)["text"].split("\n") == ["make demo", "make test", ""]  # type: ignore[index]
    assert opening.index("make demo") < opening.index("![")


def test_the_readme_has_the_one_table_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section("Exit codes"), re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANING.items()]
