"""How simulators put files into a folder and take them out: done well, slowly, or with a change of name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

_PIECES: Final = 10


def put_whole(path: Path, content: bytes) -> None:
    """Write it at once, as a program does that knows no better; readers may see half of it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def put_atomic(path: Path, content: bytes) -> None:
    """Write beside it under a hidden name, then rename: readers see nothing or all of it."""
    hidden = path.with_name(f".{path.name}.tmp")
    put_whole(hidden, content)
    hidden.replace(path)


async def put_slowly(path: Path, content: bytes, *, seconds: float) -> None:
    """Let it grow under its final name, cut in the middle of rows."""
    step = len(content) // _PIECES + 1
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])
            await asyncio.sleep(seconds / _PIECES)


async def put_then_rename(path: Path, content: bytes, *, first_name: str, after: float) -> None:
    """Put it under another visible name, and rename it `after` seconds later, perhaps while it is being read."""
    before = path.with_name(first_name)
    put_atomic(before, content)
    await asyncio.sleep(after)
    if before.exists():  # unless it was taken by then
        before.replace(path)


def waiting(folder: Path) -> list[Path]:
    """Finished files in the folder, oldest first; hidden and temporary ones are somebody's work in progress."""
    found = [path for path in folder.iterdir() if _is_finished(path)] if folder.is_dir() else []
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _is_finished(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix not in {".tmp", ".part"}
