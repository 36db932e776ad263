"""What a certificate says of an agent, and how moments are shown to people.

An agent's certificate carries one URI, `distctl://<estate>/<site>/<enrolled_at>`: whose it is, and by which enrolment, in
milliseconds. A renewal keeps the URI and the key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from state.model.errors import RejectedError

LIFETIME: Final = timedelta(days=45)
"""How long a certificate of an agent or of the hub's listener is valid."""

RENEWED_BEFORE_END: Final = timedelta(days=30)
"""A certificate is renewed from this long before its end, at day 15."""

_URI: Final = re.compile(
    r"distctl://(?P<estate>[a-z0-9-]+)/(?P<site>[a-z0-9-]+)/(?P<enrolled_at>[0-9]{1,15})", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCertificate:
    """An agent's certificate as far as anybody asks. The serial is hexadecimal, times are UTC, `key_hash` of the public key."""

    estate: str
    site: str
    enrolled_at: int
    serial: str
    not_before: datetime
    not_after: datetime
    key_hash: bytes
    der: bytes

    @property
    def due_at(self) -> datetime:
        """When it is to be renewed."""
        return self.not_after - RENEWED_BEFORE_END

    @property
    def key(self) -> EllipticCurvePublicKey:
        """The public key."""
        return _on_p256(x509.load_der_x509_certificate(self.der).public_key())

    @property
    def pem(self) -> str:
        """As files and replies carry it."""
        return x509.load_der_x509_certificate(self.der).public_bytes(Encoding.PEM).decode()


@lru_cache(maxsize=1024)
def read_certificate(der: bytes) -> AgentCertificate:
    """What `der` says. Raises ValueError where it is not the certificate of an agent."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("it names nobody") from None
    found = [
        match for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if (match := _URI.fullmatch(uri))
    ]
    if len(found) != 1:
        raise ValueError("it does not name one agent")
    return AgentCertificate(
        estate=found[0]["estate"],
        site=found[0]["site"],
        enrolled_at=int(found[0]["enrolled_at"]),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key_hash=key_hash(_on_p256(certificate.public_key())),
        der=der,
    )


def agent_uri(*, estate: str, site: str, enrolled_at: int) -> str:
    """The name of an identity, as its certificates carry it."""
    return f"distctl://{estate}/{site}/{enrolled_at}"


def make_key() -> EllipticCurvePrivateKey:
    """A new key on P-256."""
    return generate(SECP256R1())


def write_key(key: EllipticCurvePrivateKey) -> bytes:
    """PEM, unencrypted: whoever may read the file is the agent."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes) -> EllipticCurvePrivateKey:
    """The key that `write_key` wrote. Raises ValueError."""
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("it is not a key on an elliptic curve")
    return key


def key_hash(key: EllipticCurvePublicKey) -> bytes:
    """SHA-256 of the public key, by which an enrolment that is tried again is recognised."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def make_request(key: EllipticCurvePrivateKey) -> str:
    """A signing request that proves the key and says nothing else: the hub knows from the invitation whose it is. PEM."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def read_request(pem: str) -> EllipticCurvePublicKey:
    """The key of a signing request, proved by its signature. Raises `RejectedError`."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        if not request.is_signature_valid:
            raise ValueError("its signature is not that of its key")
        return _on_p256(request.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RejectedError(
            f"the certificate request is not usable: {error}",
            rule="a PKCS #10 request with a key on P-256, in PEM",
            hint="make it with `distctl agent enrol --hub URL --token TOKEN`",
            code="certificate-request",
        ) from None


def moment(at: datetime) -> str:
    """A moment as refusals name it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _on_p256(key: object) -> EllipticCurvePublicKey:
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != SECP256R1.name:
        raise ValueError("its key is not on P-256")
    return key
