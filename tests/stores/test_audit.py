"""The audit: one transaction with the action, and a chain that tells where it was touched."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from state import audit
from state.audit import GENESIS, AuditEntry, AuditHead
from state.database import Database
from state.model.errors import InvariantError
from state.testing import temporary_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with temporary_database(tmp_path) as database:
        yield database


def entry(connection: sqlite3.Connection, number: int = 1) -> AuditEntry:
    return audit.append(
        connection,
        at_ms=1_000 * number,
        actor="ada" if number % 2 else "grace",
        action="replay",
        target=f"delivery {number}",
        reason="the ERP was down, é",
        before={"state": "parked", "value": "12.30"},
        after={"state": "waiting", "value": "12.30"},
        request_id=f"r{number}",
    )


async def written(database: Database, entries: int) -> AuditHead:
    for number in range(1, entries + 1):
        await database.write(lambda connection, number=number: entry(connection, number))  # type: ignore[misc]
    return await database.read(audit.head)


async def tampered(database: Database, sql: str) -> None:
    """What somebody with the file and a shell does: lift the triggers, then change the past."""

    def unit(connection: sqlite3.Connection) -> None:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(sql)

    await database.write(unit)


async def test_an_entry_comes_back_as_it_was_written(database: Database) -> None:
    made = await database.write(entry)
    assert made.seq == 1
    assert made.previous_hash == GENESIS.hash
    assert await database.read(lambda connection: audit.find(connection, 1)) == made
    assert await database.read(audit.head) == AuditHead(seq=1, hash=made.hash)


async def test_an_action_that_fails_leaves_no_entry_and_the_chain_goes_on(database: Database) -> None:
    def action(connection: sqlite3.Connection) -> None:
        entry(connection)
        raise ValueError("the action failed")

    answers = await asyncio.gather(
        database.write(entry), database.write(action), database.write(entry), return_exceptions=True
    )
    assert isinstance(answers[1], ValueError)
    assert await database.read(audit.verify) is None
    assert (await database.read(audit.head)).seq == 2


async def test_an_entry_that_cannot_be_written_fails_the_action(database: Database) -> None:
    def action(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counters (name, value) VALUES ('acted', 1)")
        audit.append(connection, at_ms=1, actor="", action="hold", target="lane x")

    with pytest.raises(InvariantError, match="actor"):
        await database.write(action)
    assert (
        await database.read(
            lambda connection: connection.execute("SELECT 1 FROM counters WHERE name = 'acted'").fetchone()
        )
        is None
    )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET actor = 'eve' WHERE seq = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 1",
        (
            "INSERT INTO audit SELECT 9, at_ms, actor, action, target, reason, NULL, NULL, '', '{}', previous_hash, hash "
            "FROM audit WHERE seq = 1"
        ),
    ],
)
async def test_the_store_refuses_to_change_the_past(database: Database, sql: str) -> None:
    await written(database, 3)
    with pytest.raises(InvariantError, match=r"append-only|continue the chain"):
        await database.write(lambda connection: connection.execute(sql))
    assert await database.read(audit.verify) is None


@pytest.mark.parametrize(
    "column", ["at_ms", "actor", "action", "target", "reason", "before_json", "after_json", "request_id"]
)
async def test_an_edited_entry_is_named_whatever_was_edited(database: Database, column: str) -> None:
    await written(database, 5)
    value = "7" if column == "at_ms" else "'{}'"
    await tampered(database, f"UPDATE audit SET {column} = {value} WHERE seq = 3")
    found = await database.read(audit.verify)
    assert found
    assert (found.seq, found.finding) == (3, "its content is not what was written")


@pytest.mark.parametrize(
    ("sql", "seq", "finding"),
    [
        ("DELETE FROM audit WHERE seq = 3", 3, "missing"),
        ("DELETE FROM audit WHERE seq = 1", 1, "missing"),
        ("DELETE FROM audit WHERE seq > 3", 4, "the end is missing: there were 5"),
        ("UPDATE audit SET seq = seq + 10 WHERE seq = 5", 5, "missing"),
        ("UPDATE audit SET previous_hash = zeroblob(32) WHERE seq = 4", 4, "does not continue"),
    ],
)
async def test_what_was_removed_or_moved_is_named(database: Database, sql: str, seq: int, finding: str) -> None:
    await written(database, 5)
    await tampered(database, sql)
    found = await database.read(audit.verify)
    assert found
    assert found.seq == seq
    assert finding in found.finding


async def test_a_past_that_was_rewritten_as_a_whole_shows_against_a_head_kept_elsewhere(
    tmp_path: Path, database: Database
) -> None:
    kept = await written(database, 5)
    (tmp_path / "forged").mkdir()
    async with temporary_database(tmp_path / "forged") as forged:
        for number in (2, 1, 3, 4, 5):
            await forged.write(lambda connection, number=number: entry(connection, number))  # type: ignore[misc]
        assert await forged.read(audit.verify) is None
        found = await forged.read(lambda connection: audit.verify(connection, kept))
    assert found
    assert found.seq == 5
    assert "rewritten" in found.finding


async def test_a_store_rolled_back_to_an_older_copy_shows_against_a_head_kept_elsewhere(database: Database) -> None:
    old = await written(database, 3)
    newer = AuditHead(seq=4, hash="ab" * 32)
    assert await database.read(lambda connection: audit.verify(connection, old)) is None
    found = await database.read(lambda connection: audit.verify(connection, newer))
    assert found
    assert (found.seq, found.finding) == (4, "the end is missing: there were 4 entries")


async def test_entries_are_found_by_what_is_given_newest_first_page_by_page(database: Database) -> None:
    await written(database, 6)

    async def seqs(**wanted: object) -> list[int]:
        found = await database.read(lambda connection: audit.entries(connection, **wanted))  # type: ignore[arg-type]
        return [one.seq for one in found]

    assert await seqs() == [6, 5, 4, 3, 2, 1]
    assert await seqs(actor="ada") == [5, 3, 1]
    assert await seqs(target="delivery 4") == [4]
    assert await seqs(target="delivery 4", actor="ada") == []
    assert await seqs(request_id="r2") == [2]
    assert await seqs(since_ms=2_000, until_ms=4_000) == [3, 2]
    assert await seqs(limit=2) == [6, 5]
    assert await seqs(limit=2, before_seq=5) == [4, 3]
    assert await seqs(action="discard") == []


async def test_somebody_is_found_by_their_name_however_they_came(database: Database) -> None:
    actors = ("ada", "ada/ci", "ada via hq", "ada/ci via hq", "adam", "ci")
    for number, actor in enumerate(actors):
        unit = partial(audit.append, at_ms=number, actor=actor, action="hold", target="lane x")
        await database.write(unit)

    async def found(actor: str) -> list[str]:
        entries = await database.read(partial(audit.entries, actor=actor))
        return [entry.actor for entry in reversed(entries)]

    assert await found("ada") == ["ada", "ada/ci", "ada via hq", "ada/ci via hq"]
    assert await found("ci") == ["ada/ci", "ada/ci via hq", "ci"]
    assert await found("hq") == []
