"""What the control API offers, as a port: one method a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from agent.control.schema import (
    AgentDetail,
    AgentRow,
    AuditRow,
    AuditVerdict,
    BackupMade,
    DeadLetterDetail,
    DeadLetterRow,
    DrainState,
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
    Reloaded,
    Status,
    TokenRow,
    TraceView,
)
from state.model.people import TokenWish

VERIFY_SECONDS: Final = 120.0
"""How long `audit_verdict` may take: it reads the whole chain."""

BACKUP_SECONDS: Final = 6 * 3600.0
"""How long `back_up` may take: it reads the whole store twice, and all raw documents that are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Which part of a list: at most `limit` rows after the row that `cursor` names; None is the beginning."""

    limit: int = 100
    cursor: str | None = None


class Desk(Protocol):
    """Answers for one agent. Lists come newest first. Raises the errors of `state.model.errors`.

    A list of a `flow` that never was raises `NotFoundError`: an empty list would say that all is well with it.
    """

    async def status(self) -> Status:
        """The agent in one answer."""
        ...

    async def flows(self) -> Page[FlowRow]:
        """Every flow in force, and those that still owe something."""
        ...

    async def lanes(self) -> Page[LaneRow]:
        """Every lane."""
        ...

    async def events(self, part: Slice, *, flow: str | None = None, key: str | None = None) -> Page[EventRow]:
        """Events, of one flow or about one business key."""
        ...

    async def event(self, event: str) -> EventDetail:
        """One event by its id."""
        ...

    async def trace(self, key: str) -> TraceView:
        """Everything known of a business key."""
        ...

    async def dead_letters(
        self, part: Slice, *, flow: str | None = None, code: str | None = None, closed: bool = False
    ) -> Page[DeadLetterRow]:
        """Dead letters that are open; with `closed` the others too."""
        ...

    async def dead_letter(self, number: int) -> DeadLetterDetail:
        """One dead letter with its raw bytes."""
        ...

    async def in_doubt(self, part: Slice, *, flow: str | None = None) -> Page[InDoubtRow]:
        """Deliveries in doubt."""
        ...

    async def in_doubt_delivery(self, delivery: int) -> InDoubtDetail:
        """One delivery in doubt with its evidence."""
        ...

    async def audit(
        self,
        part: Slice,
        *,
        actor: str | None = None,
        target: str | None = None,
        of: str | None = None,
        lost: bool = False,
    ) -> Page[AuditRow]:
        """Audit entries: this agent's, or the copies of those `of` another site; `lost` ones are in no store but here."""
        ...

    async def audit_verdict(self, *, of: str | None = None) -> AuditVerdict:
        """Whether the audit's chain, or the copies of that `of` another site, are whole, within `VERIFY_SECONDS`."""
        ...

    async def acknowledge_audit(self, site: str, *, caller: str, reason: str) -> None:
        """Somebody knows that the audit of `site` does not go on as it was known."""
        ...

    async def health(self) -> Health:
        """Whether the agent works."""
        ...

    async def metrics(self) -> bytes:
        """What Prometheus scrapes, in its text format."""
        ...

    async def reload(self, *, caller: str) -> Reloaded:
        """Read the estate folder again now."""
        ...

    async def resume(self, *, caller: str, reason: str, dry_run: bool = False) -> None:
        """End safe mode; a dry run says only whether it could be."""
        ...

    async def drain(self) -> DrainState:
        """Whether the agent drains, and what it owes."""
        ...

    async def begin_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Take in nothing more, until that is ended; a dry run says what is owed now."""
        ...

    async def end_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Take in again."""
        ...

    async def back_up(self, *, caller: str, folder: str) -> BackupMade:
        """Publish a verified backup in `folder`, within `BACKUP_SECONDS`."""
        ...

    async def agents(self) -> Page[AgentRow]:
        """The other agents: all of them at the hub, the hub at a site."""
        ...

    async def agent(self, site: str) -> AgentDetail:
        """One of them."""
        ...

    async def invite_agent(self, site: str, *, caller: str) -> Invitation:
        """A token that enrols the agent of that site, once and soon. Of a hub."""
        ...

    async def adopt_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Let the store that says hello next for a fenced site go on, in a new epoch. Of a hub."""
        ...

    async def waive_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Go on without what the agent of that site may have of this store's life before."""
        ...

    async def deny_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Keep the agents that the site has had until now out, at once. Of a hub."""
        ...

    async def allow_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """End a denial. Of a hub."""
        ...

    async def tokens(self, part: Slice, *, revoked: bool = False) -> Page[TokenRow]:
        """Tokens that were not revoked; with `revoked` the others too."""
        ...

    async def create_token(self, wish: TokenWish, *, caller: str) -> IssuedToken:
        """Make a token; the answer is the only one that has its text."""
        ...

    async def revoke_token(self, name: str, *, caller: str, reason: str) -> None:
        """End a token now."""
        ...
