"""Full disks, failing disks and mounts that turn read-only: real errors from the kernel or from a shim below SQLite."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from state.database import Database
from state.migrations import Migration
from state.model.errors import StoreError
from state.reserve import Reserve
from state.testing import NOON, temporary_database

HERE = Path(__file__).parent
THINGS = Migration(
    version=1, name="things", sql="CREATE TABLE things (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT) STRICT;"
)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler for the shim that makes a disk fail")
    library = tmp_path_factory.mktemp("iofault") / "iofault.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "iofault.c"), "-ldl"], check=True
    )
    return library


def scenario(folder: Path, environment: dict[str, str], file_limit: int | None = None) -> dict[str, Any]:
    def limit() -> None:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    child = subprocess.run(
        [sys.executable, str(HERE / "iofault_scenario.py"), str(folder / "a.db"), str(folder / "armed")],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=limit,
    )
    assert child.returncode == 0, child.stderr.decode()
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


def fault(shim: Path, folder: Path, call: str, error: int, times: int, part: str = "a.db-wal") -> dict[str, Any]:
    environment = {
        "LD_PRELOAD": str(shim),
        "IOFAULT_PATH": str(folder / part),
        "IOFAULT_CALL": call,
        "IOFAULT_ERRNO": str(error),
        "IOFAULT_TIMES": str(times),
        "IOFAULT_ARMED": str(folder / "armed"),
        "IOFAULT_LOG": str(folder / "log"),
    }
    return scenario(folder, environment)


def failures(folder: Path) -> int:
    return (folder / "log").stat().st_size


async def bodies(path: Path) -> list[str]:
    """What is there after the next start."""
    async with await Database.open(path, now=NOON, migrations=[THINGS]) as database:
        return await database.read(
            lambda connection: [body.rstrip("x") for (body,) in connection.execute("SELECT body FROM things")]
        )


@pytest.mark.parametrize(("call", "times"), [("fsync", 1), ("fsync", 0), ("write", 1), ("write", 0)])
async def test_a_disk_that_fails_under_a_commit_is_answered_in_doubt_and_used_no_more(
    shim: Path, tmp_path: Path, call: str, times: int
) -> None:
    seen = fault(shim, tmp_path, call, errno.EIO, times)
    assert seen["before"] == "kept"
    assert "doubt store-io" in seen["during"]
    assert set(seen["during"]) <= {"doubt store-io", "store-broken"}
    assert seen["later"] == "store-broken"
    assert seen["broken"]
    assert seen["fatal"] == ["store-io"]
    assert "before" in await bodies(tmp_path / "a.db")


async def test_a_failed_fsync_is_never_tried_again(shim: Path, tmp_path: Path) -> None:
    fault(shim, tmp_path, "fsync", errno.EIO, 0, part="a.db")
    assert failures(tmp_path) == 1


async def test_a_disk_that_is_full_once_costs_nobody_anything(shim: Path, tmp_path: Path) -> None:
    seen = fault(shim, tmp_path, "write", errno.ENOSPC, 1)
    assert seen["during"] == ["kept"] * 5
    assert seen["later"] == "kept"
    assert not seen["broken"]
    assert len(await bodies(tmp_path / "a.db")) == 7


async def test_a_disk_that_stays_full_refuses_each_caller_without_a_storm(shim: Path, tmp_path: Path) -> None:
    seen = fault(shim, tmp_path, "write", errno.ENOSPC, 0)
    assert seen["during"] == ["store-full"] * 5
    assert seen["later"] == "store-full"
    assert not seen["broken"]
    assert seen["fatal"] == []
    assert failures(tmp_path) <= 16
    assert await bodies(tmp_path / "a.db") == ["before"]


async def test_a_file_that_may_not_grow_is_in_doubt_and_what_was_kept_stays(tmp_path: Path) -> None:
    seen = scenario(tmp_path, {}, file_limit=128 * 1024)
    assert seen["before"] == "kept"
    assert "kept" not in seen["during"]
    assert await bodies(tmp_path / "a.db") == ["before"]


async def test_a_store_at_its_page_limit_refuses_what_does_not_fit_and_takes_what_does(tmp_path: Path) -> None:
    def write(size: int) -> Any:
        return lambda connection: connection.execute("INSERT INTO things (body) VALUES (?)", ("x" * size,))

    async with temporary_database(tmp_path, migrations=[THINGS]) as database:
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchall())
        answers = await asyncio.gather(
            *(database.write(write(size)) for size in (10, 1_000_000, 20)), return_exceptions=True
        )
        refused = answers[1]
        assert isinstance(refused, StoreError)
        assert refused.code == "store-full"
        assert "bytes are left" in str(refused)
        kept = await database.read(lambda connection: connection.execute("SELECT length(body) FROM things").fetchall())
        assert kept == [(10,), (20,)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


async def test_a_small_disk_that_fills_up_refuses_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things (body) VALUES (?)", ("x" * 5_000,))

    (small_disk / "ballast").write_bytes(bytes(300_000))
    async with temporary_database(small_disk, migrations=[THINGS]) as database:
        kept = 0

        async def fill() -> None:
            nonlocal kept
            for _ in range(1_000):
                await database.write(write)
                kept += 1

        with pytest.raises(StoreError, match="Free space") as refused:
            await fill()
        assert refused.value.code == "store-full"
        assert kept > 10
        (small_disk / "ballast").unlink()
        await database.write(write)
        rows = await database.read(lambda connection: connection.execute("SELECT count(*) FROM things").fetchone())
        assert rows == (kept + 1,)


async def test_what_met_a_full_disk_runs_again_in_the_room_of_the_reserve(small_disk: Path) -> None:
    reserve = Reserve(small_disk / "reserve", size=300_000)
    reserve.fill(leaving=0)
    kept: list[bool] = []  # whether the reserve was given up by then

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things (body) VALUES (?)", ("x" * 5_000,))

    async def fill(database: Database) -> None:
        for _ in range(1_000):
            await database.write(write)
            kept.append(reserve.is_given_up)

    path, make_room = small_disk / "distctl.db", reserve.release
    async with await Database.open(path, now=NOON, migrations=[THINGS], make_room=make_room) as database:
        with pytest.raises(StoreError, match="Free space"):
            await fill(database)
        rows = await database.read(lambda connection: connection.execute("SELECT count(*) FROM things").fetchone())
    assert rows == (len(kept),)
    assert min(kept.count(False), kept.count(True)) > 5


async def test_a_disk_that_is_read_only_is_named_at_open_and_served_again_when_it_is_not(small_disk: Path) -> None:
    async with temporary_database(small_disk, migrations=[THINGS]):
        pass
    remount(small_disk, "ro")
    with pytest.raises(StoreError, match="findmnt") as refused:
        await Database.open(small_disk / "distctl.db", now=NOON, migrations=[THINGS])
    assert refused.value.code == "store-readonly"
    remount(small_disk, "rw")
    async with temporary_database(small_disk, migrations=[THINGS]):
        pass
