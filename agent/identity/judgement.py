"""Whether a certificate may speak for its site now. Pure: what is known and the hub's clock are arguments.

The TLS layer has already made sure that the certificate is of the hub's own authority and that the peer has its key; it did not
look at the time. Denied comes before expired: an expired certificate may renew, a denied one nothing.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

from agent.identity.certificates import AgentCertificate, moment
from state.identities import Standing
from state.model.clock import from_millis
from state.model.errors import DeniedError


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """Who makes a request, proved by a valid certificate that is not denied."""

    site: str
    serial: str
    not_after: datetime


def judge(
    certificate: AgentCertificate | None,
    standing: Standing,
    *,
    sites: Container[str],
    now: datetime,
    may_be_expired: bool = False,
) -> AgentIdentity:
    """Whose request it is. `standing` is that of the certificate's site. Raises `DeniedError`: why, and until or since when."""
    if certificate is None:
        raise DeniedError(
            "this call needs the certificate of an agent",
            hint="enrol first: `distctl agent enrol --hub URL --token TOKEN`",
            code="certificate-missing",
        )
    whose = f"the certificate {certificate.serial} of {certificate.site}"
    if certificate.enrolled_at <= standing.denied_until:
        raise DeniedError(
            f"{whose} is denied since {_when(standing.denied_until)}: {standing.denied_reason}",
            hint="a person at the hub allows the site again, or invites it anew",
            code="certificate-denied",
        )
    if certificate.enrolled_at < standing.enrolled_at:
        raise DeniedError(
            f"{whose} is replaced: the site enrolled again at {_when(standing.enrolled_at)}",
            hint="only the newest identity of a site counts; to go on with this machine, enrol it again",
            code="certificate-replaced",
        )
    if certificate.site not in sites:
        raise DeniedError(
            f"{whose} is refused: the hub's estate has no such site",
            hint="add the site to the estate at the hub, or remove this agent",
            code="site-unknown",
        )
    if now < certificate.not_before:
        raise DeniedError(
            f"{whose} is not valid before {moment(certificate.not_before)}, and the hub's clock says {moment(now)}",
            hint="set the clock of the hub",
            code="certificate-not-yet-valid",
        )
    if now >= certificate.not_after and not may_be_expired:
        raise DeniedError(
            f"{whose} expired at {moment(certificate.not_after)}, and the hub's clock says {moment(now)}",
            hint="the agent renews it by itself when it reaches the hub; until then nothing else is answered",
            code="certificate-expired",
        )
    return AgentIdentity(site=certificate.site, serial=certificate.serial, not_after=certificate.not_after)


def _when(millis: int) -> str:
    return moment(from_millis(millis))
