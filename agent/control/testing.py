"""For tests of whatever calls the control API: a desk with answers written down, served over a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from agent.control.desk import Desk, Slice
from agent.control.schema import (
    AuditRow,
    AuditVerdict,
    Condition,
    Counts,
    DeadLetterDetail,
    DeadLetterRow,
    EventDetail,
    EventRow,
    FlowRow,
    Health,
    InDoubtDetail,
    InDoubtRow,
    LaneRow,
    Page,
    RawBytes,
    Reloaded,
    Status,
    TraceStep,
    TraceView,
)
from agent.control.server import ControlServer
from state.model.errors import NotFoundError

NOW = datetime(2026, 3, 2, 9, 0, 12, tzinfo=UTC)

Row = TypeVar("Row", bound=BaseModel)


@dataclass(slots=True, kw_only=True)
class WrittenDesk:
    """Answers what its fields say; `failure` is raised instead, by every method."""

    flow_rows: list[FlowRow] = field(default_factory=list)
    lane_rows: list[LaneRow] = field(default_factory=list)
    event_rows: list[EventRow] = field(default_factory=list)
    letters: list[DeadLetterRow] = field(default_factory=list)
    doubts: list[InDoubtRow] = field(default_factory=list)
    entries: list[AuditRow] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    first_bad: int | None = None
    failure: Exception | None = None
    reloaded_by: list[str] = field(default_factory=list)
    resumed_by: list[tuple[str, str]] = field(default_factory=list)  # who and why

    async def status(self) -> Status:
        """All lanes and their sums."""
        return Status(
            **self._about(),
            version="0.1.0",
            started_at=NOW,
            estate="acme",
            estate_hash="0123456789abcdef" * 2,
            events=len(self.event_rows),
            open_dead_letters=len(self.letters),
            totals=Counts(
                pending=sum(lane.pending for lane in self.lane_rows), parked=sum(lane.parked for lane in self.lane_rows)
            ),
            conditions=self.conditions,
            lanes=self.lane_rows,
        )

    async def flows(self) -> Page[FlowRow]:
        """All of them."""
        return Page[FlowRow](**self._about(), items=self.flow_rows)

    async def lanes(self) -> Page[LaneRow]:
        """All of them."""
        return Page[LaneRow](**self._about(), items=self.lane_rows)

    async def events(self, part: Slice, *, flow: str | None = None, key: str | None = None) -> Page[EventRow]:
        """Those of `flow` and `key`."""
        rows = [row for row in self.event_rows if flow in {None, row.flow} and key in {None, row.subject}]
        return Page[EventRow](**self._about(), **_cut(rows, part))

    async def event(self, event: str) -> EventDetail:
        """By id or sequence number."""
        row = _one(self.event_rows, lambda row: event in {row.id, str(row.seq)}, f"event {event}")
        extra = {"partition_key": row.subject, "estate_hash": "0" * 32, "data": {"sku": row.subject}, "history": []}
        return EventDetail(**self._about(), **row.model_dump(), **extra)

    async def trace(self, key: str) -> TraceView:
        """Every event of that subject."""
        steps = [TraceStep(**row.model_dump(), is_subject=True) for row in self.event_rows if row.subject == key]
        if not steps:
            raise NotFoundError(f"nothing is known of {key}", hint="keys are compared letter by letter")
        return TraceView(**self._about(), key=key, steps=steps)

    async def dead_letters(
        self, part: Slice, *, flow: str | None = None, code: str | None = None, closed: bool = False
    ) -> Page[DeadLetterRow]:
        """Those of `flow` and `code`."""
        rows = [
            row
            for row in self.letters
            if flow in {None, row.flow} and code in {None, row.code} and (closed or row.state == "open")
        ]
        return Page[DeadLetterRow](**self._about(), **_cut(rows, part))

    async def dead_letter(self, number: int) -> DeadLetterDetail:
        """By id."""
        row = _one(self.letters, lambda row: row.id == number, f"dead letter {number}")
        return DeadLetterDetail(**self._about(), **row.model_dump(), raw=RawBytes(size=4, text=row.shown))

    async def in_doubt(self, part: Slice, *, flow: str | None = None) -> Page[InDoubtRow]:
        """Those of `flow`."""
        return Page[InDoubtRow](**self._about(), **_cut([row for row in self.doubts if flow in {None, row.flow}], part))

    async def in_doubt_delivery(self, delivery: int) -> InDoubtDetail:
        """By delivery."""
        row = _one(self.doubts, lambda row: row.delivery == delivery, f"delivery {delivery} in doubt")
        evidence = {"payload": RawBytes(size=2, text="{}"), "waiting_behind": 1, "tries": []}
        return InDoubtDetail(**self._about(), **row.model_dump(), **evidence)

    async def audit(self, part: Slice, *, actor: str | None = None, target: str | None = None) -> Page[AuditRow]:
        """Those of `actor` and `target`."""
        rows = [row for row in self.entries if actor in {None, row.actor} and target in {None, row.target}]
        return Page[AuditRow](**self._about(), **_cut(rows, part))

    async def audit_verdict(self) -> AuditVerdict:
        """Whole, unless `first_bad` is set."""
        return AuditVerdict(
            **self._about(),
            ok=self.first_bad is None,
            entries=len(self.entries),
            head="ab" * 32,
            first_bad=self.first_bad,
            reason="" if self.first_bad is None else "its hash does not cover what it says",
        )

    async def health(self) -> Health:
        """Healthy without conditions."""
        troubles = [condition.text for condition in self.conditions if condition.name == "trouble"]
        return Health(**self._about(), ok=not troubles, troubles=troubles)

    async def metrics(self) -> bytes:
        """One gauge."""
        return b"distctl_up 1.0\n"

    async def reload(self, *, caller: str) -> Reloaded:
        """Notes who asked."""
        self.reloaded_by.append(caller)
        return Reloaded(**self._about(), estate_hash="0" * 32, changed=False)

    async def resume(self, *, caller: str, reason: str) -> None:
        """Notes who asked, and why."""
        self._about()
        self.resumed_by.append((caller, reason))

    def _about(self) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        return {"as_of": NOW, "site": "dc-north", "environment": "test"}


@contextmanager
def served(desk: Desk, path: Path) -> Iterator[Path]:
    """Serve `desk` on a socket at `path` from a thread of its own for as long as the block runs."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    server = ControlServer(desk, path)
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(stop)), name="control")
    thread.start()
    try:
        yield path
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _cut(rows: Sequence[Row], part: Slice) -> dict[str, Any]:
    begin = int(part.cursor or 0)
    end = begin + part.limit
    return {"items": list(rows[begin:end]), "next": str(end) if end < len(rows) else None}


def _one(rows: Sequence[Row], matches: Callable[[Row], bool], name: str) -> Row:
    for row in rows:
        if matches(row):
            return row
    raise NotFoundError(f"there is no {name}", hint="see the list")
