"""What was acknowledged to somebody by a moment of a recorded run: all of that has to be on the disks from then on.

A source is acknowledged by its file going to the archive; a site and its hub acknowledge each other by what they say in an
exchange; the ERP's ledger is outside of any cut, and so is what was told to the person who enrolled a site or made a backup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.powercut.recording import Kind, Record

Row: TypeAlias = tuple[str, int]
"""A recommendation: its reference and its revision."""

Said: TypeAlias = dict[tuple[str, str, int], tuple[int, str]]
"""By (who says it, to whom, tier): the highest sequence and the chain there."""


@dataclass(slots=True)
class Facts:
    """What holds by a moment."""

    published: dict[str, list[Row]] = field(default_factory=dict)  # by the name of the planner's file
    archived: set[Row] = field(default_factory=set)
    received: Said = field(default_factory=dict)
    sent: Said = field(default_factory=dict)
    nonces: dict[tuple[str, str], int] = field(default_factory=dict)
    landed: dict[str, dict[str, Any]] = field(default_factory=dict)  # by idempotency key, in the ledger's order
    enrolled: set[str] = field(default_factory=set)
    backups: int = 0

    def learn(self, record: Record) -> None:
        """One more record happened."""
        match record.kind:
            case Kind.BROUGHT if record.name.endswith(".csv"):
                self.published[Path(record.name).name] = list(_rows(bytes(record.data)))
            case Kind.RENAME_BEGINS if Path(record.other).parent.name == "archive":
                self.archived.update(self.published.get(Path(record.name).name, ()))
            case Kind.SAID:
                self._hear(record.name, record.said())
            case _:
                pass

    @property
    def acknowledged(self) -> int:
        """How many events a source was told are safe, or lie at a target."""
        return len(self.archived) + len(self.landed)

    def _hear(self, name: str, told: dict[str, Any]) -> None:
        match name:
            case "landed":
                self.landed[told["key"]] = told["body"]
            case "enrolled":
                self.enrolled.add(told["site"])
            case "backed up":
                self.backups += 1
            case _:
                _raise(self.received, told, "received")
                _raise(self.sent, told, "sent")
                link = (told["by"], told["to"])
                self.nonces[link] = max(told["nonce"], self.nonces.get(link, 0))


def is_acknowledgement(record: Record) -> bool:
    """Whether somebody relies on something from this record on."""
    return record.kind is Kind.SAID or (
        record.kind is Kind.RENAME_BEGINS and Path(record.other).parent.name == "archive"
    )


def facts_at(records: Sequence[Record], moment: int) -> Facts:
    """What holds once the first `moment` records have happened."""
    facts = Facts()
    for record in records[:moment]:
        facts.learn(record)
    return facts


def _raise(said: Said, told: dict[str, Any], what: str) -> None:
    for tier, (seq, chain) in told[what].items():
        key = (told["by"], told["to"], int(tier))
        if seq > said.get(key, (0, ""))[0]:
            said[key] = (seq, chain)


def _rows(content: bytes) -> Iterator[Row]:
    for line in content.decode().splitlines()[1:]:
        reference, revision, *_ = line.split(",")
        yield reference, int(revision)
