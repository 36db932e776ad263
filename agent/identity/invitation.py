"""The text of an invitation: what a person carries from the hub to a site, and all that the site trusts before it has any trust.

`distctl-inv-1.<site>.<secret>.<fingerprint>`: the secret is good for one enrolment; the fingerprint is the SHA-256 of the
hub's authority, by which the site knows that it talks to that hub and to nobody in between.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from state.model.errors import DeniedError
from state.model.estate import NAME_PATTERN

_VERSION: Final = "distctl-inv-1"
_SITE: Final = NAME_PATTERN.strip("^$")
_TEXT: Final = re.compile(
    rf"{_VERSION}\.(?P<site>{_SITE})\.(?P<secret>[\w-]{{32}})\.(?P<fingerprint>[0-9a-f]{{64}})", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A read invitation. `str` gives its text."""

    site: str
    secret: str = field(repr=False)
    fingerprint: str

    @classmethod
    def make(cls, site: str, fingerprint: str) -> Self:
        """A new one, with 192 bits that nobody can guess."""
        return cls(site=site, secret=secrets.token_urlsafe(24), fingerprint=fingerprint)

    @classmethod
    def read(cls, text: str) -> Self:
        """The invitation in `text`; blanks and line breaks from copying are dropped. Raises `DeniedError`."""
        found = _TEXT.fullmatch("".join(text.split()))
        if found is None:
            raise DeniedError(
                "this is no whole invitation",
                hint=f"copy all of it, from {_VERSION} on, as `distctl agents invite SITE` at the hub has shown it",
                code="token-malformed",
            )
        return cls(**found.groupdict())

    @property
    def secret_hash(self) -> bytes:
        """What the hub keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def __str__(self) -> str:
        return f"{_VERSION}.{self.site}.{self.secret}.{self.fingerprint}"
