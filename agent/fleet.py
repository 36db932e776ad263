"""The agents of an estate as one of them sees them: who answers, who is fenced and what to do, who may come at all."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from agent.audit_findings import findings
from agent.control.schema import AgentRow, AuditFinding, GapRow, SiteBundle
from agent.pace import LOOKS_EVERY, Pace
from agent.supervisor import sleep_unless
from agent.sync.beyond import sentence
from agent.sync.fencing import cure, own_cure
from agent.sync.needs import Fence, Reason
from state import audit, audit_copies, gaps, life, peers, streams
from state.database import Database
from state.gaps import Gap
from state.identities import Standing
from state.life import Life
from state.model.clock import Clock, to_millis
from state.model.errors import ConflictError, NotFoundError
from state.model.estate import Estate
from state.model.suggestion import suggestion
from state.peers import Peer, PeerState, Refused

if TYPE_CHECKING:
    from agent.identity.hub import HubIdentity, Invited


SILENT_AFTER: Final = timedelta(minutes=1)
"""A site calls every ten seconds, and dials again within a minute."""

_COMES_AGAIN_WITHIN: Final = timedelta(minutes=3)
"""A store that is refused tries again every minute: one that did not for so long was stopped."""


class Fleet:
    """What people ask and tell the agent about the others."""

    def __init__(
        self,
        database: Database,
        *,
        site: str,
        estate: Callable[[], Estate],
        identity: Callable[[], HubIdentity | None],
        clock: Clock,
        on_life: Callable[[], None],
    ) -> None:
        """`identity` is that of a hub that listens, None elsewhere; `on_life` is told when an answer was waived."""
        self._database = database
        self._site = site
        self._estate = estate
        self._identity = identity
        self._clock = clock
        self._on_life = on_life
        self._pace = Pace()

    async def watch(self, stopping: asyncio.Event) -> None:
        """Look now and then at what waits for the others, so that it can be said how long it will take."""
        while self._estate().settings.hub and not await sleep_unless(stopping, LOOKS_EVERY, clock=self._clock):
            self._pace.note(await self._database.read(_waiting), self._clock.monotonic())

    async def agents(self) -> list[AgentRow]:
        """Every agent of the estate but this one, by site: those that were never heard too."""
        hub = self._estate().settings.hub
        if hub is None:
            return []
        identity = self._identity()
        standings = {one.site: one for one in identity.standings()} if identity else {}
        expected = set(self._estate().sites) - {self._site} if identity else {hub.site}
        return await self._database.read(partial(_rows, expected, standings, hub.site, self._pace, self._clock.now()))

    async def agent(self, site: str) -> AgentRow:
        """One of them. Raises `NotFoundError`."""
        rows = {row.agent: row for row in await self.agents()}
        if site not in rows:
            raise NotFoundError(f"there is no agent of {site}", hint=suggestion(site, rows), code="unknown-site")
        return rows[site]

    async def invite(self, site: str, *, by: str) -> Invited:
        """A token that enrols the agent of that site once, within 15 minutes."""
        return await self._hub().invite(site, by=by)

    async def deny(self, site: str, *, by: str, reason: str) -> AgentRow:
        """Keep the agents that the site has had until now out, at once."""
        await self._hub().deny(site, reason=reason, by=by)
        return await self.agent(site)

    async def allow(self, site: str, *, by: str, reason: str) -> AgentRow:
        """End a denial."""
        await self._hub().allow(site, reason=reason, by=by)
        return await self.agent(site)

    async def adopt(self, site: str, *, by: str, reason: str) -> AgentRow:
        """Let the store that says hello next for a site go on, in a new epoch: the site is fenced, or a store of it was refused.

        Raises `ConflictError` where neither is so, where the store that was not refused is still at work, or this is not the hub.
        """
        self._hub()
        await self.agent(site)
        await self._database.write(partial(self._adopt, site, by, reason), name="fleet.adopt")
        return await self.agent(site)

    async def waive(self, site: str, *, by: str, reason: str) -> AgentRow:
        """Go on without what the agent of that site may have of this store's life before.

        Raises `ConflictError` where nothing is waited for from it.
        """
        await self.agent(site)
        await self._database.write(partial(self._waive, site, by, reason), name="fleet.waive")
        self._on_life()
        return await self.agent(site)

    def _waive(self, site: str, by: str, reason: str, connection: sqlite3.Connection) -> None:
        here, peer = life.get(connection), peers.find(connection, site)
        if peer is None or not here.is_gathering or not peers.answer(connection, peer, epoch=here.epoch):
            awaited = ", ".join(peers.unanswered(connection))
            raise ConflictError(
                f"nothing is waited for from {site}",
                hint=f"awaited are: {awaited}"
                if awaited
                else "the store is not gathering: `distctl status` says how it is",
                code="not-awaited",
            )
        audit.append(
            connection,
            at_ms=to_millis(self._clock.now()),
            actor=by,
            action="waive",
            target=f"agent {site}",
            reason=reason,
            after={"epoch": here.epoch},
        )

    def _adopt(self, site: str, by: str, reason: str, connection: sqlite3.Connection) -> None:
        peer, now = peers.find(connection, site), self._clock.now()
        if peer is None or not (peer.state is PeerState.FENCED or peer.refused):
            raise ConflictError(
                f"the agent of {site} is not fenced, and no other store of it was refused",
                hint="`distctl agents list` says how each stands",
                code="not-fenced",
            )
        if peer.refused:
            _require_silent(peer, now)
        peers.open_again(connection, peer, adopting=True)
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor=by,
            action="adopt",
            target=f"agent {site}",
            reason=reason,
            before={"state": peer.state, "reason": Reason.ENDED if peer.refused else peer.reason},
            after={"state": PeerState.ADOPTING},
        )

    def _hub(self) -> HubIdentity:
        identity = self._identity()
        if identity is None:
            hub = self._estate().settings.hub
            hint = f"ask the agent of {hub.site}" if hub else "name a hub in estate.yaml"
            raise ConflictError(f"the agent of {self._site} is not the hub", hint=hint, code="not-the-hub")
        return identity


def _require_silent(peer: Peer, now: datetime) -> None:
    """Raises `ConflictError` while the store that was not refused is at work: it would say hello first, and be adopted."""
    if not _is_silent(peer, now):
        raise ConflictError(
            f"the store of {peer.site} that is not refused was heard at {_second(peer.heard_at)}",
            hint=f"stop it first: this works {SILENT_AFTER.total_seconds():g} s after it was heard last; where nobody can, "
            f"`distctl agents deny {peer.site} --reason ...`, and invite and enrol the other anew",
            code="still-heard",
        )


def _rows(
    expected: set[str],
    standings: Mapping[str, Standing],
    hub: str,
    pace: Pace,
    now: datetime,
    connection: sqlite3.Connection,
) -> list[AgentRow]:
    here = life.get(connection)
    audits = {finding.audit_of: finding for finding in findings(connection)}
    known = {peer.site: peer for peer in peers.list_all(connection)}
    return [
        _row(connection, here, site, known.get(site), standings.get(site), hub, pace, audits.get(site), now)
        for site in sorted(expected | set(known) | set(standings))
    ]


def _row(
    connection: sqlite3.Connection,
    here: Life,
    site: str,
    peer: Peer | None,
    standing: Standing | None,
    hub: str,
    pace: Pace,
    finding: AuditFinding | None,
    now: datetime,
) -> AgentRow:
    refused = _still_refused(peer, now) if peer else None
    state, reason, cure_text = _state(here, peer, standing, hub, refused, now)
    if finding and not reason:
        reason, cure_text = finding.text, finding.to_do
    return AgentRow(
        agent=site,
        state=state,
        reason=reason,
        to_do=cure_text,
        epoch=peer.epoch if peer else 0,
        heard_at=peer.heard_at if peer else None,
        refused_at=refused.at if refused else None,
        waiting=_owed(connection, here, peer) if peer else 0,
        done_in=pace.done_in(site),
        certificate_until=_certificate_until(standing),
        audit_entries=audit_copies.told(connection, site).head.seq,
        audit_kept=audit_copies.end(connection, site).seq,
        gaps=[_gap_row(gap, here.site, peer.site) for gap in gaps.list_all(connection, peer.id)] if peer else [],
        bundle=_bundle(peer.said) if peer else None,
        said=peer.said if peer else {},
    )


def _gap_row(gap: Gap, here: str, peer: str) -> GapRow:
    sender, receiver = (here, peer) if gap.is_ours else (peer, here)
    return GapRow(
        sender=sender,
        receiver=receiver,
        epoch=gap.epoch,
        tier=gap.tier,
        first=gap.first,
        last=gap.last,
        since=gap.since,
        until=gap.until,
        text=f"{sentence(gap, sender=sender, receiver=receiver)}; {_to_do(gap, sender, receiver)}",
    )


def _to_do(gap: Gap, sender: str, receiver: str) -> str:
    if gap.of_give_back:
        return f"the others were settled: look into a later backup of {sender} or an older one of {receiver}"
    return (
        f"they were settled: look into a later backup of {receiver}, or have their sources at {sender} send them again"
    )


def _waiting(connection: sqlite3.Connection) -> dict[str, int]:
    here = life.get(connection)
    return {peer.site: _owed(connection, here, peer) for peer in peers.list_all(connection)}


def _owed(connection: sqlite3.Connection, here: Life, peer: Peer) -> int:
    return sum(streams.owed(connection, peer.id, epoch=here.epoch).values())


def _bundle(said: Mapping[str, Any]) -> SiteBundle | None:
    """What a site said of its bundles, which may be anything."""
    try:
        return SiteBundle.model_validate(said["bundle"])
    except (KeyError, ValidationError):
        return None


def _certificate_until(standing: Standing | None) -> datetime | None:
    if standing is None or not standing.certificate:
        return None
    from agent.identity.certificates import read_certificate  # a hub has it loaded, an agent alone does without

    return read_certificate(standing.certificate).not_after


def _is_silent(peer: Peer, now: datetime) -> bool:
    return peer.heard_at is None or now - peer.heard_at > SILENT_AFTER


def _still_refused(peer: Peer, now: datetime) -> Refused | None:
    """The store that is refused, as long as it comes again, or none of its site was heard since."""
    refused = peer.refused
    if refused is None or now - refused.at <= _COMES_AGAIN_WITHIN:
        return refused
    return refused if peer.heard_at is None or peer.heard_at < refused.at else None


def _second(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}" if at else "never"


def _state(
    here: Life, peer: Peer | None, standing: Standing | None, hub: str, refused: Refused | None, now: datetime
) -> tuple[str, str, str]:
    """How an agent stands, why, and what a person does about it."""
    if standing and standing.is_denied:
        to_do = "`distctl agents allow SITE --reason ...` ends it, an invitation gives it a new identity"
        return "denied", standing.denied_reason, to_do
    if peer is None or peer.epoch == 0:
        site = peer.site if peer else standing.site if standing else ""
        to_do = f"`distctl agents invite {site}`, then there `distctl agent enrol --hub URL --token TOKEN`"
        return "never heard", "", to_do if site else ""
    if peer.state is PeerState.FENCED:
        return "fenced", peer.detail, cure(Fence(peer.site, Reason(peer.reason), peer.detail), hub=hub)
    if peer.state is PeerState.ADOPTING:
        return "adopting", "a person decided that it goes on", "start it: its next hello begins a new epoch"
    if here.is_gathering and peer.answered < here.epoch:
        why = "this store was put back, and its agent has not given back all that it has"
        return "awaited", why, f"start it, or go on without: `distctl agents waive {peer.site} --reason ...`"
    state = "silent" if _is_silent(peer, now) else "open"
    if here.fenced:
        return state, f"this store is fenced: {here.fenced}", own_cure(here.site, hub=hub)
    if refused:
        why = f"another store of it is refused, last at {_second(refused.at)}: {refused.detail}"
        return state, why, cure(Fence(peer.site, Reason.ENDED, refused.detail), hub=hub)
    if state == "silent":
        return (
            state,
            f"it was heard last at {_second(peer.heard_at)}",
            "look at its agent and its line; nothing is lost",
        )
    return state, "", ""
