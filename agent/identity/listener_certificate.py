"""The certificate of the hub's listener: one file with key, certificate and authority, made anew in good time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from agent.identity.authority import Authority, general_name
from agent.identity.certificates import RENEWED_BEFORE_END, make_key, read_key, write_key
from agent.identity.private_files import read_private, write_private


def keep_listener_certificate(path: Path, authority: Authority, *, host: str, now: datetime) -> bool:
    """See that `path` holds a certificate for `host` that is good for a while; answers whether it was made anew.

    A file that is damaged, of another authority or for another host is replaced: nothing depends on its key. Raises
    `ConfigError` where it cannot be written or the authority has ended.
    """
    if _is_good(read_private(path), authority, host, now):
        return False
    key = make_key()
    certificate = authority.certify_listener(key.public_key(), host=host, now=now)
    write_private(path, write_key(key) + certificate.public_bytes(Encoding.PEM) + authority.pem.encode())
    return True


def _is_good(content: bytes | None, authority: Authority, host: str, now: datetime) -> bool:
    if content is None:
        return False
    try:
        key, certificate = read_key(content), x509.load_pem_x509_certificate(content)
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    is_timely = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEWED_BEFORE_END
    return is_timely and general_name(host) in names and key.public_key() == certificate.public_key()
