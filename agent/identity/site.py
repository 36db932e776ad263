"""A site's side of identity: its key, its certificate, the hub that it dials, and the renewal.

All of it lies in `identity` of the agent's data folder: `agent.pem` holds the key, the certificate and the hub's authority in
one file, so that they are replaced together; `hub.json` where the hub is; `key.pem` the key of an enrolment that has not ended,
so that a lost reply is asked for again and gives the same identity. The key never leaves the machine, and a renewal keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import httpx
import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ValidationError

from agent.identity.certificates import AgentCertificate, key_hash, moment, read_certificate, read_key, write_key
from agent.identity.hub_client import DEADLINE_SECONDS, hub_client
from agent.identity.private_files import read_private, write_private
from agent.identity.seal import Seal
from agent.identity.tls import client_context, load_credentials
from agent.identity.wire import RENEW_PATH, CertificateReply
from agent.supervisor import sleep_unless
from state.model.clock import Clock
from state.model.errors import ConfigError, DeniedError, DistctlError, NotFoundError, TransientError
from state.model.estate import EstateSettings
from state.model.visible import visible

_log: Final = logging.getLogger("distctl.identity")
_ENROL_AGAIN: Final = "Enrol this agent again, with a new invitation"
_LOOKS_EVERY: Final = 3600.0
_TRIES_AGAIN_AFTER: Final = 300.0


class HubPlace(BaseModel):
    """Where the hub is, and what it said of itself at the enrolment; empty where it said nothing."""

    url: str
    site: str = ""
    environment: str = ""


class SiteIdentity:
    """The identity of an enrolled agent. Made by `open`."""

    def __init__(self, folder: Path, place: HubPlace, content: bytes, clock: Clock) -> None:
        """`content` is that of `agent.pem`. Raises ValueError where it is not whole."""
        self.place = place
        self.hub = place.url
        self._path = folder / "agent.pem"
        self._clock = clock
        self._key, self.certificate, self._authority = _split(content)
        self._context = client_context(self._authority, now=clock.now, credentials=self._path)
        self._trouble: DistctlError | None = None

    @classmethod
    def open(cls, data: Path, *, clock: Clock) -> Self:
        """The identity in the agent's data folder. Raises `NotFoundError` where it never enrolled, `ConfigError` if damaged."""
        folder = folder_in(data)
        content, hub = read_private(folder / "agent.pem"), read_private(folder / "hub.json")
        if content is None:
            raise NotFoundError(
                f"the agent in {data} has no identity",
                hint="`distctl agent enrol --hub URL --token T`, with an invitation from the hub",
                code="not-enrolled",
            )
        try:
            return cls(folder, HubPlace.model_validate_json(hub or b""), content, clock)
        except (ValueError, TypeError) as error:
            what = "it does not say where the hub is" if isinstance(error, ValidationError) else str(error)
            raise ConfigError(
                f"the identity of this agent is damaged: {what}", file=str(folder), hint=_ENROL_AGAIN, code="identity"
            ) from None

    @property
    def site(self) -> str:
        """Whose identity it is."""
        return self.certificate.site

    @property
    def estate(self) -> str:
        """The estate of the hub."""
        return self.certificate.estate

    @property
    def trouble(self) -> str:
        """What keeps it from being renewed, or nothing."""
        return str(self._trouble) if self._trouble else ""

    def client(self, *, deadline: float = DEADLINE_SECONDS) -> httpx.AsyncClient:
        """A client for the hub; see `agent.identity.hub_client`. It shows a renewed certificate from its next connection on."""
        until = moment(self.certificate.not_after)
        named = f"{self.site} ({self.certificate.serial}, valid until {until})"
        return hub_client(self.hub, self._context, identity=named, deadline=deadline)

    def seal(self, settings: EstateSettings) -> Seal:
        """The hub's seal on the estate and environment of `settings`, as this agent knows it."""
        return Seal.of_authority(self._authority, settings)

    def is_due(self, now: datetime) -> bool:
        """Whether the certificate is to be renewed: from day 15 on, and long after it expired."""
        return now >= self.certificate.due_at

    async def renew(self) -> AgentCertificate:
        """Have the hub renew the certificate, which it does when it is due. A lost reply is asked for again.

        Raises `DeniedError`, `NotConnectedError`, `TransientError` or, where the answer is no certificate of ours, `ConfigError`.
        """
        async with self.client() as client:
            answer = await client.post(RENEW_PATH)
        renewed = certificate_in(answer, self._key)
        if renewed.der != self.certificate.der:
            content = join(self._key, renewed, self._authority)
            await asyncio.to_thread(write_private, self._path, content)
            self.certificate = renewed
            load_credentials(self._context, self._path)
            _log.info("the certificate of %s was renewed until %s", self.site, moment(renewed.not_after))
        return renewed

    async def keep_renewed(self, stop: asyncio.Event) -> None:
        """Renew when it is due, until `stop` is set. What fails is tried again in five minutes, and told once."""
        while not stop.is_set():
            pause = _LOOKS_EVERY
            if self.is_due(self._clock.now()):
                pause = await self._try_to_renew()
            await sleep_unless(stop, pause, clock=self._clock)

    async def _try_to_renew(self) -> float:
        """Answers after how many seconds to look again."""
        try:
            await self.renew()
        except DistctlError as error:
            if self._trouble is None or error.code != self._trouble.code:
                until = moment(self.certificate.not_after)
                _log.error("the certificate of %s, valid until %s, cannot be renewed: %s", self.site, until, error)
            self._trouble = error
            # A person has to act where the hub said no: asking more often only fills its log.
            return _LOOKS_EVERY if isinstance(error, DeniedError) else _TRIES_AGAIN_AFTER
        self._trouble = None
        return _LOOKS_EVERY


def folder_in(data: Path) -> Path:
    """Where the agent that has its data in `data` keeps its identity."""
    return data / "identity"


def join(key: EllipticCurvePrivateKey, certificate: AgentCertificate, authority: str) -> bytes:
    """The content of `agent.pem`."""
    return write_key(key) + certificate.pem.encode() + authority.encode()


def write_hub(folder: Path, url: str, *, site: str = "", environment: str = "") -> None:
    """Note where the hub is. Raises `ConfigError`."""
    place = HubPlace(url=url, site=site, environment=environment)
    write_private(folder / "hub.json", orjson.dumps(place.model_dump()))


def certificate_in(answer: httpx.Response, key: EllipticCurvePrivateKey) -> AgentCertificate:
    """The certificate that the hub answered with, for `key`. Raises `TransientError` where it did not."""
    try:
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"it answered HTTP {answer.status_code} {visible(answer.text[:300])}")
        pem = CertificateReply.model_validate_json(answer.content).certificate
        certificate = read_certificate(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER))
        if certificate.key_hash != key_hash(key.public_key()):
            raise ValueError("it certified another key than ours")
    except ValueError as error:
        what = "its answer is malformed" if isinstance(error, ValidationError) else str(error)
        raise TransientError(
            f"the hub gave no certificate: {what}", hint="it is asked again", code="hub-answer"
        ) from None
    return certificate


def _split(content: bytes) -> tuple[EllipticCurvePrivateKey, AgentCertificate, str]:
    """Key, certificate and authority of `agent.pem`. Raises ValueError."""
    key = read_key(content)
    own, authority = x509.load_pem_x509_certificates(content)
    certificate = read_certificate(own.public_bytes(Encoding.DER))
    if certificate.key_hash != key_hash(key.public_key()):
        raise ValueError("its key is not that of its certificate")
    return key, certificate, authority.public_bytes(Encoding.PEM).decode()
