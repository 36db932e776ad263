"""A folder that a files source watches, with the agent's side of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from connectors.files.settings import SourceSettings, StableSize
from connectors.files.source import FilesSource
from connectors.formats.settings import CsvSettings
from connectors.testing import HeldMemory, surroundings

ROWS = b"sku,qty\nA,1\nB,2\nC,3\n"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.is_dir())


class Inbox:
    """A watched folder, its source and the agent's memory."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.folder = home / "in"
        self.folder.mkdir()
        self.memory = HeldMemory()
        guard = StableSize(rest=timedelta(0), empty_rest=timedelta(0))
        known = {"folder": "in", "format": CsvSettings(), "guard": guard} | settings
        self.source = FilesSource(SourceSettings.model_validate(known), surroundings(home, memory=self.memory))
        self.records = 0

    def put(self, name: str, content: bytes = ROWS) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    async def run(self) -> int:
        """How many records were new."""
        before = self.records
        async for batch in self.source.read():
            self.records += len(batch.records)
            self.memory.commit(batch)
            await self.source.settle(batch)
        return self.records - before

    def names(self, folder: str = ".") -> list[str]:
        return names_in(self.folder / folder)


MakeInbox = Callable[..., Inbox]
