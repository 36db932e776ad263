"""What looks like a secret in a file: it is complained of, and never shown."""

from __future__ import annotations

import re

_NAME = re.compile(
    r"(^|[_-])(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|credentials?|cookie)$",
    re.IGNORECASE,
)
_HARMLESS_NAME = re.compile(r"(^|[_-])(next|page|continuation|cursor|sync)[_-]token$", re.IGNORECASE)
_REFERENCE = re.compile(r"(env|file|credential):.+")
_ADDRESS_WITH_PASSWORD = re.compile(r"^[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)


def is_literal_secret(name: str, value: object) -> bool:
    """Whether `value` is the secret itself: by the name of its key, or an address with a password in it."""
    if not isinstance(value, str):
        return False
    if _ADDRESS_WITH_PASSWORD.match(value):
        return True
    looks_so = _NAME.search(name) is not None and _HARMLESS_NAME.search(name) is None
    return looks_so and not _REFERENCE.fullmatch(value)
