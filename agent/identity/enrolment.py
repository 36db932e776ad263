"""How an agent gets its identity: with an invitation, from a hub that it recognises by the fingerprint in it.

Before the invitation's secret is sent, the hub's authority is fetched, compared with the fingerprint, and the line made anew
under that authority alone. The key is on disk before anything is asked, so an enrolment that was cut off anywhere is run again
with the same invitation and ends in the same identity.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from agent.identity.authority import fingerprint_of
from agent.identity.certificates import AgentCertificate, make_key, make_request, read_key, write_key
from agent.identity.hub_client import hub_client
from agent.identity.invitation import Token
from agent.identity.private_files import make_private_folder, read_private, write_private
from agent.identity.site import SiteIdentity, certificate_in, folder_in, join, write_hub
from agent.identity.tls import blind_context, client_context
from agent.identity.wire import AUTHORITY_PATH, ENROL_PATH, AuthorityReply, CertificateReply, EnrolRequest
from state.model.clock import Clock
from state.model.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    InvariantError,
    NotConnectedError,
    NotFoundError,
    TransientError,
)
from state.model.visible import visible

_PAUSES: Final = (1.0, 3.0)  # seconds, before a reply that was lost is asked for again


async def enrol(hub_url: str, token: str, data: Path, *, clock: Clock) -> SiteIdentity:
    """Enrol the agent that has its data in `data` with the hub at `hub_url`. A reply that gets lost is asked for again.

    An agent that has an identity of the same site gets a new one, with a new key. Raises `DeniedError` (the invitation or the
    hub is not the right one), `ConflictError` (the data is another site's), `NotConnectedError`, `TransientError`, `ConfigError`.
    """
    invitation = Token.read(token)
    folder = folder_in(data)
    _refuse_other_site(data, invitation.site, clock)
    await asyncio.to_thread(make_private_folder, folder)
    key = await asyncio.to_thread(_pending_key, folder / "key.pem")
    authority = await _authority(hub_url, invitation)
    certificate, whose = await _ask(hub_url, invitation, key, authority, clock)
    if certificate.site != invitation.site:
        raise DeniedError(
            f"the hub made it an agent of {certificate.site}, not of {invitation.site}", code="token-foreign"
        )
    await asyncio.to_thread(write_private, folder / "agent.pem", join(key, certificate, authority))
    await asyncio.to_thread(write_hub, folder, hub_url, site=whose.hub, environment=whose.environment)
    await asyncio.to_thread((folder / "key.pem").unlink, missing_ok=True)
    return SiteIdentity.open(data, clock=clock)


def _refuse_other_site(data: Path, site: str, clock: Clock) -> None:
    try:
        present = SiteIdentity.open(data, clock=clock).site
    except (NotFoundError, ConfigError):
        return  # none, or a damaged one that this enrolment replaces
    if present != site:
        raise ConflictError(
            f"the agent in {data} is that of {present}, and the invitation is for {site}",
            hint="name the data folder of the other agent, or have an invitation made for this site",
            code="token-foreign",
        )


def _pending_key(path: Path) -> EllipticCurvePrivateKey:
    """The key of an enrolment that has not ended, or a new one, on disk before it is used."""
    content = read_private(path)
    try:
        if content is not None:
            return read_key(content)
    except (ValueError, TypeError):
        pass  # nothing was certified for a key that cannot be read
    key = make_key()
    write_private(path, write_key(key))
    return key


async def _authority(hub_url: str, invitation: Token) -> str:
    """The hub's authority, PEM. Raises `DeniedError` where it is not that of the invitation."""
    async with hub_client(hub_url, blind_context()) as client:
        answer = await client.get(AUTHORITY_PATH)
    try:
        authority = AuthorityReply.model_validate_json(answer.content).authority
        found = fingerprint_of(authority)
    except ValueError:
        raise NotConnectedError(
            f"what answers at {visible(hub_url)} is no hub (HTTP {answer.status_code})",
            hint="use the address that `hub.url` has in the hub's estate",
            code="no-hub",
        ) from None
    if found != invitation.fingerprint:
        raise DeniedError(
            f"the hub at {visible(hub_url)} has the authority {found[:16]}, the invitation is of {invitation.fingerprint[:16]}",
            hint="it is another hub, or somebody is in between; nothing of the invitation was sent",
            code="hub-authority",
        )
    return authority


async def _ask(
    hub_url: str, invitation: Token, key: EllipticCurvePrivateKey, authority: str, clock: Clock
) -> tuple[AgentCertificate, CertificateReply]:
    asked = EnrolRequest(token=str(invitation), request=make_request(key))
    context = client_context(authority, now=clock.now)
    for pause in (*_PAUSES, None):
        try:
            async with hub_client(hub_url, context) as client:
                answer = await client.post(ENROL_PATH, content=asked.model_dump_json())
            return certificate_in(answer, key), CertificateReply.model_validate_json(answer.content)
        except TransientError:
            if pause is None:
                raise
            await clock.sleep(pause)
    raise InvariantError("the last try answers or raises")
