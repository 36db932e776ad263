"""Opening, reading and owning a store: what is set, what is refused, and what the operator is told."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from state.database import Database
from state.engine import engine_check
from state.migrations import Migration
from state.model.errors import ConfigError, ConflictError, InvariantError, StoreCorruptError, StoreError
from state.testing import NOON, temporary_database

THINGS = Migration(version=1, name="things", sql="CREATE TABLE things (body TEXT NOT NULL) STRICT;")
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def add(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO things VALUES ('x')")


def count(connection: sqlite3.Connection) -> int:
    number: int = connection.execute("SELECT count(*) FROM things").fetchone()[0]
    return number


async def filled(path: Path, rows: int = 2_000) -> None:
    """A store of some pages, closed."""
    async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
        await database.write(
            lambda connection: connection.executemany("INSERT INTO things VALUES (?)", [("x" * 100,)] * rows)
        )


async def test_each_pragma_of_the_writer_is_in_force(tmp_path: Path) -> None:
    def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
        names = re.findall(r"\w+", " ".join(expected))
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    expected: dict[str, object] = {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "journal_size_limit": 67108864,
        "wal_autocheckpoint": 1000,
        "page_size": 8192,
    }
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        assert await database.write(pragmas) == expected


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        with pytest.raises(StoreError, match="readonly"):
            await database.read(add)


async def test_a_read_beyond_its_deadline_is_stopped_and_the_reader_serves_again(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "a.db", now=NOON, migrations=[THINGS], readers=1) as database:
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer in 0\.1 s"):
            await database.read(lambda connection: connection.execute(ENDLESS).fetchone(), deadline=0.1)
        assert time.monotonic() - began < 1.5
        assert await database.read(count) == 0


async def test_a_read_that_finds_no_free_reader_says_so_in_time(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "a.db", now=NOON, migrations=[THINGS], readers=1) as database:
        busy = threading.Event()
        first = asyncio.ensure_future(database.read(lambda _: busy.wait(5)))
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="did not answer"):
            await database.read(count, deadline=0.05)
        busy.set()
        assert await first


async def test_a_reader_whose_caller_gave_up_comes_back(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "a.db", now=NOON, migrations=[THINGS], readers=1) as database:
        busy = threading.Event()
        gave_up = asyncio.ensure_future(database.read(lambda _: busy.wait(5)))
        await asyncio.sleep(0.01)
        gave_up.cancel()
        busy.set()
        assert await database.read(count) == 0


async def test_a_read_leaves_no_transaction_open_that_would_pin_the_wal(tmp_path: Path) -> None:
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        for _ in range(3):
            await database.write(add)
            await database.read(lambda connection: connection.execute("SELECT * FROM things").fetchone())
        busy, *_ = await database.read(lambda connection: connection.execute("SELECT 0").fetchone())
        assert busy == 0
        with sqlite3.connect(database.path) as other:
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        other.close()
        assert not wal_is_left(database.path)


async def test_the_files_are_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "made" / "agent.db"
    mask = os.umask(0)
    try:
        async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
            await database.write(add)
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert path.parent.stat().st_mode & 0o777 == 0o750
    assert modes == {"agent.db": 0o600, "agent.db-wal": 0o600, "agent.db-shm": 0o600, "agent.db.lock": 0o600}


async def test_a_store_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch(mode=0o644)
    async with await Database.open(path, now=NOON, migrations=[THINGS]):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_process_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    opened = "import asyncio, pathlib, sys; from state.database import Database; from state.testing import NOON\n"
    opened += "asyncio.run(Database.open(pathlib.Path(sys.argv[1]), now=NOON, migrations=[]))"
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        child = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", opened, str(database.path)], capture_output=True, check=False
        )
        assert f"already open in another process (pid {os.getpid()})" in child.stderr.decode()
        with pytest.raises(ConflictError):
            await Database.open(database.path, now=NOON, migrations=[THINGS])
        await database.write(add)


async def test_a_store_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    for rows in range(3):
        async with temporary_database(tmp_path, migrations=[THINGS]) as database:
            assert await database.read(count) == rows
            await database.write(add)


async def test_another_process_that_holds_the_store_is_waited_for_and_then_named(tmp_path: Path) -> None:
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        await database.write(lambda connection: connection.execute("PRAGMA busy_timeout = 100").fetchall())
        shell = await holding(database.path)
        try:
            with pytest.raises(StoreError, match=rf"(?s)locked.*pid {shell.pid}.*fuser") as refused:
                await asyncio.wait_for(database.write(add), 5)
            assert refused.value.code == "store-locked"
        finally:
            await let_go(shell)
        await database.write(add)
        assert await database.read(count) == 1


async def test_a_lock_that_ends_in_time_is_only_waited_for(tmp_path: Path) -> None:
    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        shell = await holding(database.path)
        waiting = asyncio.ensure_future(database.write(add))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await let_go(shell)
        await waiting
        assert await database.read(count) == 1


FLIPS = 1_000


async def holding(path: Path) -> asyncio.subprocess.Process:
    """Another process, as a sqlite3 shell would be, that has begun to write and does not end."""
    begun = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
    shell = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        begun + "; print('held', flush=True); sys.stdin.read()",
        str(path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert shell.stdout
    assert await shell.stdout.readline() == b"held\n"
    return shell


async def let_go(shell: asyncio.subprocess.Process) -> None:
    assert shell.stdin
    shell.stdin.close()
    await shell.wait()


async def test_a_file_that_is_no_database_is_named_with_its_cure_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is a text file, not a store\n" * 400)
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError, match=r"(?s)a\.db.*not a database.*\.recover"):
        await Database.open(path, now=NOON, migrations=[THINGS])
    assert path.read_bytes() == before


async def test_a_damaged_page_is_found_at_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    damaged = bytearray(path.read_bytes())
    damaged[4 * 8192 : 5 * 8192] = os.urandom(8192)
    path.write_bytes(damaged)
    with pytest.raises(StoreCorruptError, match=r"(?s)a\.db is damaged.*aside"):
        await Database.open(path, now=NOON, migrations=[THINGS])


async def test_a_flipped_bit_never_crashes_a_start_or_a_read(tmp_path: Path) -> None:  # F17
    path = tmp_path / "a.db"
    await filled(path, 200)
    whole, dice = path.read_bytes(), random.Random(FLIPS)
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        with suppress(StoreCorruptError, StoreError, InvariantError, ConfigError):
            async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
                await database.read(lambda connection: connection.execute("SELECT * FROM things").fetchall())


async def test_the_look_for_damage_ends_in_its_time_and_says_that_it_was_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path, 20_000)
    async with await Database.open(path, now=NOON, migrations=[THINGS], check_limit=timedelta(0)) as database:
        assert not database.was_checked_wholly
    async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
        assert database.was_checked_wholly


def wal_is_left(path: Path) -> bool:
    return Path(f"{path}-wal").stat().st_size > 0


async def test_a_wal_left_by_a_killed_process_is_settled_before_anything_is_read(tmp_path: Path) -> None:
    killed = (
        "import asyncio, os, pathlib, signal, sys\nfrom state.database import Database\nfrom state.testing import NOON"
    )
    killed += (
        f"\nfrom state.migrations import Migration\nSTEP = Migration(version=1, name='things', sql={THINGS.sql!r})"
    )
    killed += """
async def main():
    database = await Database.open(pathlib.Path(sys.argv[1]), now=NOON, migrations=[STEP])
    await database.write(lambda c: c.execute("INSERT INTO things VALUES ('x')"))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())"""
    path = tmp_path / "a.db"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", killed, str(path)], check=False)
    assert wal_is_left(path)
    async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
        assert not wal_is_left(database.path)
        assert await database.read(count) == 1


async def test_the_store_can_be_opened_again_after_an_open_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    bad = Migration(version=1, name="things", sql="CREATE TABLE things (body NONSENSE) STRICT;")
    for _ in range(2):
        with pytest.raises(InvariantError, match="unknown datatype"):
            await Database.open(path, now=NOON, migrations=[bad])
    async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
        await database.write(add)


@pytest.mark.parametrize(
    ("version", "is_safe"),
    [
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.0", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.52.0", True),
        ("4.0.0", True),
    ],
)
def test_an_engine_that_can_corrupt_a_wal_is_named(version: str, is_safe: bool) -> None:
    report = engine_check(version)
    assert report.is_safe is is_safe
    assert (version in report.advice) is not is_safe
