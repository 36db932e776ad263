"""How often in a row the agent ended before it was well: a loop of crashes ends in safe mode, not in a thousand restarts.

The count is a file beside the store, since it may be the store that cannot be opened. It is written before the store is touched
and removed when the agent has run for a while, was told to stop, or said what keeps it from running: what is left of it speaks
of kills, crashes and disks.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

SAFE_AFTER: Final = 5
"""Starts in a row that came to nothing; the next one takes nothing in and delivers nothing until a person says so."""

WELL_AFTER: Final = 30.0
"""Seconds after which a start has come to something."""


class StartCount:
    """The count in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failed = 0
        """Starts in a row that came to nothing before this one."""

    def begin(self) -> None:
        """Count this start as failed until it turns out otherwise."""
        self.failed = _number_in(self._path)
        self._write(self.failed + 1)

    def doubt(self) -> None:
        """What runs is new: a crash from now on counts, as the first."""
        self.failed = 0
        self._write(1)

    def take_back(self) -> None:
        """This start does not count, neither for nor against."""
        if self.failed:
            self._write(self.failed)
        else:
            self.clear()

    def clear(self) -> None:
        """The agent is well, or ended in order."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def is_safe_mode(self) -> bool:
        """Whether this start must wait for a person."""
        return self.failed >= SAFE_AFTER

    def _write(self, number: int) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        with suppress(OSError):  # a folder that cannot be written: opening the store tells it better
            new.write_text(f"{number}\n")
            new.replace(self._path)


def _number_in(path: Path) -> int:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
