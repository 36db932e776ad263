"""Bundles in the store: which one counts, which one is waited for, and which number comes next."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from state import bundles, estates
from state.bundles import Bundle, BundleState
from state.migrations import migrate, shipped
from state.model.estate import Estate, hash_of
from state.model.ids import EstateHash
from state.testing import NOON

FIRST, SECOND = EstateHash("11" * 16), EstateHash("22" * 16)
DOCUMENT = Estate.model_validate(
    {"settings": {"name": "acme", "environment": "test", "currency": "EUR"}, "sites": {}, "flows": {}}
).to_json()
HERE = hash_of(DOCUMENT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "distctl.db", isolation_level=None)
    migrate(connection, shipped(), now_ms=0, crash=lambda _: None)
    yield connection
    connection.close()


def issued(store: sqlite3.Connection, estate: EstateHash, *, above: int = 0) -> int | None:
    bundle = bundles.issue(store, estate, by="ada", now=NOON, above=above)
    return bundle.number if bundle else None


def came(number: int, estate: EstateHash = HERE) -> Bundle:
    return Bundle(
        number=number, estate=estate, adopted_by="ada", adopted_at=NOON, seal=b"sealed", state=BundleState.CAME
    )


def number_of(bundle: Bundle | None) -> int | None:
    return bundle.number if bundle else None


def test_a_hub_numbers_what_it_puts_in_force_and_the_same_again_is_no_news(store: sqlite3.Connection) -> None:
    assert [issued(store, one) for one in (FIRST, FIRST, SECOND, FIRST)] == [1, None, 2, 3]


def test_a_hub_that_was_put_back_goes_on_above_what_a_site_has(store: sqlite3.Connection) -> None:
    issued(store, FIRST)
    assert issued(store, FIRST, above=7) == 8
    assert issued(store, FIRST, above=7) is None


def test_what_came_is_wanted_until_its_estate_is_here_and_then_judged(store: sqlite3.Connection) -> None:
    assert bundles.receive(store, came(1))
    assert (bundles.wanted(store), bundles.to_judge(store)) == ({HERE}, None)
    estates.keep(store, HERE, DOCUMENT)
    assert (bundles.wanted(store), number_of(bundles.to_judge(store))) == (set(), 1)


def test_an_earlier_number_is_no_news_and_a_later_one_takes_the_place_of_what_nobody_judged(
    store: sqlite3.Connection,
) -> None:
    assert [bundles.receive(store, came(number)) for number in (3, 2, 3, 4)] == [True, False, False, True]
    assert store.execute("SELECT number FROM bundles").fetchall() == [(4,)]


def test_the_newest_on_trial_or_good_is_in_force(store: sqlite3.Connection) -> None:
    for number, state in ((1, BundleState.GOOD), (2, BundleState.GOOD), (3, BundleState.TRIAL), (4, BundleState.CAME)):
        bundles.receive(store, came(number))
        bundles.settle(store, came(number), state)
    assert number_of(bundles.in_force(store)) == 3
    assert number_of(bundles.in_force(store, below=3)) == 2
    bundles.settle(store, came(3), BundleState.REFUSED, reason="it crashed")
    assert number_of(bundles.in_force(store)) == 2
    assert number_of(bundles.to_judge(store)) is None, "its estate is not here"


def test_only_what_carries_a_seal_is_shown_to_a_hub(store: sqlite3.Connection) -> None:
    issued(store, FIRST)
    bundles.receive(store, came(2, SECOND))
    bundles.settle(store, came(2, SECOND), BundleState.REFUSED, reason="it crashed")
    bundles.receive(store, came(3, SECOND))
    assert [one.number for one in bundles.sealed(store, [FIRST, SECOND])] == [3]
