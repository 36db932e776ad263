"""Notices that the estate folder changed: at once by watchfiles, and by looking again now and then, since notices get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from watchfiles import awatch

from agent.estate.load import LATER_FOLDERS

FOLDERS: Final = ("sites", "flows", "samples", *LATER_FOLDERS)
_LOOK_AGAIN_MS: Final = 15_000
_QUIET_MS: Final = 400
"""An edit is read when the folder was quiet this long, so that a checkout of many files is read once."""


async def watch(root: Path, stopping: asyncio.Event) -> AsyncGenerator[None, None]:
    """One item at the start and whenever files below `root` (absolute) differ; ends when `stopping` is set."""

    before: frozenset[tuple[str, int, int]] = frozenset()  # what changed before we looked counts as a change
    async for _ in awatch(
        *await asyncio.to_thread(_folders, root),
        stop_event=stopping,
        debounce=_QUIET_MS,
        rust_timeout=_LOOK_AGAIN_MS,
        yield_on_timeout=True,
        recursive=False,  # data folders may lie below the estate
    ):
        now = await asyncio.to_thread(_state, root)
        if now != before:
            before = now
            yield


def _folders(root: Path) -> list[Path]:
    return [root, *(root / name for name in FOLDERS if (root / name).is_dir())]


def _state(root: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and time of each file of the estate."""
    files = list(root.glob("*.yaml"))
    files += [path for folder in FOLDERS for path in (root / folder).rglob("*")]
    found = set()
    for path in files:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.add((str(path), status.st_size, status.st_mtime_ns))
    return frozenset(found)
