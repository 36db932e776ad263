"""Making, listing and ending tokens: what `distctl token` asks for. Whether the caller may is decided before, by the gate."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final

from state import audit, tokens
from state.database import Database
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, NotFoundError
from state.model.estate import NAME_PATTERN, Estate
from state.model.people import TokenWish
from state.model.suggestion import suggestion
from state.model.visible import shown
from state.tokens import NewToken, Token

LONGEST: Final = timedelta(days=tokens.LONGEST_DAYS)


class TokenOffice:
    """The tokens of one agent. Each change and its audit entry are one transaction."""

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        """`entropy(n)` answers `n` random bytes fit for secrets."""
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def create(self, wish: TokenWish, estate: Estate, *, by: str) -> tuple[str, Token]:
        """The text of a new token, which is kept nowhere, and the token.

        Raises `NotFoundError` for a person or a site that the estate does not name, `ConfigError` for more than the person has, a
        time that is too long or a name that is none, `ConflictError` where the name is taken.
        """
        _refuse_misnamed(wish.name)
        _refuse_unknown(wish, estate)
        _refuse_more_than_held(wish, estate)
        _refuse_too_long(wish.lasts)
        now = self._clock.now()
        text = tokens.write_token(self._entropy(tokens.ENTROPY_BYTES))
        new = NewToken(
            name=wish.name,
            hash=tokens.hash_of(text),
            person=wish.person,
            roles=wish.roles,
            sites=wish.sites,
            created_at=to_millis(now),
            created_by=by,
            expires_at=to_millis(now + wish.lasts),
        )
        return text, await self._database.write(partial(_create, new), name="control.create_token")

    async def revoke(self, name: str, *, by: str, reason: str) -> None:
        """End a token now. Raises `NotFoundError`."""
        now = to_millis(self._clock.now())
        unit = partial(_revoke, name, by=by, reason=reason, now=now)
        await self._database.write(unit, name="control.revoke_token")

    async def list(self, *, before: int, limit: int, with_revoked: bool) -> list[Token]:
        """Tokens with an id below `before`, newest first."""
        query = partial(tokens.list_tokens, before=before, limit=limit, with_revoked=with_revoked)
        return await self._database.read(query)


def _create(new: NewToken, connection: sqlite3.Connection) -> Token:
    token = tokens.add(connection, new)
    audit.append(
        connection,
        at_ms=new.created_at,
        actor=new.created_by,
        action="create",
        target=f"token {new.name}",
        after=_noted(token),
    )
    return token


def _revoke(name: str, connection: sqlite3.Connection, *, by: str, reason: str, now: int) -> None:
    token = tokens.revoke(connection, name, by=by, reason=reason, now=now)
    audit.append(
        connection, at_ms=now, actor=by, action="revoke", target=f"token {name}", reason=reason, before=_noted(token)
    )


def _noted(token: Token) -> dict[str, Any]:
    """What the audit keeps of a token."""
    return {
        "person": token.person,
        "roles": sorted(token.roles),
        "sites": None if token.sites is None else sorted(token.sites),
        "expires_at": token.expires_at,
    }


def _refuse_misnamed(name: str) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None:
        hint = "a name is lower-case letters, digits and inner hyphens, at most 48"
        raise ConfigError(f"{shown(name)} cannot be a token's name", hint=hint, code="bad-name")


def _refuse_unknown(wish: TokenWish, estate: Estate) -> None:
    people = estate.settings.people
    if wish.person not in people:
        hint = suggestion(wish.person, people) or "it has none: declare `people` in estate.yaml first"
        raise NotFoundError(f"the estate names no person {shown(wish.person)}", hint=hint, code="no-person")
    for site in sorted((wish.sites or frozenset()) - set(estate.sites)):
        raise NotFoundError(f"there is no site {shown(site)}", hint=suggestion(site, estate.sites), code="no-site")


def _refuse_more_than_held(wish: TokenWish, estate: Estate) -> None:
    person = estate.settings.people[wish.person].person(wish.person)
    for role in sorted(wish.roles):
        if not person.holds(role, wish.sites):
            where = "every site" if wish.sites is None else " and ".join(sorted(wish.sites))
            held = "; ".join(_held(estate, wish.person))
            hint = f"a token is never more than its person: {held}"
            raise ConfigError(f"{wish.person} is no {role} at {where}", hint=hint, code="role-not-held")


def _held(estate: Estate, person: str) -> Iterator[str]:
    for grant in estate.settings.people[person].roles:
        yield f"{grant.role} at {'every site' if grant.sites is None else ', '.join(grant.sites)}"


def _refuse_too_long(lasts: timedelta) -> None:
    if not timedelta(minutes=1) <= lasts <= LONGEST:
        hint = f"a token holds for a minute at least and {LONGEST.days} days at most"
        raise ConfigError(
            "no token holds for so long" if lasts > LONGEST else "that is no time", hint=hint, code="expiry"
        )
