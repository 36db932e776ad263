"""TLS between a site and its hub: 1.2 at least, 1.3 where both can, and on each side one authority that is trusted: the hub's.

OpenSSL checks that a certificate is of that authority, for that use and for that name, and that its owner has the key. It does
not check the time: that is ours on both sides, by the agent's own clock, so that an expired agent can still renew and a
site whose clock is wrong is told both times.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.identity.certificates import moment
from state.model.errors import ConfigError

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (X509_VERIFY_PARAM_set_flags(3)), which Python has no name for."""


class WrongTimeError(ssl.SSLError):
    """The hub's certificate is not valid now. `reason_code` is `hub-certificate-expired` or `hub-certificate-not-yet-valid`."""

    def __init__(self, message: str, reason_code: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason_code = reason_code


def server_context(credentials: Path, authority: str, *, on_distrust: Callable[[str], None]) -> ssl.SSLContext:
    """For the hub's listener: asks for a certificate and goes on without one; refuses one that is not of `authority` (PEM).

    `on_distrust` is called with OpenSSL's reason when it refuses one. Raises `ConfigError` where `credentials` are unusable.
    """

    class Accepting(ssl.SSLObject):
        _failure: ssl.SSLError | None = None

        def do_handshake(self) -> None:
            if self._failure is not None:
                raise self._failure
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                if isinstance(error, ssl.SSLCertVerificationError):
                    on_distrust(error.verify_message)
                # asyncio sends what OpenSSL has to say only where more is to come: this way the alert goes out, and the peer
                # learns why before the line is cut.
                self._failure = error
                raise ssl.SSLWantReadError from error

    context = _context(ssl.PROTOCOL_TLS_SERVER, authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # every connection shows its certificate anew
    context.options |= ssl.OP_NO_TICKET
    context.sslobject_class = Accepting
    load_credentials(context, credentials)
    return context


def client_context(authority: str, *, now: Callable[[], datetime], credentials: Path | None = None) -> ssl.SSLContext:
    """For a site: believes `authority` (PEM) only, and the hub's certificate only while it is valid by `now`.

    Raises `ConfigError` where `credentials` are unusable.
    """

    class Dialling(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            _check_time(self, now())

    context = _context(ssl.PROTOCOL_TLS_CLIENT, authority)
    context.sslobject_class = Dialling
    if credentials is not None:
        load_credentials(context, credentials)
    return context


def blind_context() -> ssl.SSLContext:
    """For the one question of a site that has no trust yet: what is your authority? Only a fingerprint makes the answer true."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def load_credentials(context: ssl.SSLContext, path: Path) -> None:
    """Show what `path` holds, key and certificate, from the next connection on. Raises `ConfigError`."""
    try:
        context.load_cert_chain(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the key and certificate in {path} cannot be used ({error})",
            file=str(path),
            hint="a site enrols again; the hub's listener makes them anew when the file is removed",
            code="credentials",
        ) from None


def _context(protocol: int, authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME) | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=authority)
    return context


def _check_time(connection: ssl.SSLObject, now: datetime) -> None:
    certificate = connection.getpeercert() or {}
    first, last = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate[end])), UTC)
        for end in ("notBefore", "notAfter")
    )
    if now < first:
        raise WrongTimeError(
            f"the hub's certificate is not valid before {moment(first)}, and this machine's clock says {moment(now)}",
            "hub-certificate-not-yet-valid",
        )
    if now >= last:
        raise WrongTimeError(
            f"the hub's certificate expired at {moment(last)}, and this machine's clock says {moment(now)}",
            "hub-certificate-expired",
        )
