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

from agent.control.access import Gate, Refusal
from agent.control.desk import Desk, Slice
from agent.control.schema import (
    AgentDetail,
    AgentRow,
    AuditRow,
    AuditVerdict,
    BackupMade,
    BackupRow,
    Condition,
    Counts,
    DeadLetterDetail,
    DeadLetterRow,
    DrainState,
    DrainView,
    EventDetail,
    EventRow,
    FlowRow,
    Health,
    InDoubtDetail,
    InDoubtRow,
    Invitation,
    IssuedToken,
    LaneRow,
    Page,
    RawBytes,
    Reloaded,
    Status,
    TokenRow,
    TraceStep,
    TraceView,
)
from agent.control.server import ControlServer
from agent.errand import Elsewhere
from state import tokens
from state.model.clock import from_millis
from state.model.errors import NotFoundError
from state.model.estate import Estate, EstateSettings
from state.model.people import TokenWish
from state.testing import FrozenClock
from state.tokens import Token

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
    agent_rows: list[AgentRow] = field(default_factory=list)
    agent_changes: list[tuple[str, str, str, str]] = field(default_factory=list)  # what, to whom, who and why
    drain_view: DrainView = field(default_factory=lambda: DrainView(state="open"))
    resumed_by: list[tuple[str, str]] = field(default_factory=list)  # who and why
    backed_up_by: list[tuple[str, str]] = field(default_factory=list)  # who and into which folder
    acknowledged_by: list[tuple[str, str, str]] = field(default_factory=list)  # whose audit, who and why
    token_rows: list[TokenRow] = field(default_factory=list)
    revoked_by: list[tuple[str, str, str]] = field(default_factory=list)  # which, who and why

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

    async def audit(
        self,
        part: Slice,
        *,
        actor: str | None = None,
        target: str | None = None,
        of: str | None = None,
        lost: bool = False,
    ) -> Page[AuditRow]:
        """Those of `actor` and `target`; copies are what has a `copy_id`."""
        kept = [row for row in self.entries if (row.copy_id is not None) == (lost or of is not None)]
        rows = [row for row in kept if actor in {None, row.actor} and target in {None, row.target}]
        return Page[AuditRow](**self._about(), **_cut(rows, part))

    async def acknowledge_audit(self, site: str, *, caller: str, reason: str) -> None:
        """Notes who asked, and why."""
        self._about()
        self.acknowledged_by.append((site, caller, reason))

    async def audit_verdict(self, *, of: str | None = None) -> AuditVerdict:
        """Whole, unless `first_bad` is set."""
        return AuditVerdict(
            **self._about(),
            audit_of=of or "",
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

    async def resume(self, *, caller: str, reason: str, dry_run: bool = False) -> None:
        """Notes who asked, and why."""
        self._about()
        if not dry_run:
            self.resumed_by.append((caller, reason))

    async def drain(self) -> DrainState:
        """What it was told."""
        return DrainState(**self._about(), drain=self.drain_view)

    async def begin_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Drains, unless it is a dry run; notes who asked, and why."""
        return await self._drain("draining", caller, reason, dry_run)

    async def end_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Is open again, unless it is a dry run; notes who asked, and why."""
        return await self._drain("open", caller, reason, dry_run)

    async def _drain(self, state: str, caller: str, reason: str, dry_run: bool) -> DrainState:
        about = self._about()
        if not dry_run:
            self.drain_view = self.drain_view.model_copy(update={"state": state, "reason": reason})
            self.agent_changes.append((state, "dc-north", caller, reason))
        return DrainState(**about, drain=self.drain_view)

    async def back_up(self, *, caller: str, folder: str) -> BackupMade:
        """Makes none: notes who asked, and says what it would be."""
        self.backed_up_by.append((caller, folder))
        name = "dc-north-20260302T090012Z"
        return BackupMade(**self._about(), backup=BackupRow(name=name, path=f"{folder}/{name}", taken_at=NOW, size=1))

    async def agents(self) -> Page[AgentRow]:
        """What its rows say."""
        return Page[AgentRow](**self._about(), items=self.agent_rows)

    async def agent(self, site: str) -> AgentDetail:
        """The row of that site."""
        about, found = self._about(), {row.agent: row for row in self.agent_rows}
        if site not in found:
            raise NotFoundError(f"there is no agent of {site}", code="unknown-site")
        return AgentDetail(**about, agent=found[site])

    async def invite_agent(self, site: str, *, caller: str) -> Invitation:
        """Notes who asked."""
        about = self._about()
        self.agent_changes.append(("invite", site, caller, ""))
        return Invitation(**about, invited=site, token=f"distctl-invitation-of-{site}", expires_at=NOW)

    async def adopt_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Notes who asked, and why."""
        return await self._note_change("adopt", site, caller, reason)

    async def waive_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Noted, and nothing more."""
        return await self._note_change("waive", site, caller, reason)

    async def deny_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Notes who asked, and why."""
        return await self._note_change("deny", site, caller, reason)

    async def allow_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Notes who asked, and why."""
        return await self._note_change("allow", site, caller, reason)

    async def _note_change(self, change: str, site: str, caller: str, reason: str) -> AgentDetail:
        detail = await self.agent(site)
        self.agent_changes.append((change, site, caller, reason))
        return detail

    async def tokens(self, part: Slice, *, revoked: bool = False) -> Page[TokenRow]:
        """All of them."""
        rows = [row for row in self.token_rows if revoked or row.state != "revoked"]
        return Page[TokenRow](**self._about(), **_cut(rows, part))

    async def create_token(self, wish: TokenWish, *, caller: str) -> IssuedToken:
        """As it was wished for."""
        row = TokenRow(
            id=len(self.token_rows) + 1,
            name=wish.name,
            person=wish.person,
            roles=sorted(wish.roles),
            sites=None if wish.sites is None else sorted(wish.sites),
            state="valid",
            created_at=NOW,
            created_by=caller,
            expires_at=NOW + wish.lasts,
        )
        self.token_rows.append(row)
        return IssuedToken(**self._about(), **row.model_dump(), token=tokens.write_token(bytes(32)))

    async def revoke_token(self, name: str, *, caller: str, reason: str) -> None:
        """Notes who asked, and why."""
        self._about()
        _one(self.token_rows, lambda row: row.name == name, f"token {name}")
        self.revoked_by.append((name, caller, reason))

    def _about(self) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        return {"as_of": NOW, "site": "dc-north", "environment": "test"}


@dataclass(slots=True, kw_only=True)
class WrittenRegister:
    """What a gate looks up and writes down, in memory: tokens by their text."""

    tokens: dict[str, Token] = field(default_factory=dict)
    used: list[tuple[str, datetime]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    refused_at: list[datetime] = field(default_factory=list)
    failure: Exception | None = None

    async def find_token(self, text: str) -> Token | None:
        if self.failure:
            raise self.failure
        return self.tokens.get(text)

    async def note_use(self, token: Token, *, now: int) -> None:
        if self.failure:
            raise self.failure
        self.used.append((token.name, from_millis(now)))

    async def note_refusal(self, refusal: Refusal, *, now: int) -> None:
        if self.failure:
            raise self.failure
        self.refusals.append(refusal)
        self.refused_at.append(from_millis(now))


NOBODYS_ESTATE = Estate(
    settings=EstateSettings.model_validate({"name": "acme", "environment": "test", "currency": "EUR"}),
    sites={},
    flows={},
)
"""Without people: whoever may open the socket may do everything but approve."""


def open_gate(estate: Estate = NOBODYS_ESTATE, *, register: WrittenRegister | None = None) -> Gate:
    """The gate of an agent of dc-north, in front of a desk with written answers."""
    return Gate(register or WrittenRegister(), site="dc-north", estate=lambda: estate, clock=FrozenClock(NOW))


@contextmanager
def served(desk: Desk, path: Path, gate: Gate | None = None, elsewhere: Elsewhere | None = None) -> Iterator[Path]:
    """Serve `desk` on a socket at `path` from a thread of its own for as long as the block runs; default an open gate."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    server = ControlServer(desk, path, gate or open_gate(), elsewhere)
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
