"""Named SQL: every block is in order, fits the schema, and is used by the code that loads it."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest

from state.model.errors import InvariantError
from state.queries import load, parse
from state.testing import temporary_database

STATE = Path(str(files("state")))
SOURCES = sorted(file.stem for file in (STATE / "sql" / "queries").glob("*.sql"))
LOADED = re.compile(r'^(\w+)(?:: Final)? = load\("(\w+)"\)', re.MULTILINE)


def used(code: str, constant: str) -> set[str]:
    return set(re.findall(rf'\b{constant}(?:\.|\[")([a-z]\w*)', code))


def uses() -> dict[str, set[str]]:
    """The names that the code asks of each file of queries."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in STATE.glob("*.py"):
        code = module.read_text()
        for constant, source in LOADED.findall(code):
            found[source] |= used(code, constant)
    return found


def test_every_file_of_queries_is_loaded_by_a_module() -> None:
    assert sorted(uses()) == SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_every_block_is_used_and_none_is_missing(source: str) -> None:
    assert uses()[source] == set(load(source))


@pytest.mark.parametrize("source", SOURCES)
async def test_every_block_fits_the_schema(source: str, tmp_path: Path) -> None:
    async with temporary_database(tmp_path) as database:
        for sql in load(source).values():
            assert await database.read(partial(plan, sql))


def plan(sql: str, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """What SQLite makes of a block, with NULL for each of its parameters."""
    places = re.findall(r"\?(\d*)", re.sub(r"--[^\n]*|'[^']*'", "", sql))
    count = max((int(place) for place in places if place), default=len(places))
    parameters = [None] * count if count else defaultdict[str, None](lambda: None)
    return connection.execute(f"EXPLAIN {sql}", parameters).fetchall()


def test_a_block_is_asked_for_by_name_and_a_missing_one_is_named() -> None:
    queries = load("audit")
    assert queries.head == queries["head"]
    with pytest.raises(InvariantError, match=r"audit\.sql has no block named heat"):
        _ = queries.heat
    with pytest.raises(InvariantError, match=r"no file of queries named nothing\.sql"):
        load("nothing")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-- :name a\nSELECT 1;\n-- :name a\nSELECT 2;\n", "two blocks named a"),
        ("SELECT 1;\n-- :name a\nSELECT 2;\n", "before its first"),
        ("-- :name a\nSELECT 1\n", "semicolon"),
        ("-- :name a\n-- :name b\nSELECT 1;\n", "the block a"),
    ],
)
def test_a_file_that_is_not_in_order_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvariantError, match=told):
        parse("mine", text)
