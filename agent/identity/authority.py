"""The hub's own certificate authority, in the folder `ca` of its data: a key (0600) and a certificate for ten years.

It is made once, at the first start of a hub, as a folder that appears whole by a rename; from then on nothing here writes to it.
A copy of the folder is the escrow from which a lost hub is built again. Certificates end no later than the authority does.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.identity.certificates import (
    LIFETIME,
    AgentCertificate,
    agent_uri,
    make_key,
    moment,
    read_certificate,
    read_key,
    write_key,
)
from agent.identity.private_files import make_private_folder, read_private, write_private
from connectors.files.folder import sync_folder
from state.model.errors import ConfigError

_KEY: Final = "key.pem"
_CERTIFICATE: Final = "certificate.pem"
_LIFETIME: Final = timedelta(days=3653)
_BACKDATED: Final = timedelta(hours=1)
"""Certificates are valid from before they are made: a clock that is set back a little does not make them of the future."""

_RESTORE: Final = "Put the `ca` folder back from its copy: without that key every site must enrol again"
_ORGANISATION: Final = "distctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority whose key is here."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def open(cls, folder: Path, *, estate: str, known: bytes | None, now: datetime) -> Self:
        """The authority in `folder`; a new one for `estate` where there never was one.

        `known` is the fingerprint that the store remembers. Raises `ConfigError` where the folder is missing though there was
        one, where it is damaged, or where it is another authority's. Nothing is ever overwritten.
        """
        if not folder.exists():
            if known is not None:
                raise _unusable(folder, "the hub's authority is missing")
            _make(folder, estate, now)
        _make_durable(folder)
        authority = cls._load(folder)
        if known is not None and authority.fingerprint != known.hex():
            raise _unusable(
                folder,
                f"this is another authority ({authority.fingerprint[:16]}) than the one this hub has used ({known.hex()[:16]})",
            )
        return authority

    @classmethod
    def _load(cls, folder: Path) -> Self:
        key, certificate = read_private(folder / _KEY), read_private(folder / _CERTIFICATE)
        if key is None or certificate is None:
            raise _unusable(folder, f"the hub's authority lacks its {_KEY if key is None else _CERTIFICATE}")
        try:
            authority = cls(key=read_key(key), certificate=x509.load_pem_x509_certificate(certificate))
        except (ValueError, TypeError) as error:
            raise _unusable(folder, f"the hub's authority is damaged ({error})") from None
        if authority.key.public_key() != authority.certificate.public_key():
            raise _unusable(folder, f"the hub's authority is damaged: {_KEY} is not the key of {_CERTIFICATE}")
        return authority

    @property
    def estate(self) -> str:
        """The estate that it was made for."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, 64 hexadecimal digits: what invitations carry."""
        return self.certificate.fingerprint(SHA256()).hex()

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def not_after(self) -> datetime:
        """When it ends, and every certificate with it."""
        return self.certificate.not_valid_after_utc

    def certify_agent(
        self, key: EllipticCurvePublicKey, *, site: str, enrolled_at: int, now: datetime
    ) -> AgentCertificate:
        """A certificate for the agent of `site` that enrolled at that moment. Raises `ConfigError` where the authority ended."""
        uri = agent_uri(estate=self.estate, site=site, enrolled_at=enrolled_at)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        issued = self._issue(key, site, names, ExtendedKeyUsageOID.CLIENT_AUTH, now)
        return read_certificate(issued.public_bytes(Encoding.DER))

    def certify_listener(self, key: EllipticCurvePublicKey, *, host: str, now: datetime) -> x509.Certificate:
        """A certificate for the hub's listener at `host`, a DNS name or an address. Raises `ConfigError` as above."""
        return self._issue(key, host, [general_name(host)], ExtendedKeyUsageOID.SERVER_AUTH, now)

    def _issue(
        self,
        key: EllipticCurvePublicKey,
        name: str,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        now: datetime,
    ) -> x509.Certificate:
        if now >= self.not_after:
            raise ConfigError(
                f"the hub's authority ended at {moment(self.not_after)}, this machine's clock says {moment(now)}",
                hint="where the clock is right, a new authority must be made and every site enrolled again",
                code="authority-expired",
            )
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name[:64]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(min(now + LIFETIME, self.not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self.key, SHA256())
        )


def general_name(host: str) -> x509.GeneralName:
    """`host` as a certificate carries it."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def fingerprint_of(pem: str) -> str:
    """SHA-256 of the certificate in `pem`, hexadecimal. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(SHA256()).hex()


def _make(folder: Path, estate: str, now: datetime) -> None:
    key = make_key()
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a start that was killed: nobody has seen it
    make_private_folder(unfinished)
    write_private(unfinished / _KEY, write_key(key))
    write_private(unfinished / _CERTIFICATE, _self_signed(key, estate, now).public_bytes(Encoding.PEM))
    try:
        unfinished.rename(folder)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}", code="authority") from error


def _make_durable(folder: Path) -> None:
    """Before anything is certified by it; also where the start that made it was killed before this."""
    try:
        sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"cannot bring {folder} onto the disk: {error.strerror}", code="authority") from error


def _self_signed(key: EllipticCurvePrivateKey, estate: str, now: datetime) -> x509.Certificate:
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(estate))
        .issuer_name(_name(estate))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(own, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        .sign(key, SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _unusable(folder: Path, what: str) -> ConfigError:
    return ConfigError(what, file=str(folder), hint=_RESTORE, code="authority")
