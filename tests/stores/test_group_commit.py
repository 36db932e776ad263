"""The writer: what shares a transaction, what is undone alone, and what a caller can rely on."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from state.connection_thread import ConnectionThread
from state.database import Database
from state.group_commit import GROUP_UNITS
from state.migrations import Migration
from state.model.errors import InvariantError, StoreError
from state.testing import NOON, temporary_database

THINGS = Migration(
    version=1,
    name="things",
    sql="""
    CREATE TABLE things (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE parts (thing_id INTEGER NOT NULL REFERENCES things (id) DEFERRABLE INITIALLY DEFERRED) STRICT;
    """,
)


def add(name: str) -> Callable[[sqlite3.Connection], int]:
    def unit(connection: sqlite3.Connection) -> int:
        rowid = connection.execute("INSERT INTO things (name) VALUES (?)", (name,)).lastrowid
        assert rowid
        return rowid

    return unit


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY id")]


class CrashPoints:
    """Remembers each point that was passed, and can hold the writer at one."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.held = threading.Event()

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point == "store.before_begin":
            self.held.set()
            assert self.gate.wait(10)


@pytest.fixture
def crash() -> CrashPoints:
    return CrashPoints()


@pytest.fixture
async def database(tmp_path: Path, crash: CrashPoints) -> AsyncIterator[Database]:
    async with temporary_database(tmp_path, migrations=[THINGS], crash=crash) as database:
        crash.passed.clear()
        crash.held.clear()
        yield database


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group closes by its size alone, so that a busy machine does not change what a test counts."""
    monkeypatch.setattr("state.group_commit.GROUP_SECONDS", 60.0)


async def gathered(
    database: Database, crash: CrashPoints, *units: Callable[[sqlite3.Connection], object], name: str = ""
) -> list[object]:
    """Let `units` meet in one group: they gather while the writer is held in the group before."""
    crash.gate.clear()
    before = asyncio.ensure_future(database.write(lambda _: None))
    await asyncio.sleep(0)
    await asyncio.to_thread(crash.held.wait, 10)
    waiting = [asyncio.ensure_future(database.write(unit, name=name)) for unit in units]
    await asyncio.sleep(0)
    crash.passed.clear()
    crash.gate.set()
    await before
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_unit_answers_what_it_returned_when_that_is_on_disk(database: Database) -> None:
    assert await database.write(add("a")) == 1
    with sqlite3.connect(database.path) as other:
        assert names(other) == ["a"]
    other.close()


@pytest.mark.usefixtures("unhurried")
async def test_waiting_units_share_one_transaction(database: Database, crash: CrashPoints) -> None:
    answers = await gathered(database, crash, *(add(str(n)) for n in range(50)))
    assert answers == list(range(1, 51))
    assert crash.passed.count("store.before_begin") == 1


@pytest.mark.usefixtures("unhurried")
async def test_a_group_has_at_most_a_thousand_units(database: Database, crash: CrashPoints) -> None:
    await gathered(database, crash, *(lambda _: None for _ in range(GROUP_UNITS + 1)))
    assert crash.passed.count("store.before_begin") == 2


async def test_a_group_closes_after_ten_milliseconds_and_the_rest_follows(
    database: Database, crash: CrashPoints
) -> None:
    held = threading.Event()
    answers = await gathered(database, crash, *(lambda _: held.wait(0.012) for _ in range(4)))
    assert answers == [False] * 4
    assert crash.passed.count("store.before_begin") == 4


@pytest.mark.usefixtures("unhurried")
async def test_a_unit_that_raises_is_undone_alone(database: Database, crash: CrashPoints) -> None:
    def half(connection: sqlite3.Connection) -> None:
        add("half")(connection)
        raise ValueError("no")

    first, failed, last = await gathered(database, crash, add("first"), half, add("last"))
    assert isinstance(failed, ValueError)
    assert (first, last) == (1, 2)
    assert await database.read(names) == ["first", "last"]
    assert crash.passed.count("store.before_begin") == 1


async def test_a_lone_unit_that_raises_leaves_nothing(database: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        add("half")(connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(half)
    assert await database.read(names) == []
    assert await database.write(add("next")) == 1


async def test_a_broken_rule_of_the_schema_reaches_its_caller_only_as_our_error(
    database: Database, crash: CrashPoints
) -> None:
    _, twice, _ = await gathered(database, crash, add("a"), add("a"), add("b"), name="things.add")
    assert isinstance(twice, InvariantError)
    assert "things.add" in str(twice)
    assert "UNIQUE" in str(twice)
    assert await database.read(names) == ["a", "b"]


async def test_a_deferred_key_that_only_commit_sees_fails_its_own_unit(database: Database, crash: CrashPoints) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO parts (thing_id) VALUES (99)")

    _, failed, _ = await gathered(database, crash, add("a"), orphan, add("b"))
    assert isinstance(failed, InvariantError)
    assert await database.read(names) == ["a", "b"]
    assert not database.is_broken


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "ATTACH ':memory:' AS other"])
async def test_a_unit_cannot_end_the_transaction_of_its_group(
    database: Database, crash: CrashPoints, statement: str
) -> None:
    def meddle(connection: sqlite3.Connection) -> None:
        connection.execute(statement)

    first, refused, last = await gathered(database, crash, add("a"), meddle, add("b"))
    assert isinstance(refused, InvariantError)
    assert (first, last) == (1, 2)
    assert await database.read(names) == ["a", "b"]


async def test_a_unit_that_runs_out_of_an_iterator_hangs_nobody(database: Database) -> None:
    def empty(connection: sqlite3.Connection) -> object:
        return next(connection.execute("SELECT 1 FROM things"))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(database.write(empty), 5)


async def test_crash_points_are_those_of_the_store_and_of_each_name(database: Database, crash: CrashPoints) -> None:
    await database.write(add("a"), name="outbox")
    assert crash.passed == [
        "store.before_begin",
        "store.before_commit",
        "outbox.before_commit",
        "store.after_commit",
        "outbox.after_commit",
    ]


async def test_a_caller_that_gave_up_before_the_group_began_wrote_nothing(
    database: Database, crash: CrashPoints
) -> None:
    crash.gate.clear()
    before = asyncio.ensure_future(database.write(add("before")))
    await asyncio.to_thread(crash.held.wait, 10)
    late = asyncio.ensure_future(database.write(add("late")))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.sleep(0)
    crash.gate.set()
    await before
    await database.write(add("after"))
    assert await database.read(names) == ["before", "after"]


async def test_a_thousand_random_cancellations_leave_no_orphan_and_lose_no_answer(database: Database) -> None:
    chance = random.Random(7)

    async def caller(n: int) -> str | None:
        await asyncio.sleep(chance.random() / 50)
        return str(n) if await database.write(add(str(n))) else None

    tasks = [asyncio.ensure_future(caller(n)) for n in range(2_000)]
    for task in chance.sample(tasks, 1_000):
        asyncio.get_running_loop().call_later(chance.random() / 40, task.cancel)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    answered = {answer for answer in answers if isinstance(answer, str)}
    assert len(answered) >= 1_000
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert answered <= set(await database.read(names))
    assert database.queued == 0
    await database.write(add("after"))


async def test_closing_settles_what_is_queued_and_refuses_what_comes(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "a.db", now=NOON, migrations=[THINGS])
    queued = [asyncio.ensure_future(database.write(add(str(n)))) for n in range(100)]
    await asyncio.sleep(0)
    await database.close()
    assert sorted(await asyncio.gather(*queued)) == list(range(1, 101))
    with pytest.raises(StoreError, match="closed"):
        await database.write(add("late"))
    assert not (tmp_path / "a.db-wal").exists()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from state.database import Database
from state.testing import NOON
from tests_things import THINGS

def crash(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = await Database.open(Path(sys.argv[1]), now=NOON, migrations=[THINGS], crash=crash)
    await database.write(lambda c: c.execute("INSERT INTO things (name) VALUES ('a')"), name="unit")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ("migration.before_commit", []),
        ("migration.after_commit", []),
        ("store.before_begin", []),
        ("store.before_commit", []),
        ("unit.before_commit", []),
        ("store.after_commit", ["a"]),
        ("unit.after_commit", ["a"]),
    ],
)
async def test_a_process_killed_at_a_crash_point_leaves_all_or_nothing(
    tmp_path: Path, point: str, kept: list[str]
) -> None:
    (tmp_path / "tests_things.py").write_text(
        f"from state.migrations import Migration\nTHINGS = Migration(version=1, name='things', sql={THINGS.sql!r})\n"
    )
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "a.db"), point],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(tmp_path)])},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert child.returncode == -9, child.stderr.decode()
    async with await Database.open(tmp_path / "a.db", now=NOON, migrations=[THINGS]) as database:
        assert await database.read(names) == kept


async def test_a_unit_that_comes_while_a_group_runs_calls_the_thread_again(
    database: Database, crash: CrashPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one that comes just after the thread's last look would wait until somebody else writes."""
    calls: list[object] = []
    hand_over = ConnectionThread.call

    def call(thread: ConnectionThread, function: Callable[[sqlite3.Connection], None]) -> None:
        calls.append(function)
        hand_over(thread, function)

    monkeypatch.setattr(ConnectionThread, "call", call)
    crash.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(database.write(add("first")))
        await asyncio.to_thread(crash.held.wait, 10)
        group.create_task(database.write(add("second")))
        await asyncio.sleep(0)
        crash.gate.set()
    assert len(calls) == 2


async def test_a_write_wakes_the_loop_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    wake = loop.call_soon_threadsafe

    def count(callback: Callable[..., object], *arguments: object) -> object:
        wakes.append(callback)
        return wake(callback, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    await database.write(add("first"))
    await database.write(add("second"))
    assert len(wakes) == 2
