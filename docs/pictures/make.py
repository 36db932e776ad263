"""Draws the README's picture anew from a real run: `.venv/bin/python docs/pictures/make.py`, about two minutes.

`distctl demo` runs under a terminal of its own. The picture holds what that terminal showed in the middle, when the hub had just
been lost, what it showed at the end, and what the hub then answered.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

WIDTH: Final = 124
HEIGHT: Final = 50
PICTURE: Final = Path(__file__).with_name("demo.svg")
DISTCTL: Final = str(Path(sys.executable).with_name("distctl"))
TELLING_MOMENT: Final = "s  hub lost"
RUNS_ON: Final = "everything runs"

_PIECE = re.compile(
    r"\x1b\[(?P<count>\d*)(?P<move>[AK])|\x1b\[\?25[hl]|(?P<end>[\r\n])|(?P<text>(?:\x1b\[[\d;]*m|[^\x1b\r\n])+)"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Screen:
    """As much of a terminal as a live display needs: lines, going up, and erasing one. Colours stay in the lines."""

    def __init__(self) -> None:
        self.lines = [""]
        self.moment: list[str] = []  # the last whole display of the telling moment
        self._row = 0

    def feed(self, text: str) -> None:
        """Show `text`."""
        for piece in _PIECE.finditer(text):
            if piece["text"]:
                self.lines[self._row] += piece["text"]
            elif piece["end"] == "\n":
                self._go_down()
            elif piece["move"] == "A":
                self._row = max(self._row - int(piece["count"] or "1"), 0)
            elif piece["move"] == "K":
                self._erase()

    def _go_down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _erase(self) -> None:
        if any(_COLOUR.sub("", line).rstrip().endswith(TELLING_MOMENT) for line in self.lines) and all(self.lines):
            self.moment = list(self.lines)
        self.lines[self._row] = ""


def shown_by(*command: str) -> tuple[subprocess.Popen[bytes], Iterator[str]]:
    """Start `command` under a terminal; the process, and what the terminal gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)  # noqa: S603 - ours
    os.close(theirs)
    return process, _read(ours)


def _read(terminal: int) -> Iterator[str]:
    try:
        while chunk := os.read(terminal, 65536):
            yield chunk.decode(errors="replace")
    except OSError:  # Linux says EIO when the last writer is gone
        return
    finally:
        os.close(terminal)


def performed() -> tuple[list[str], list[str], list[str]]:
    """What the demo showed in the middle and at its end, and what its hub says then."""
    process, chunks = shown_by(DISTCTL, "demo", "--keep")
    screen = Screen()
    for chunk in chunks:
        screen.feed(chunk)
        if any(RUNS_ON in line for line in screen.lines):
            break
    report = [line for line in screen.lines if not line.startswith("  distctl") and RUNS_ON not in line]
    data = re.search(r"--data (\S+/hq/data)", "\n".join(screen.lines))
    if data is None:
        raise SystemExit("\n".join(screen.lines))
    status = Screen()
    asked, answers = shown_by(DISTCTL, "--data", data[1], "status")
    for chunk in answers:
        status.feed(chunk)
    asked.wait()
    process.send_signal(signal.SIGINT)
    for _ in chunks:
        pass
    process.wait()
    return screen.moment, report, status.lines


def draw() -> None:
    """Run the demo and write the picture."""
    moment, report, status = performed()
    terminal = Console(width=WIDTH, record=True, file=StringIO(), force_terminal=True)
    for command, lines in (("make demo", [*moment, "", *report]), ("distctl status", status)):
        terminal.print(Text(f"$ {command}", style="bold"))
        for line in "\n".join(lines).strip("\n").split("\n"):
            terminal.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
        terminal.print()
    PICTURE.write_text(_alone(terminal.export_svg(title="distctl", unique_id="distctl")), encoding="utf-8")


def _alone(svg: str) -> str:
    """The picture without the fonts and the remark that name other servers: who looks at it asks nobody."""
    return re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    draw()
