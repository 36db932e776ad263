"""A page's blocks as a reader types them: run as they stand in one shell, with what each step shows and how long it took."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

_END_OF_STEP = "\x1e"
_MARK = re.compile(rf"{_END_OF_STEP}([0-9.]+)\n")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A typed block that was run: what it showed, and for how many seconds it went."""

    shown: str
    seconds: float


def section(page: Path, title: str) -> str:
    return page.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(page: Path, title: str) -> list[Block]:
    return [Block(language=found["language"], text=found["text"]) for found in BLOCK.finditer(section(page, title))]


def run(
    steps: Sequence[Block], folder: Path, *, instead: Mapping[str, str], prelude: str = "", seconds: float
) -> list[Step]:
    """Run the blocks in one shell that stands in `folder`; what it leaves running ends with it.

    `instead` says what to type for a port or a path, since several suites may run on this machine. Fails with all that was
    shown where a command fails.
    """
    typed = script(steps)
    for wanted, other in instead.items():
        typed = typed.replace(wanted, other)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTCTL_")}
    log = folder / "shown"
    with log.open("w") as shown:
        shell = subprocess.Popen(
            ["bash", "-c", f"{prelude}\n{typed}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=shown,
            start_new_session=True,
        )
    ended = _ended(shell, seconds)
    assert ended == 0, f"the walk-through ended with {ended} and showed:\n{log.read_text()}"
    _, *marked = _MARK.split(log.read_text())
    times, texts = [float(text) for text in marked[::2]], marked[1::2]
    return [Step(shown=text, seconds=end - start) for text, (start, end) in zip(texts, pairwise(times), strict=False)]


def script(steps: Sequence[Block]) -> str:
    """One shell that does everything."""
    mark = f"printf '{_END_OF_STEP}%s\\n' \"$EPOCHREALTIME\"\n"
    typed = [_typed(step, mark) for step in steps if step.language != "text"]
    return "".join(["set -e; trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n", mark, *typed])


def _typed(step: Block, mark: str) -> str:
    if step.language == "sh":
        return step.text + mark
    return f"cat > '{step.file}' <<'END OF FILE'\n{step.text}END OF FILE\n"


def _ended(shell: subprocess.Popen[bytes], seconds: float) -> int | str:
    """What the shell exits with; nothing that it started is left."""
    try:
        return shell.wait(seconds)
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


def assert_shows(shown: str, told: str) -> None:
    """A line that ends with an ellipsis was cut, as a terminal does."""
    cut = [
        f"{line[: len(wanted) - 1]}…" if wanted.endswith("…") else line
        for line, wanted in zip_longest(_plain(shown), _plain(told), fillvalue="")
    ]
    assert cut == _plain(told)


def _plain(shown: str) -> list[str]:
    """Its lines, without what differs from day to day: times, the estate's hash, and how wide columns are."""
    for pattern, name in _VARIABLE:
        shown = pattern.sub(name, shown)
    return [" ".join(line.split()) for line in shown.strip().splitlines()]
