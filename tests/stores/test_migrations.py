"""Migrations: all or nothing, forward only, and the same schema however one got there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from state.database import Database
from state.migrations import Migration, read_folder, shipped, statements
from state.model.clock import to_millis
from state.model.errors import ConfigError, InvariantError
from state.testing import NOON

FIRST = Migration(version=1, name="things", sql="CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT) STRICT;")
SECOND = Migration(
    version=2,
    name="log",
    sql="""
    -- A comment; with a semicolon.
    CREATE TABLE log (text TEXT NOT NULL) STRICT;
    CREATE TRIGGER things_logged AFTER INSERT ON things
    BEGIN
      INSERT INTO log VALUES ('one; ' || NEW.name);
      INSERT INTO log VALUES ('two');
    END;
    INSERT INTO things (name) VALUES ('a;b');
    -- The end.
    """,
)


async def schema(path: Path, *stages: Sequence[Migration]) -> list[tuple[str, str, str]]:
    """The schema after the store was opened with each of `stages` in turn."""
    found: list[tuple[str, str, str]] = []
    for steps in stages:
        async with await Database.open(path, now=NOON, migrations=steps) as database:
            found = await database.read(
                lambda connection: connection.execute(
                    "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
                ).fetchall()
            )
    return found


async def rows(path: Path, sql: str, steps: Sequence[Migration]) -> list[tuple[object, ...]]:
    async with await Database.open(path, now=NOON, migrations=steps) as database:
        return await database.read(lambda connection: connection.execute(sql).fetchall())


async def test_migrated_is_fresh(tmp_path: Path) -> None:
    steps = shipped()
    stepwise = [steps[: n + 1] for n in range(len(steps))]
    assert await schema(tmp_path / "migrated.db", *stepwise) == await schema(tmp_path / "fresh.db", steps)
    migrated = await schema(tmp_path / "a.db", [FIRST], [FIRST, SECOND])
    assert migrated == await schema(tmp_path / "b.db", [FIRST, SECOND])


async def test_a_step_is_recorded_with_its_hash_and_time_and_applied_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await schema(path, [FIRST, SECOND], [FIRST, SECOND], [FIRST, SECOND])
    assert await rows(path, "SELECT * FROM migrations", [FIRST, SECOND]) == [
        (1, "things", FIRST.sha256, to_millis(NOON)),
        (2, "log", SECOND.sha256, to_millis(NOON)),
    ]
    assert await rows(path, "SELECT text FROM log", [FIRST, SECOND]) == [("one; a;b",), ("two",)]


async def test_a_step_that_fails_half_way_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    broken = Migration(version=2, name="broken", sql="CREATE TABLE more (x) ; INSERT INTO nowhere VALUES (1);")
    before = await schema(path, [FIRST])
    with pytest.raises(InvariantError, match="nowhere"):
        await schema(path, [FIRST, broken])
    assert await schema(path, [FIRST]) == before
    await schema(path, [FIRST, SECOND])


async def test_an_applied_step_that_was_changed_is_refused(tmp_path: Path) -> None:
    await schema(tmp_path / "a.db", [FIRST])
    changed = Migration(version=1, name="things", sql=FIRST.sql + " -- corrected")
    with pytest.raises(ConfigError, match=r"0001.*is not the one") as refused:
        await schema(tmp_path / "a.db", [changed])
    assert refused.value.hint


async def test_a_store_newer_than_the_code_is_refused(tmp_path: Path) -> None:
    await schema(tmp_path / "a.db", [FIRST, SECOND])
    with pytest.raises(ConfigError, match=r"newer distctl: it is at step 2.*knows 1.*Install the newer"):
        await schema(tmp_path / "a.db", [FIRST])


async def test_somebody_elses_database_is_refused_and_kept_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as theirs:
        theirs.execute("CREATE TABLE customers (id)")
    theirs.close()
    with pytest.raises(ConfigError, match="not a distctl store"):
        await schema(tmp_path / "a.db", [FIRST])
    with sqlite3.connect(tmp_path / "a.db") as theirs:
        assert theirs.execute("SELECT name FROM sqlite_schema").fetchall() == [("customers",)]
    theirs.close()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from state.database import Database
from state.migrations import read_folder
from state.testing import NOON

def crash(point, passed=[]):
    passed.append(point)
    if passed.count(sys.argv[3]) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(Database.open(Path(sys.argv[1]), now=NOON, migrations=read_folder(Path(sys.argv[2])), crash=crash))
"""


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("point", ["migration.before_commit", "migration.after_commit"])
async def test_a_process_killed_while_it_migrates_goes_on_at_the_next_start(
    tmp_path: Path, point: str, step: int
) -> None:
    folder = tmp_path / "steps"
    folder.mkdir()
    for migration in (FIRST, SECOND):
        (folder / f"{migration}.sql").write_text(migration.sql)
    assert read_folder(folder) == (FIRST, SECOND)
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, str(tmp_path / "a.db"), str(folder), point, str(step)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert child.returncode == -9
    fresh = await schema(tmp_path / "fresh.db", [FIRST, SECOND])
    assert await schema(tmp_path / "a.db", [FIRST, SECOND]) == fresh
    assert await rows(tmp_path / "a.db", "SELECT text FROM log", [FIRST, SECOND]) == [("one; a;b",), ("two",)]


def test_a_script_is_split_where_its_statements_end() -> None:
    assert [line.split()[0] for line in statements("CREATE TABLE a (x); INSERT INTO a VALUES (';'); -- done;")] == [
        "CREATE",
        "INSERT",
    ]
    *_, trigger, insert = statements(SECOND.sql)
    assert trigger.startswith("CREATE TRIGGER")
    assert trigger.endswith("END;")
    assert insert == "INSERT INTO things (name) VALUES ('a;b');"


def test_half_a_statement_at_the_end_is_refused() -> None:
    with pytest.raises(InvariantError, match="middle of a statement: INSERT"):
        list(statements("CREATE TABLE a (x); INSERT INTO a"))


@pytest.mark.parametrize("files", [["0002_b.sql"], ["0001_a.sql", "0001_b.sql"], ["0001_a.sql", "0003_c.sql"]])
def test_numbers_that_repeat_or_leave_a_gap_are_refused(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(InvariantError, match="without gaps"):
        read_folder(tmp_path)
