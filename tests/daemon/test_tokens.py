"""Tokens: made once, shown once, kept as a hash, never more than their person, and ended for good."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from agent.control.issuing import TokenOffice
from state import audit, tokens
from state.database import Database
from state.model.clock import to_millis
from state.model.errors import ConfigError, ConflictError, DistctlError, NotFoundError
from state.model.estate import Estate
from state.model.people import Role, TokenWish
from state.testing import NOON, FrozenClock, temporary_database

ESTATE = Estate.model_validate(
    {
        "settings": {
            "name": "acme",
            "environment": "test",
            "currency": "EUR",
            "people": {
                "ada": {"name": "Ada", "roles": [{"role": "operator", "sites": ["north"]}, {"role": "viewer"}]},
                "bo": {"name": "Bo", "roles": [{"role": "operator", "sites": ["north"]}, {"role": "operator"}]},
            },
        },
        "sites": {name: {"site": name, "systems": {"erp": {"connector": "http"}}} for name in ("north", "south")},
        "flows": {},
    }
)
NOBODYS = Estate.model_validate(
    {**ESTATE.model_dump(), "settings": {"name": "a", "environment": "test", "currency": "EUR"}}
)


def a_wish(
    name: str = "ci",
    *,
    person: str = "ada",
    roles: frozenset[Role] = frozenset({Role.OPERATOR}),
    sites: frozenset[str] | None = frozenset({"north"}),
    lasts: timedelta = timedelta(days=90),
) -> TokenWish:
    return TokenWish(name=name, person=person, roles=roles, sites=sites, lasts=lasts)


def counting() -> Callable[[int], bytes]:
    """Randomness of which a test knows what it is."""
    given = 0

    def entropy(size: int) -> bytes:
        nonlocal given
        given += 1
        return bytes([given]) * size

    return entropy


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with temporary_database(tmp_path) as database:
        yield database


@pytest.fixture
def office(database: Database) -> TokenOffice:
    return TokenOffice(database, FrozenClock(), counting())


def test_a_token_is_256_random_bits_behind_a_name_that_scanners_find() -> None:
    text = tokens.write_token(bytes(range(32)))
    assert text == "distctl_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert tokens.is_token(text)
    with pytest.raises(ValueError, match="32 random bytes"):
        tokens.write_token(bytes(16))


@pytest.mark.parametrize("entropy", [b"\xff" * 32, b"\x00" * 32, b"\xfb\xef\xbe" * 10 + b"\xfb\xef"])
def test_every_token_that_is_written_is_one(entropy: bytes) -> None:
    assert tokens.is_token(tokens.write_token(entropy))


async def test_a_token_is_kept_as_its_hash_and_nowhere_as_itself(office: TokenOffice, database: Database) -> None:
    text, token = await office.create(a_wish(), ESTATE, by="root")
    assert await database.read(partial(tokens.find, text=text)) == token
    with closing(sqlite3.connect(f"{database.path.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT hash FROM tokens").fetchone() == (hashlib.sha256(text.encode()).digest(),)
        assert text not in "\n".join(connection.iterdump())
    assert text.removeprefix("distctl_") not in repr(token)


async def test_making_and_ending_one_is_audited(office: TokenOffice, database: Database) -> None:
    await office.create(a_wish(), ESTATE, by="root")
    await office.revoke("ci", by="ada", reason="it leaked")
    ended, made = await database.read(audit.entries)
    about = {
        "person": "ada",
        "roles": ["operator"],
        "sites": ["north"],
        "expires_at": to_millis(NOON + timedelta(days=90)),
    }
    assert (made.actor, made.action, made.target, made.after) == ("root", "create", "token ci", about)
    assert (ended.actor, ended.action, ended.target, ended.before) == ("ada", "revoke", "token ci", about)
    assert ended.reason == "it leaked"


@pytest.mark.parametrize(
    ("wish", "kind", "told", "hint"),
    [
        (a_wish(person="adda"), NotFoundError, "the estate names no person 'adda'", "did you mean ada?"),
        (a_wish(sites=frozenset({"nort"})), NotFoundError, "there is no site 'nort'", "did you mean north?"),
        (
            a_wish(roles=frozenset({Role.ADMIN})),
            ConfigError,
            "ada is no admin at north",
            "operator at north; viewer at",
        ),
        (
            a_wish(sites=frozenset({"north", "south"})),
            ConfigError,
            "ada is no operator at north and south",
            "never more",
        ),
        (a_wish(sites=None), ConfigError, "ada is no operator at every site", "never more than its person"),
        (a_wish(lasts=timedelta(days=365, seconds=1)), ConfigError, "no token holds for so long", "365 days at most"),
        (a_wish(lasts=timedelta(seconds=59)), ConfigError, "that is no time", "a minute at least"),
        (a_wish(lasts=timedelta(0)), ConfigError, "that is no time", "a minute at least"),
        (a_wish("CI"), ConfigError, "'CI' cannot be a token's name", "lower-case"),
        (a_wish("a/b"), ConfigError, "'a/b' cannot be a token's name", "lower-case"),
        (a_wish("ci\n"), ConfigError, "'ci␊' cannot be a token's name", "lower-case"),
        (a_wish(""), ConfigError, "'' cannot be a token's name", "lower-case"),
    ],
)
async def test_a_wish_that_cannot_be_is_refused_and_leaves_nothing(
    office: TokenOffice, database: Database, wish: TokenWish, kind: type[DistctlError], told: str, hint: str
) -> None:
    with pytest.raises(kind) as refused:
        await office.create(wish, ESTATE, by="root")
    assert refused.value.message == told
    assert hint in refused.value.hint
    assert await office.list(before=2**62, limit=10, with_revoked=True) == []
    assert await database.read(audit.entries) == []


async def test_an_estate_without_people_has_nobody_to_make_one_for(office: TokenOffice) -> None:
    with pytest.raises(NotFoundError, match=r"declare `people` in estate\.yaml first"):
        await office.create(a_wish(), NOBODYS, by="root")


async def test_a_person_may_have_one_for_a_year_and_everywhere(office: TokenOffice) -> None:
    wish = a_wish(person="bo", sites=None, lasts=timedelta(days=365))
    _, token = await office.create(wish, ESTATE, by="root")
    assert (token.sites, token.expires_at) == (None, to_millis(NOON + timedelta(days=365)))


async def test_a_name_is_taken_until_its_token_is_revoked(office: TokenOffice) -> None:
    first, _ = await office.create(a_wish(), ESTATE, by="root")
    with pytest.raises(ConflictError, match="there is a token ci"):
        await office.create(a_wish(), ESTATE, by="root")
    await office.revoke("ci", by="root", reason="rotated")
    second, _ = await office.create(a_wish(), ESTATE, by="root")
    assert first != second
    newest, oldest = await office.list(before=2**62, limit=10, with_revoked=True)
    assert (newest.revoked_at, oldest.revoke_reason) == (None, "rotated")
    assert await office.list(before=2**62, limit=10, with_revoked=False) == [newest]
    assert await office.list(before=newest.id, limit=10, with_revoked=True) == [oldest]


async def test_what_was_revoked_stays_so(office: TokenOffice, database: Database) -> None:
    text, _ = await office.create(a_wish(), ESTATE, by="root")
    await office.revoke("ci", by="root", reason="it leaked")
    for name in ("ci", "never", "ci' OR 1=1 --"):
        with pytest.raises(NotFoundError, match="to revoke"):
            await office.revoke(name, by="ada", reason="again")
    token = await database.read(partial(tokens.find, text=text))
    assert token is not None
    assert (token.revoked_by, token.revoke_reason, token.state(to_millis(NOON))) == ("root", "it leaked", "revoked")


async def test_a_token_says_how_it_stands(office: TokenOffice) -> None:
    _, token = await office.create(a_wish(lasts=timedelta(hours=1)), ESTATE, by="root")
    assert token.state(to_millis(NOON + timedelta(hours=1)) - 1) == "valid"
    assert token.state(to_millis(NOON + timedelta(hours=1))) == "expired"
    assert token.scope.issued_by == "root"


async def test_of_uses_at_the_same_moment_the_first_is_kept(office: TokenOffice, database: Database) -> None:
    text, token = await office.create(a_wish(), ESTATE, by="root")
    now = to_millis(NOON)
    for used, kept in ((now, now), (now + 59_999, now), (now - 5_000, now), (now + 60_000, now + 60_000)):
        await database.write(partial(tokens.note_use, token=token.id, now=used))
        found = await database.read(partial(tokens.find, text=text))
        assert found is not None
        assert found.last_used_at == kept


async def test_the_store_keeps_no_token_for_longer_than_a_year(database: Database) -> None:
    def cheat(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO tokens (name, hash, person, roles, created_at, created_by, expires_at)"
            " VALUES ('x', zeroblob(32), 'ada', '[]', 0, 'root', 31536000001)"
        )

    with pytest.raises(DistctlError, match="CHECK"):
        await database.write(cheat)
