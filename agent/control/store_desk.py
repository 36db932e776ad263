"""The desk on the agent's own store: each answer is one consistent read, made on a reader thread."""

from __future__ import annotations

import base64
import codecs
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel

from agent.audit_findings import findings, verdict
from agent.control.conditions import conditions_of
from agent.control.desk import VERIFY_SECONDS, Slice
from agent.control.gauges import expose
from agent.control.issuing import TokenOffice
from agent.control.schema import (
    AgentDetail,
    AgentRow,
    AuditFinding,
    AuditRow,
    AuditVerdict,
    BackupMade,
    BackupRow,
    Counts,
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
    RawBytes,
    Reloaded,
    Status,
    TokenRow,
    TraceView,
)
from agent.drain import Drain
from agent.fleet import Fleet
from state import audit, audit_breaks, audit_copies, draining, retention, views
from state.database import Database
from state.draining import Draining
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, DistctlError, NotFoundError
from state.model.estate import Estate, FlowSpec
from state.model.people import TokenWish
from state.model.suggestion import suggestion
from state.model.visible import shown, visible
from state.retention import Kept
from state.tokens import Token
from state.unapplied import Strange, list_strange

T = TypeVar("T", bound=BaseModel)

_TRACED_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the desk asks the runtime, which alone knows it."""

    site: str
    started_at: datetime
    clock: Clock
    estate: Callable[[], Estate]  # in force now
    troubles: Callable[[], Sequence[str]]  # what does not work at the moment, one sentence each
    origin: Callable[[], str]  # where that comes from, unless from the folder
    metrics: Callable[[], bytes]  # this process's own figures
    reload: Callable[[str], Awaitable[bool]]  # in the name of; answers whether the estate changed
    resume: Callable[[str, str, bool], Awaitable[None]]  # in the name of, with its reason; whether it is a dry run
    back_up: Callable[[str, str], Awaitable[BackupRow]]  # in the name of, into a folder
    drain: Drain
    fleet: Fleet


class StoreDesk:
    """A `Desk` that reads the store of one running agent."""

    def __init__(
        self, database: Database, running: Running, *, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        """`entropy(n)` answers the `n` random bytes of a new token."""
        self._database = database
        self._running = running
        self._tokens = TokenOffice(database, running.clock, entropy)

    async def status(self) -> Status:
        """The agent in one answer."""
        about = self._about()
        found = await self._database.read(partial(_overview, now=to_millis(about["as_of"])))
        rows = [LaneRow.model_validate(lane) for lane in found.lanes]
        estate = self._running.estate()
        return Status(
            **about,
            version=version("distctl"),
            started_at=self._running.started_at,
            estate=estate.settings.name,
            estate_from=self._running.origin(),
            estate_hash=estate.hash,
            events=found.events,
            let_go=found.kept.let_go,
            oldest_event_at=found.kept.oldest_at,
            open_dead_letters=found.open_dead_letters,
            totals=total(lane for lane in rows if not lane.shadow_of),
            conditions=conditions_of(
                rows,
                open_dead_letters=found.open_dead_letters,
                troubles=self._running.troubles(),
                audits=found.audits,
                drain=self._running.drain.view(found.draining),
                strange=found.strange,
                agents=await self._running.fleet.agents() if self._is_hub(estate) else (),
            ),
            lanes=rows,
            audits=found.audits,
        )

    def _is_hub(self, estate: Estate) -> bool:
        hub = estate.settings.hub
        return hub is not None and hub.site == self._running.site

    async def flows(self) -> Page[FlowRow]:
        """Every flow in force, and those that still owe something."""
        about = self._about()
        lanes, sources = await self._database.read(partial(_flows, now=to_millis(about["as_of"])))
        rows = [LaneRow.model_validate(lane) for lane in lanes]
        estate = self._running.estate()
        gone = sorted({lane.flow for lane in rows if lane.flow not in estate.flows and total([lane]).owed})
        named = [
            *(_flow_row(spec, estate, rows, sources) for spec in estate.flows.values()),
            *(_gone_row(flow, rows) for flow in gone),
        ]
        return Page[FlowRow](**about, items=named)

    async def lanes(self) -> Page[LaneRow]:
        """Every lane."""
        about = self._about()
        rows = await self._database.read(partial(views.lanes, now=to_millis(about["as_of"])))
        return Page[LaneRow](**about, items=[LaneRow.model_validate(row) for row in rows])

    async def events(self, part: Slice, *, flow: str | None = None, key: str | None = None) -> Page[EventRow]:
        """Events, of one flow or about one business key."""
        query = partial(views.events, before=_before(part), limit=part.limit + 1, flow=flow, key=key)
        rows = await self._read_of_flow(query, flow)
        return Page[EventRow](**self._page(EventRow, rows, part, "seq"))

    async def event(self, event: str) -> EventDetail:
        """One event by its id or its local number."""
        row = await self._database.read(partial(_event, event))
        if row is None:
            hint = "ids have 32 hexadecimal digits, numbers are those of `distctl events`"
            raise NotFoundError(f"there is no event {event}", hint=hint, code="no-event")
        return EventDetail.model_validate({**self._about(), **row, "data": orjson.loads(row["data"])})

    async def trace(self, key: str) -> TraceView:
        """Everything known of a business key."""
        steps = await self._database.read(partial(views.trace, key=key, limit=_TRACED_AT_MOST))
        if not steps:
            hint = "keys are compared letter by letter; what was set aside before it was an event: `distctl dlq list`"
            raise NotFoundError(f"nothing is known of {key}", hint=hint, code="no-key")
        return TraceView.model_validate({**self._about(), "key": key, "steps": steps})

    async def dead_letters(
        self, part: Slice, *, flow: str | None = None, code: str | None = None, closed: bool = False
    ) -> Page[DeadLetterRow]:
        """Dead letters that are open; with `closed` the others too."""
        before, limit = _before(part), part.limit + 1
        query = partial(views.dead_letters, before=before, limit=limit, flow=flow, code=code, closed=closed)
        rows = await self._read_of_flow(query, flow)
        return Page[DeadLetterRow](**self._page(DeadLetterRow, rows, part, "id"))

    async def dead_letter(self, number: int) -> DeadLetterDetail:
        """One dead letter with its raw bytes."""
        row = await self._database.read(partial(views.dead_letter, number=number))
        if row is None:
            hint = "`distctl dlq list --all` has every one"
            raise NotFoundError(f"there is no dead letter {number}", hint=hint, code="no-dead-letter")
        return DeadLetterDetail.model_validate({**self._about(), **_shown_as("raw", row)})

    async def in_doubt(self, part: Slice, *, flow: str | None = None) -> Page[InDoubtRow]:
        """Deliveries in doubt."""
        query = partial(views.in_doubt, before=_before(part), limit=part.limit + 1, flow=flow)
        rows = await self._read_of_flow(query, flow)
        return Page[InDoubtRow](**self._page(InDoubtRow, rows, part, "delivery"))

    async def in_doubt_delivery(self, delivery: int) -> InDoubtDetail:
        """One delivery in doubt with its evidence."""
        row = await self._database.read(partial(views.in_doubt_delivery, delivery=delivery))
        if row is None:
            hint = "it may be settled by now; `distctl indoubt list` has those that are not"
            raise NotFoundError(f"delivery {delivery} is not in doubt", hint=hint, code="not-in-doubt")
        return InDoubtDetail.model_validate({**self._about(), **_shown_as("payload", row)})

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
        before, limit = _before(part), part.limit + 1
        if of in {None, self._running.site} and not lost:
            query = partial(audit.entries, actor=actor, target=target, before_seq=before, limit=limit)
            rows = [_audit_row(entry) for entry in await self._database.read(query)]
            return Page[AuditRow](**self._page(AuditRow, rows, part, "seq"))
        site = of or self._running.site
        if site != self._running.site:
            await self._database.read(partial(_require_copies, site=site))
        copies = partial(
            audit_copies.entries, site=site, lost=lost, actor=actor, target=target, before=before, limit=limit
        )
        rows = [{**_audit_row(one.entry), "copy_id": one.id} for one in await self._database.read(copies)]
        return Page[AuditRow](**self._page(AuditRow, rows, part, "copy_id"))

    async def audit_verdict(self, *, of: str | None = None) -> AuditVerdict:
        """Whether the audit's chain, or the copies of that `of` another site, are whole."""
        site = of if of != self._running.site else None
        query = _verdict if site is None else partial(_verdict_of_copies, site=site)
        head, broken, fits = await self._database.read(query, deadline=VERIFY_SECONDS)
        return AuditVerdict(
            **self._about(),
            ok=broken is None,
            entries=head.seq,
            head=head.hash,
            first_bad=broken.seq if broken else None,
            reason=broken.finding if broken else "",
            audit_of=site or "",
            fits=fits,
        )

    async def acknowledge_audit(self, site: str, *, caller: str, reason: str) -> None:
        """Somebody knows that the audit of `site` does not go on as it was known. Raises `NotFoundError` where it does."""
        now = to_millis(self._running.clock.now())
        unit = partial(_acknowledge, site=site, by=caller, reason=visible(reason), now=now)
        await self._database.write(unit, name="control.acknowledge_audit")

    async def health(self) -> Health:
        """Whether the agent works."""
        troubles = list(self._running.troubles())
        try:
            await self._database.read(views.count_events)
        except DistctlError as error:
            troubles.append(error.message)
        return Health(**self._about(), ok=not troubles, troubles=troubles)

    async def metrics(self) -> bytes:
        """This process's own figures and the store's."""
        return self._running.metrics() + expose(await self.status())

    async def reload(self, *, caller: str) -> Reloaded:
        """Read the estate folder again now."""
        changed = await self._running.reload(caller)
        return Reloaded(**self._about(), estate_hash=self._running.estate().hash, changed=changed)

    async def resume(self, *, caller: str, reason: str, dry_run: bool = False) -> None:
        """End safe mode; a dry run says only whether it could be."""
        await self._running.resume(caller, visible(reason), dry_run)

    async def drain(self) -> DrainState:
        """Whether the agent drains, and what it owes."""
        return DrainState(**self._about(), drain=await self._running.drain.look())

    async def begin_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Take in nothing more, until that is ended; a dry run says what is owed now."""
        view = await self._running.drain.begin(by=caller, reason=visible(reason), dry_run=dry_run)
        return DrainState(**self._about(), drain=view)

    async def end_drain(self, *, caller: str, reason: str, dry_run: bool = False) -> DrainState:
        """Take in again."""
        view = await self._running.drain.end(by=caller, reason=visible(reason), dry_run=dry_run)
        return DrainState(**self._about(), drain=view)

    async def back_up(self, *, caller: str, folder: str) -> BackupMade:
        """Publish a verified backup in `folder`."""
        row = await self._running.back_up(caller, folder)
        return BackupMade(**self._about(), backup=row)

    async def agents(self) -> Page[AgentRow]:
        """The other agents: all of them at the hub, the hub at a site."""
        return Page[AgentRow](**self._about(), items=await self._running.fleet.agents())

    async def agent(self, site: str) -> AgentDetail:
        """One of them."""
        return AgentDetail(**self._about(), agent=await self._running.fleet.agent(site))

    async def invite_agent(self, site: str, *, caller: str) -> Invitation:
        """A token that enrols the agent of that site, once and soon."""
        invited = await self._running.fleet.invite(site, by=caller)
        return Invitation(**self._about(), invited=invited.site, token=invited.token, expires_at=invited.expires_at)

    async def adopt_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Let the store that says hello next for a fenced site go on, in a new epoch."""
        row = await self._running.fleet.adopt(site, by=caller, reason=visible(reason))
        return AgentDetail(**self._about(), agent=row)

    async def waive_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Go on without what the agent of that site may have of this store's life before."""
        row = await self._running.fleet.waive(site, by=caller, reason=visible(reason))
        return AgentDetail(**self._about(), agent=row)

    async def deny_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """Keep the agents that the site has had until now out, at once."""
        row = await self._running.fleet.deny(site, by=caller, reason=visible(reason))
        return AgentDetail(**self._about(), agent=row)

    async def allow_agent(self, site: str, *, caller: str, reason: str) -> AgentDetail:
        """End a denial."""
        row = await self._running.fleet.allow(site, by=caller, reason=visible(reason))
        return AgentDetail(**self._about(), agent=row)

    async def tokens(self, part: Slice, *, revoked: bool = False) -> Page[TokenRow]:
        """Tokens that were not revoked; with `revoked` the others too."""
        found = await self._tokens.list(before=_before(part), limit=part.limit + 1, with_revoked=revoked)
        return Page[TokenRow](**self._page(TokenRow, [self._token_row(token) for token in found], part, "id"))

    async def create_token(self, wish: TokenWish, *, caller: str) -> IssuedToken:
        """Make a token; the answer is the only one that has its text."""
        text, token = await self._tokens.create(wish, self._running.estate(), by=caller)
        return IssuedToken.model_validate({**self._about(), **self._token_row(token), "token": text})

    async def revoke_token(self, name: str, *, caller: str, reason: str) -> None:
        """End a token now."""
        await self._tokens.revoke(name, by=caller, reason=visible(reason))

    def _token_row(self, token: Token) -> views.Row:
        estate, now = self._running.estate(), to_millis(self._running.clock.now())
        is_orphaned = token.revoked_at is None and token.person not in estate.settings.people
        return {
            "id": token.id,
            "name": token.name,
            "person": token.person,
            "roles": sorted(token.roles),
            "sites": None if token.sites is None else sorted(token.sites),
            "state": "orphaned" if is_orphaned else token.state(now),
            "created_at": token.created_at,
            "created_by": token.created_by,
            "expires_at": token.expires_at,
            "last_used_at": token.last_used_at,
            "revoked_at": token.revoked_at,
            "revoked_by": token.revoked_by or "",
            "reason": token.revoke_reason or "",
        }

    async def _read_of_flow(
        self, query: Callable[[sqlite3.Connection], list[views.Row]], flow: str | None
    ) -> list[views.Row]:
        """The rows; where there are none, raises `NotFoundError` if the flow never was."""
        rows = await self._database.read(query)
        if flow is None or rows or flow in self._running.estate().flows:
            return rows
        known = {*self._running.estate().flows, *await self._database.read(views.flows_ever)}
        if flow not in known:
            raise NotFoundError(f"there is no flow {flow}", hint=suggestion(flow, known), code="no-flow")
        return rows

    def _about(self) -> dict[str, Any]:
        return {
            "as_of": self._running.clock.now(),
            "site": self._running.site,
            "environment": self._running.estate().settings.environment.value,
        }

    def _page(self, model: type[T], rows: Sequence[views.Row], part: Slice, number: str) -> dict[str, Any]:
        """`rows` may hold one more than was asked for, which shows that there is a next page."""
        shown = rows[: part.limit]
        after = str(shown[-1][number]) if len(rows) > part.limit else None
        return {**self._about(), "items": [model.model_validate(row) for row in shown], "next": after}


