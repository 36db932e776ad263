"""A counterpart's inbox: files that others write for it, taken once each and kept where they can be found again.

The inbox is read oldest first; files of one tick of the file system's clock have no order of their own and are taken by the
number inside them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

from connectors.simulators.folder import waiting
from connectors.simulators.ledger import Ledger, now

INBOX_POLL: Final = 0.1  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One document from the inbox. `number` orders what is said about `reference`."""

    kind: str
    reference: str
    number: int
    content: str


Read: TypeAlias = Callable[[Mapping[str, Any]], Taken]


class InboxLedger(Ledger):
    """What a counterpart took from its inbox."""

    schema = """
        CREATE TABLE IF NOT EXISTS taken (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, reference TEXT, number INTEGER, content TEXT,
            file TEXT, at REAL
        ) STRICT;
    """

    def take(self, file: str, documents: Sequence[Taken]) -> None:
        """What one file of the inbox held."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO taken (kind, reference, number, content, file, at) VALUES (?, ?, ?, ?, ?, ?)",
                [(each.kind, each.reference, each.number, each.content, file, now()) for each in documents],
            )


class Inbox:
    """Takes what others write into `folders` and keeps it in their `taken/`. `folders` says how what lies in each is read."""

    def __init__(self, folders: Mapping[Path, Read], ledger: InboxLedger) -> None:
        self._folders = folders
        self._ledger = ledger
        for folder in folders:
            (folder / "taken").mkdir(parents=True, exist_ok=True)

    async def watch(self) -> None:
        """For ever: take what is there, wait a moment."""
        while True:
            for folder in self._folders:
                self.take(folder)
            await asyncio.sleep(INBOX_POLL)

    def take(self, folder: Path) -> None:
        """Every finished file of the folder, oldest first."""
        read = self._folders[folder]
        found = [
            (path.stat().st_mtime_ns, [read(each) for each in documents_in(path)], path) for path in waiting(folder)
        ]
        for _, documents, path in sorted(found, key=lambda each: (each[0], each[1][0].number)):
            self._ledger.take(path.name, documents)
            path.replace(folder / "taken" / path.name)


def documents_in(path: Path) -> list[Mapping[str, Any]]:
    """What a file of an inbox says: one JSON object, a list of them, or one a line."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError:
        found = [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line]
    return found if isinstance(found, list) else [found]
