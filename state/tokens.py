"""Tokens of remote people and of CI: made once, shown once, kept as a hash.

A token is `distctl_` and 256 random bits, so its plain SHA-256 is enough: a slow hash is for secrets that people choose and that
can be searched. It is found by that hash, which nobody can steer letter by letter, so a look-up tells nothing by its time.
What a token may do is not kept here alone: its person has to have it too, in the estate that is in force when it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from base64 import urlsafe_b64encode
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from state.model.errors import ConflictError, NotFoundError
from state.model.people import Role, Scope
from state.queries import load

ENTROPY_BYTES: Final = 32
LONGEST_DAYS: Final = 365
USE_NOTED_EVERY_MS: Final = 60_000
"""The last use of a token is written at most this often."""

_HEAD: Final = "distctl_"
_FORM: Final = re.compile(rf"{_HEAD}[A-Za-z0-9_-]{{43}}", re.ASCII)
_SQL = load("tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """What is kept of a token that is being made. Times are in milliseconds since 1970, UTC; `sites` None is every site."""

    name: str
    hash: bytes
    person: str
    roles: frozenset[Role]
    sites: frozenset[str] | None
    created_at: int
    created_by: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it stands, without its hash."""

    id: int
    name: str
    person: str
    roles: frozenset[Role]
    sites: frozenset[str] | None
    created_at: int
    created_by: str
    expires_at: int
    last_used_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    revoke_reason: str | None

    @property
    def scope(self) -> Scope:
        """What it was made for."""
        return Scope(token=self.name, roles=self.roles, sites=self.sites, issued_by=self.created_by)

    def state(self, now: int) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"

    def is_use_worth_noting(self, now: int) -> bool:
        """Whether its last use was written long enough ago."""
        return self.last_used_at is None or self.last_used_at <= now - USE_NOTED_EVERY_MS


def write_token(entropy: bytes) -> str:
    """The text of a token from `ENTROPY_BYTES` random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a token needs {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    return _HEAD + urlsafe_b64encode(entropy).rstrip(b"=").decode("ascii")


def is_token(text: str) -> bool:
    """Whether `text` has the form of a token."""
    return _FORM.fullmatch(text) is not None


def hash_of(text: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(text.encode("ascii")).digest()


def add(connection: sqlite3.Connection, token: NewToken) -> Token:
    """Keep a new token and return it. Raises `ConflictError` where one of its name was not revoked."""
    row = {
        "name": token.name,
        "hash": token.hash,
        "person": token.person,
        "roles": _list(token.roles),
        "sites": None if token.sites is None else _list(token.sites),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
    }
    added = _token(connection.execute(_SQL.add, row).fetchone())
    if added is None:
        end = f"`distctl token revoke {token.name} --reason ...`"
        hint = f"choose another name, or first {end}; one that ran out keeps its name too"
        raise ConflictError(f"there is a token {token.name}", hint=hint, code="token-name")
    return added


def find(connection: sqlite3.Connection, text: str) -> Token | None:
    """The token of that text, whether or not it still holds."""
    return _token(connection.execute(_SQL.find, (hash_of(text),)).fetchone())


def list_tokens(connection: sqlite3.Connection, *, before: int, limit: int, with_revoked: bool = False) -> list[Token]:
    """Tokens with an id below `before`, newest first; those that ran out too."""
    wanted = {"before": before, "limit": limit, "with_revoked": with_revoked}
    return [token for row in connection.execute(_SQL.list, wanted) if (token := _token(row))]


def note_use(connection: sqlite3.Connection, token: int, *, now: int) -> None:
    """Write that it was used, unless that was written within the last minute."""
    connection.execute(_SQL.note_use, {"id": token, "now": now, "every": USE_NOTED_EVERY_MS})


def find_held(connection: sqlite3.Connection, name: str) -> Token | None:
    """The token of that name that was not revoked."""
    return _token(connection.execute(_SQL.find_not_revoked, (name,)).fetchone())


def revoke(connection: sqlite3.Connection, name: str, *, by: str, reason: str, now: int) -> Token:
    """End the token of that name for good; returns it as it was. Raises `NotFoundError`."""
    token = find_held(connection, name)
    if token is None:
        hint = "`distctl token list` has those that hold; one that was revoked stays so"
        raise NotFoundError(f"there is no token {name} to revoke", hint=hint, code="no-token")
    connection.execute(_SQL.revoke, (now, by, reason, token.id))
    return token


def _list(values: Collection[str]) -> str:
    return json.dumps(sorted(values))


def _token(row: Any) -> Token | None:
    if row is None:
        return None
    identifier, name, person, roles, sites, *rest = row
    created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason = rest
    return Token(
        id=identifier,
        name=name,
        person=person,
        roles=frozenset(Role(role) for role in json.loads(roles)),
        sites=None if sites is None else frozenset(json.loads(sites)),
        created_at=created_at,
        created_by=created_by,
        expires_at=expires_at,
        last_used_at=last_used_at,
        revoked_at=revoked_at,
        revoked_by=revoked_by,
        revoke_reason=revoke_reason,
    )