def total(lanes: Iterable[Counts]) -> Counts:
    """The counters of several lanes together."""
    sums = dict.fromkeys(Counts.model_fields, 0)
    for lane in lanes:
        for name in sums:
            sums[name] += getattr(lane, name)
    return Counts(**sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overview:
    """What the status says of the store."""

    lanes: list[views.Row]
    events: int
    kept: Kept
    open_dead_letters: int
    audits: list[AuditFinding]
    draining: Draining
    strange: list[Strange]


def _overview(connection: sqlite3.Connection, *, now: int) -> _Overview:
    return _Overview(
        lanes=views.lanes(connection, now=now),
        events=views.count_events(connection),
        kept=retention.kept(connection),
        open_dead_letters=views.count_open_dead_letters(connection),
        audits=findings(connection),
        draining=draining.look(connection),
        strange=list_strange(connection),
    )


def _flows(connection: sqlite3.Connection, *, now: int) -> tuple[list[views.Row], dict[str, views.Row]]:
    return views.lanes(connection, now=now), views.sources(connection)


def _event(event: str, connection: sqlite3.Connection) -> views.Row | None:
    seq = _seq(connection, event)
    return None if seq is None else views.event(connection, seq)


def _seq(connection: sqlite3.Connection, event: str) -> int | None:
    if len(event) == 32:
        try:
            return views.seq_of_event(connection, bytes.fromhex(event))
        except ValueError:
            return None
    return int(event) if event.isascii() and event.isdecimal() and len(event) < 19 else None


def _verdict(connection: sqlite3.Connection) -> tuple[audit.AuditHead, audit.AuditBreak | None, list[str]]:
    return audit.head(connection), *verdict(connection)


def _verdict_of_copies(
    connection: sqlite3.Connection, *, site: str
) -> tuple[audit.AuditHead, audit.AuditBreak | None, list[str]]:
    _require_copies(connection, site=site)
    return audit_copies.end(connection, site), audit_copies.verify(connection, site), []


def _require_copies(connection: sqlite3.Connection, *, site: str) -> None:
    """Raises `NotFoundError` where nothing is kept of that site's audit."""
    if not audit_copies.is_kept(connection, site):
        raise NotFoundError(
            f"nothing is kept here of the audit of {shown(site)}",
            hint="the hub keeps those of its sites, and the agent that estate.yaml names as `hub.second` keeps the hub's",
            code="no-copies",
        )


def _acknowledge(connection: sqlite3.Connection, *, site: str, by: str, reason: str, now: int) -> None:
    count = audit_breaks.settle(connection, site, by=by, reason=reason, now=now)
    if not count:
        hint = "`distctl status` has what waits for somebody to acknowledge it"
        raise NotFoundError(f"nothing is open about the audit of {shown(site)}", hint=hint, code="no-break")
    audit.append(
        connection,
        at_ms=now,
        actor=by,
        action="acknowledge",
        target=f"audit {site}",
        reason=reason,
        details={"breaks": count},
    )


def _flow_row(spec: FlowSpec, estate: Estate, lanes: Sequence[LaneRow], sources: dict[str, views.Row]) -> FlowRow:
    source = "/".join(estate.resolve(spec.source.system) or (spec.source.system,))
    targets = ["/".join(estate.resolve(target.system) or (target.system,)) for target in spec.targets]
    counts = total(lane for lane in lanes if lane.flow == spec.flow and not lane.shadow_of)
    return FlowRow(
        flow=spec.flow,
        owner=spec.owner,
        tier=spec.tier,
        contract=spec.contract,
        source=source,
        targets=targets,
        in_force=True,
        **sources.get(f"{spec.flow}@{source}", {}),
        **counts.model_dump(),
    )


def _gone_row(flow: str, lanes: Sequence[LaneRow]) -> FlowRow:
    left = [lane for lane in lanes if lane.flow == flow and not lane.shadow_of]
    targets = [lane.target for lane in left]
    tier = min((lane.tier for lane in left), default=3)
    return FlowRow(flow=flow, tier=tier, targets=targets, in_force=False, **total(left).model_dump())


def _audit_row(entry: audit.AuditEntry) -> views.Row:
    return {
        "seq": entry.seq,
        "at": entry.at_ms,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "reason": entry.reason,
        "before": entry.before,
        "after": entry.after,
        "request_id": entry.request_id,
        "details": entry.details,
        "hash": entry.hash,
    }


def _before(part: Slice) -> int:
    if part.cursor is None:
        return views.NEWEST
    if part.cursor.isascii() and part.cursor.isdecimal() and len(part.cursor) < 19:
        return int(part.cursor)
    hint = "pass on what the page before gave as `next`"
    raise ConfigError("the cursor is none of this list", hint=hint, code="bad-cursor")


def _shown_as(name: str, row: views.Row) -> views.Row:
    """The row with its `size` and `bytes` as one thing of that name."""
    rest = {column: value for column, value in row.items() if column not in {"size", "bytes"}}
    return {**rest, name: _raw_bytes(row["size"] or 0, row["bytes"] or b"")}


def _raw_bytes(size: int, content: bytes) -> RawBytes:
    is_cut = size > len(content)
    try:
        # A cut may go through the middle of a character, which is no reason to call the whole no text.
        text = codecs.getincrementaldecoder("utf-8")().decode(content, final=not is_cut)
    except UnicodeDecodeError:
        return RawBytes(size=size, base64=base64.b64encode(content).decode(), is_cut=is_cut)
    return RawBytes(size=size, text=text, is_cut=is_cut)
