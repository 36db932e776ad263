"""Named SQL: the blocks of `state/sql/queries/*.sql`, read once and used by name.

A block begins at `-- :name claim_lane` and holds one statement::

    -- :name head
    -- The newest entry.
    SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1;

By convention a module keeps its own as `_SQL = load("audit")` and says `_SQL.head`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from state.model.errors import InvariantError

_HEADER = re.compile(r"^-- :name +([a-z][a-z0-9_]*) *$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The blocks of one file, by name: `queries.head` or `queries["head"]`."""

    def __init__(self, source: str, blocks: Mapping[str, str]) -> None:
        self._source = source
        self._blocks = dict(blocks)
        vars(self).update(self._blocks)  # found without a call: statements are named many times a second

    def __getitem__(self, name: str) -> str:
        try:
            return self._blocks[name]
        except KeyError:
            raise InvariantError(f"{self._source}.sql has no block named {name}") from None

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):  # what copy and pickle ask for is not SQL
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


@cache
def load(name: str) -> Queries:
    """The blocks of `state/sql/queries/<name>.sql`. Raises `InvariantError` if it is missing or not in order."""
    file = files("state") / "sql" / "queries" / f"{name}.sql"
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise InvariantError(f"there is no file of queries named {name}.sql") from None
    return Queries(name, parse(name, text))


def parse(source: str, text: str) -> dict[str, str]:
    """The blocks of `text` by name. Refuses two of one name, SQL before the first name, and half a statement."""
    lead, *parts = _HEADER.split(text)
    if not all(line.startswith("--") for line in lead.splitlines() if line.strip()):
        raise InvariantError(f"{source}.sql has SQL before its first `-- :name`")
    blocks: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in blocks:
            raise InvariantError(f"{source}.sql has two blocks named {name}")
        if not sqlite3.complete_statement(body):
            raise InvariantError(f"the block {name} of {source}.sql does not end its statement with a semicolon")
        blocks[name] = body.strip()
    return blocks
