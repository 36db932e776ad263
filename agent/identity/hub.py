"""The hub's side of identity: it invites, enrols, renews, denies, and says whose request one is.

The store keeps invitations, standings and the audit; each decision and its audit entry are one unit. Requests are judged by a
copy of the standings in memory, which only this process changes, after the commit: a denial holds from the next request
on, and `on_denied` is told so that connections that are open end at once.

A refusal is noted in the audit once a day for each site and reason, however often it is tried.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from agent.identity.authority import Authority
from agent.identity.certificates import AgentCertificate, key_hash, moment, read_certificate, read_request
from agent.identity.invitation import Token
from agent.identity.judgement import AgentIdentity, judge
from agent.identity.listener_certificate import keep_listener_certificate
from agent.identity.private_files import make_private_folder
from state import audit, bundles, identities
from state.database import Database
from state.identities import Invitation, Standing
from state.model.clock import Clock, from_millis, to_millis
from state.model.errors import ConfigError, ConflictError, DeniedError, NotFoundError, StoreError
from state.model.estate import Estate, EstateSettings

INVITATION_LIFETIME: Final = timedelta(minutes=15)
UNITS: Final = ("identity.open", "identity.invite", "identity.enrol", "identity.renew", "identity.recognise",
                "identity.deny", "identity.allow", "identity.refuse", "identity.begin_anew")  # fmt: skip
"""The names under which the hub writes, for crash points."""

_NOTED_AGAIN_AFTER: Final = timedelta(days=1)
_WARNED_BEFORE_END: Final = timedelta(days=365)
_log: Final = logging.getLogger("distctl.identity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """What `invite` gives: the text for the site, and until when it is good. It is shown once and kept nowhere."""

    site: str
    token: str
    expires_at: datetime


class HubIdentity:
    """The identity of a hub and of those who dial it."""

    def __init__(
        self, data: Path, database: Database, authority: Authority, *, estate: Callable[[], Estate], clock: Clock
    ) -> None:
        self.authority = authority
        self.clock = clock
        self.on_denied: Callable[[str], None] = lambda _: None
        """Called with the site once a denial is in the store."""
        self._listener_file = data / "identity" / "listener.pem"
        self._keeping_listener = asyncio.Lock()  # two at once would write over each other's file
        self._database = database
        self._estate = estate
        self._standings: dict[str, Standing] = {}
        self._noted: dict[tuple[str, str], datetime] = {}  # refusals: bounded by the sites and the reasons there are

    @classmethod
    async def open(cls, data: Path, database: Database, *, estate: Callable[[], Estate], clock: Clock) -> Self:
        """The hub's identity in its data folder; the first time, its authority is made.

        `estate` gives the estate in force. Raises `ConfigError` where the authority is missing, damaged or another one.
        """
        now = clock.now()
        known = await database.read(identities.authority)
        authority = await asyncio.to_thread(
            Authority.open, data / "ca", estate=estate().settings.name, known=known, now=now
        )
        if known is None:
            await database.write(partial(_know, authority, to_millis(now)), name="identity.open")
        if authority.not_after - now < _WARNED_BEFORE_END:
            _log.warning("the hub's authority ends at %s, and every certificate with it", moment(authority.not_after))
        hub = cls(data, database, authority, estate=estate, clock=clock)
        hub._standings = {standing.site: standing for standing in await database.read(identities.list_all)}
        return hub

    @property
    def settings(self) -> EstateSettings:
        """Those of the estate in force."""
        return self._estate().settings

    # What people ask for.

    async def invite(self, site: str, *, by: str) -> Invited:
        """An invitation for the agent of `site`. Raises `NotFoundError` (no such site), `ConflictError` (the hub's own)."""
        estate = self._estate()
        if site not in estate.sites:
            known = ", ".join(sorted(estate.sites))
            raise NotFoundError(f"the estate has no site {site!r}", hint=f"its sites: {known}", code="unknown-site")
        if estate.settings.hub is not None and estate.settings.hub.site == site:
            raise ConflictError(f"{site} is the site of the hub itself, which needs no invitation", code="hub-site")
        now = self.clock.now()
        token = Token.make(site, self.authority.fingerprint)
        expires_at = now + INVITATION_LIFETIME
        await self._database.write(partial(_invite, token, by, now, expires_at), name="identity.invite")
        return Invited(site=site, token=str(token), expires_at=expires_at)

    async def deny(self, site: str, *, reason: str, by: str) -> Standing:
        """Refuse every identity that `site` has had until now, at once, and withdraw its invitations.

        A later invitation gives it a new identity; the denied ones stay denied.

        Raises `NotFoundError` where the site is neither in the estate nor ever enrolled.
        """
        if site not in self._standings and site not in self._estate().sites:
            raise NotFoundError(
                f"no agent of {site!r} ever enrolled", hint="`distctl agents list`", code="unknown-site"
            )
        standing = await self._database.write(
            partial(_deny, site, reason, by, to_millis(self.clock.now())), name="identity.deny"
        )
        self.know_denied(standing)
        return standing

    def know_denied(self, standing: Standing) -> None:
        """A denial is in the store: it holds from now on."""
        self._standings[standing.site] = standing
        self.on_denied(standing.site)

    async def allow(self, site: str, *, reason: str, by: str) -> Standing:
        """End a denial: what was valid before is valid again. Raises `ConflictError` where there is none."""
        standing = await self._database.write(
            partial(_allow, site, reason, by, to_millis(self.clock.now())), name="identity.allow"
        )
        self._standings[site] = standing
        self._forget_refusals(site)
        return standing

    def standings(self) -> list[Standing]:
        """How the agents of each site stand, by site."""
        return [self._standings[site] for site in sorted(self._standings)]

    # What agents ask for.

    async def enrol(self, token_text: str, request: str) -> AgentCertificate:
        """A certificate for the key that signed `request`, by an invitation. The same key and invitation get the same one.

        Raises `DeniedError` (unknown, used, expired or foreign invitation), `RejectedError` (no usable request).
        """
        try:
            token = Token.read(token_text)
        except DeniedError as refusal:
            await self.note_refusal(None, refusal)
            raise
        key = read_request(request)
        now = self.clock.now()
        settled = await self._database.write(partial(self._enrol, token, key, now), name="identity.enrol")
        if isinstance(settled, DeniedError):
            await self.note_refusal(token.site, settled)
            raise settled
        certificate, standing = settled
        self._standings[certificate.site] = standing
        self._forget_refusals(certificate.site)
        return certificate

    async def renew(self, certificate: AgentCertificate | None) -> AgentCertificate:
        """The newest certificate of the identity that asks: made anew where the newest one is due. Raises `DeniedError`."""
        await self.identify(certificate, may_be_expired=True)
        assert certificate is not None  # noqa: S101  a request without one was refused
        standing = self._standings[certificate.site]
        newest = _newest(standing)
        now = self.clock.now()
        if newest is not None and now < newest.due_at:
            return newest
        renewed, standing = await self._database.write(partial(self._renew, certificate, now), name="identity.renew")
        self._standings[certificate.site] = standing
        self._forget_refusals(certificate.site)
        return renewed

    async def identify(self, certificate: AgentCertificate | None, *, may_be_expired: bool = False) -> AgentIdentity:
        """Whose request it is, as of now. Raises `DeniedError`, which the audit has then."""
        site = certificate.site if certificate else ""
        standing = self._standings.get(site) or Standing(site=site)
        try:
            identity = judge(
                certificate,
                standing,
                sites=self._estate().sites,
                now=self.clock.now(),
                may_be_expired=may_be_expired,
            )
        except DeniedError as refusal:
            await self.note_refusal(site, refusal)
            raise
        if certificate is not None and certificate.enrolled_at > standing.enrolled_at:
            await self._recognise(certificate)
        return identity

    def has_newer(self, certificate: AgentCertificate) -> bool:
        """Whether the identity has a certificate that lasts longer: a connection with this one is to be made anew."""
        newest = _newest(self._standings.get(certificate.site))
        return newest is not None and newest.not_after > certificate.not_after

    async def note_refusal(self, site: str | None, refusal: DeniedError) -> None:
        """Have the refusal in the audit, once a day for each site of the estate and reason."""
        target = f"agent {site}" if site in self._estate().sites else "agents"
        now = self.clock.now()
        noted = self._noted.get((target, refusal.code))
        if noted is not None and now - noted < _NOTED_AGAIN_AFTER:
            return
        self._noted[target, refusal.code] = now
        _log.warning("refused: %s", refusal, extra={"code": refusal.code, "target": target})
        try:
            await self._database.write(partial(_note, target, refusal, now), name="identity.refuse")
        except StoreError as error:  # refused it is all the same
            _log.error("a refusal of %s (%s) could not be noted in the audit: %s", target, refusal.code, error)

    # The hub's own listener.

    async def keep_listener_certificate(self) -> tuple[Path, bool]:
        """The file with key and certificate of the listener, and whether it was made anew just now.

        Raises `ConfigError` where the estate names no hub, or the authority has ended.
        """
        hub = self._estate().settings.hub
        host = urlsplit(hub.url).hostname if hub else None
        if host is None:
            raise ConfigError("the estate names no hub", hint="write `hub` into estate.yaml", code="no-hub-configured")
        async with self._keeping_listener:
            await asyncio.to_thread(make_private_folder, self._listener_file.parent)
            is_new = await asyncio.to_thread(
                keep_listener_certificate, self._listener_file, self.authority, host=host, now=self.clock.now()
            )
        return self._listener_file, is_new

    # Units.

    def _enrol(
        self, token: Token, key: EllipticCurvePublicKey, now: datetime, connection: sqlite3.Connection
    ) -> tuple[AgentCertificate, Standing] | DeniedError:
        invitation = identities.find_invitation(connection, token.secret_hash)
        if invitation is None or invitation.site != token.site:
            return _foreign(token, invitation)
        standing = identities.find(connection, token.site)
        if invitation.used_at is not None:
            return _again(invitation, key, standing)
        if invitation.withdrawn_at is not None:
            return _withdrawn(invitation.site, invitation.withdrawn_at)
        if now >= from_millis(invitation.expires_at):
            return _expired(invitation, now)
        if token.site not in self._estate().sites:
            return _site_gone(token.site)
        certificate = self.authority.certify_agent(
            key, site=token.site, enrolled_at=standing.next_enrolment(to_millis(now)), now=now
        )
        identities.settle_invitation(
            connection, invitation, key_hash=key_hash(key), certificate=certificate.der, now=to_millis(now)
        )
        enrolled = replace(standing, enrolled_at=certificate.enrolled_at, certificate=certificate.der)
        identities.put(connection, enrolled)
        _append(connection, "enrol", certificate, now, before=standing)
        return certificate, enrolled

    def _renew(
        self, presented: AgentCertificate, now: datetime, connection: sqlite3.Connection
    ) -> tuple[AgentCertificate, Standing]:
        standing = identities.find(connection, presented.site)
        judge(
            presented, standing, sites=self._estate().sites, now=now, may_be_expired=True
        )  # it may have changed since
        renewed = self.authority.certify_agent(
            presented.key, site=presented.site, enrolled_at=presented.enrolled_at, now=now
        )
        after = replace(standing, enrolled_at=renewed.enrolled_at, certificate=renewed.der)
        identities.put(connection, after)
        _append(connection, "renew", renewed, now, before=standing)
        return renewed, after

    async def _recognise(self, certificate: AgentCertificate) -> None:
        """A certificate of ours that the store does not know: the hub was built again, from a backup or from escrow."""
        now = self.clock.now()
        standing = await self._database.write(partial(_recognise, certificate, now), name="identity.recognise")
        self._standings[certificate.site] = standing

    def _forget_refusals(self, site: str) -> None:
        """What is refused after this is news."""
        self._noted = {key: at for key, at in self._noted.items() if key[0] != f"agent {site}"}


async def begin_anew(data: Path, database: Database, *, reason: str, by: str, clock: Clock) -> None:
    """For a hub whose authority is lost, damaged, ended or in other hands: the next `HubIdentity.open` makes another one.

    Every site must then enrol again. What is in `ca` is moved aside, never removed. Killed in between, it is run again.
    """
    now = to_millis(clock.now())
    await asyncio.to_thread(_move_aside, data / "ca", now)
    await database.write(partial(_forget, reason, by, now), name="identity.begin_anew")


def _move_aside(folder: Path, now: int) -> None:
    try:
        folder.rename(folder.with_name(f"{folder.name}.until-{now}"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"cannot move {folder} aside: {error.strerror}", file=str(folder), code="authority"
        ) from error


def _forget(reason: str, by: str, now: int, connection: sqlite3.Connection) -> None:
    known = identities.authority(connection)
    identities.forget_authority(connection)
    bundles.leave_room(connection, by=by, now=from_millis(now))
    audit.append(
        connection,
        at_ms=now,
        actor=by,
        action="replace",
        target="authority",
        reason=reason,
        before={"fingerprint": known.hex()} if known else None,
    )


def _know(authority: Authority, now: int, connection: sqlite3.Connection) -> None:
    identities.know_authority(connection, bytes.fromhex(authority.fingerprint), now=now)
    audit.append(
        connection,
        at_ms=now,
        actor="agent",
        action="begin",
        target="authority",
        reason="the first start as a hub",
        after={"fingerprint": authority.fingerprint, "not_after": moment(authority.not_after)},
    )


def _invite(token: Token, by: str, now: datetime, expires_at: datetime, connection: sqlite3.Connection) -> None:
    millis = to_millis(now)
    identities.add_invitation(
        connection,
        secret_hash=token.secret_hash,
        site=token.site,
        invited_at=millis,
        expires_at=to_millis(expires_at),
    )
    audit.append(
        connection,
        at_ms=millis,
        actor=by,
        action="invite",
        target=f"agent {token.site}",
        details={"expires_at": moment(expires_at)},
    )


def _deny(site: str, reason: str, by: str, now: int, connection: sqlite3.Connection) -> Standing:
    before = identities.find(connection, site)
    after = replace(before, denied_until=max(now, before.enrolled_at), denied_reason=reason)
    identities.put(connection, after)
    identities.withdraw_invitations(connection, site, until=after.denied_until, now=now)
    audit.append(
        connection,
        at_ms=now,
        actor=by,
        action="deny",
        target=f"agent {site}",
        reason=reason,
        before=_shown(before),
        after=_shown(after),
        details={"denied_until": after.denied_until},
    )
    return after


def _allow(site: str, reason: str, by: str, now: int, connection: sqlite3.Connection) -> Standing:
    before = identities.find(connection, site)
    if not before.denied_until:
        raise ConflictError(f"{site} is not denied", hint="`distctl agents list`", code="not-denied")
    after = replace(before, denied_until=0, denied_reason="")
    identities.put(connection, after)
    audit.append(
        connection,
        at_ms=now,
        actor=by,
        action="allow",
        target=f"agent {site}",
        reason=reason,
        before=_shown(before),
        after=_shown(after),
    )
    return after


def _recognise(certificate: AgentCertificate, now: datetime, connection: sqlite3.Connection) -> Standing:
    before = identities.find(connection, certificate.site)
    if certificate.enrolled_at <= before.enrolled_at:
        return before  # two requests at once
    after = replace(before, enrolled_at=certificate.enrolled_at, certificate=certificate.der)
    identities.put(connection, after)
    _append(connection, "recognise", certificate, now, before=before)
    return after


def _note(target: str, refusal: DeniedError, now: datetime, connection: sqlite3.Connection) -> None:
    since = to_millis(now - _NOTED_AGAIN_AFTER)
    lately = audit.entries(connection, target=target, action="refuse", since_ms=since)
    if any(entry.details.get("code") == refusal.code for entry in lately):
        return  # by an earlier run of this agent
    audit.append(
        connection,
        at_ms=to_millis(now),
        actor="agent",
        action="refuse",
        target=target,
        reason=refusal.message,
        details={"code": refusal.code},
    )


def _append(
    connection: sqlite3.Connection, action: str, certificate: AgentCertificate, now: datetime, *, before: Standing
) -> None:
    """An entry about a certificate, in the name of the agent that has it."""
    audit.append(
        connection,
        at_ms=to_millis(now),
        actor=f"agent {certificate.site}",
        action=action,
        target=f"agent {certificate.site}",
        before=_shown(before),
        after={
            "enrolled_at": moment(from_millis(certificate.enrolled_at)),
            "serial": certificate.serial,
            "not_after": moment(certificate.not_after),
        },
    )


def _shown(standing: Standing) -> dict[str, str]:
    newest = _newest(standing)
    known = {"enrolled_at": moment(from_millis(standing.enrolled_at)), "serial": newest.serial} if newest else {}
    until = moment(from_millis(standing.denied_until))
    return known | ({"denied_until": until, "denied_reason": standing.denied_reason} if standing.denied_until else {})


def _newest(standing: Standing | None) -> AgentCertificate | None:
    return read_certificate(standing.certificate) if standing and standing.certificate else None


def _foreign(token: Token, invitation: Invitation | None) -> DeniedError:
    if invitation is None:
        return DeniedError(
            f"this hub never gave that invitation for {token.site}",
            hint="a new one is made with `distctl agents invite SITE` at the hub",
            code="token-unknown",
        )
    return DeniedError(
        f"this invitation is for another site than {token.site}",
        hint="an invitation is for one site and is used as it was given",
        code="token-foreign",
    )


def _again(
    invitation: Invitation, key: EllipticCurvePublicKey, standing: Standing
) -> tuple[AgentCertificate, Standing] | DeniedError:
    """An invitation that was used: the reply may have been lost, or somebody else has the text."""
    assert invitation.used_at is not None and invitation.certificate is not None  # noqa: PT018, S101
    given = read_certificate(invitation.certificate)
    if invitation.key_hash == key_hash(key) and given.enrolled_at == standing.enrolled_at > standing.denied_until:
        return given, standing
    return DeniedError(
        f"this invitation for {invitation.site} was used at {moment(from_millis(invitation.used_at))}",
        hint="it is good once; if that was not this machine, deny the site at the hub, then invite it anew",
        code="token-used",
    )


def _expired(invitation: Invitation, now: datetime) -> DeniedError:
    return DeniedError(
        f"this invitation for {invitation.site} expired at {moment(from_millis(invitation.expires_at))}, "
        f"and the hub's clock says {moment(now)}",
        hint="a new one is made with `distctl agents invite SITE` at the hub",
        code="token-expired",
    )


def _withdrawn(site: str, at: int) -> DeniedError:
    return DeniedError(
        f"this invitation for {site} was withdrawn at {moment(from_millis(at))}, when the site was denied",
        hint="a new one is made with `distctl agents invite SITE` at the hub",
        code="token-withdrawn",
    )


def _site_gone(site: str) -> DeniedError:
    return DeniedError(
        f"the hub's estate has no site {site} any more", hint="add it to the estate at the hub", code="site-unknown"
    )
