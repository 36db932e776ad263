"""A files source on folders that fail: it says so, loses nothing and goes on by itself (faults F11, F13, F22)."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.files import folder as folders
from state.model.errors import NotConnectedError, TransientError
from tests.adapters.watched_folder import ROWS, MakeInbox, names_in


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, for what only a mount can show."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


async def test_a_missing_folder_is_told_of_and_work_goes_on_when_it_is_back(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    inbox.folder.rmdir()
    with pytest.raises(NotConnectedError) as caught:
        await inbox.run()
    assert caught.value.code == "folder-missing"
    assert "mount" in caught.value.hint
    inbox.folder.mkdir()
    inbox.put("plan.csv")
    assert await inbox.run() == 3


async def test_a_large_file_that_cannot_be_put_away_is_not_read_at_every_look(
    make_inbox: MakeInbox, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_inbox(small_disk)
    inbox.put("plan.csv")
    remount(small_disk, "ro")
    with pytest.raises(NotConnectedError):
        await inbox.run()
    monkeypatch.setattr("connectors.files.source.inspect", None)
    with pytest.raises(NotConnectedError):
        await inbox.run()


async def test_a_file_that_cannot_be_opened_holds_up_no_other(
    make_inbox: MakeInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_inbox()
    locked = inbox.put("1.csv")
    inbox.put("2.csv")

    def refuse(path: Path) -> int:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return folders.open_untricked(path)

    monkeypatch.setattr("connectors.files.reading.open_untricked", refuse)  # root may open everything
    with pytest.raises(NotConnectedError) as caught:
        await inbox.run()
    assert caught.value.code == "no-permission"
    assert str(locked) in caught.value.message
    assert (inbox.records, inbox.names()) == (3, ["1.csv"])


def use_up_handles(held: list[int], hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        return


async def test_without_file_handles_reading_waits_and_goes_on(make_inbox: MakeInbox) -> None:
    inbox = make_inbox()
    inbox.put("plan.csv")
    await inbox.source.wait(timedelta(0))  # what must be open is open
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        use_up_handles(held, limits[1])
        with pytest.raises(TransientError) as caught:
            await inbox.run()
        assert caught.value.code == "too-many-files"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert await inbox.run() == 3


async def test_a_read_only_folder_is_told_of_and_the_file_is_put_away_once_it_is_writable(
    make_inbox: MakeInbox, small_disk: Path
) -> None:
    inbox = make_inbox(small_disk)
    inbox.put("plan.csv")
    remount(small_disk, "ro")
    for _ in range(2):
        with pytest.raises(NotConnectedError) as caught:
            await inbox.run()
        assert caught.value.code == "read-only"
    remount(small_disk, "rw")
    await inbox.run()
    assert (inbox.records, inbox.names(), inbox.names("archive")) == (3, [], ["plan.csv"])


async def test_an_archive_on_another_file_system_gets_a_durable_copy(make_inbox: MakeInbox, small_disk: Path) -> None:
    inbox = make_inbox(archive=str(small_disk / "archive"))
    path = inbox.put("plan.csv")
    written_at = path.stat().st_mtime_ns
    await inbox.run()
    archived = small_disk / "archive" / "plan.csv"
    assert (archived.read_bytes(), archived.stat().st_mtime_ns, inbox.names()) == (ROWS, written_at, [])


async def test_a_late_writer_into_a_file_that_was_copied_away_does_not_stop_the_reading(
    make_inbox: MakeInbox, small_disk: Path
) -> None:
    inbox = make_inbox(archive=str(small_disk / "archive"))
    inbox.put("plan.csv")
    await inbox.run()
    with (small_disk / "archive" / "plan.csv").open("ab") as late:
        late.write(b"D,4\n")
    inbox.put("next.csv", b"sku\nE\n")
    assert await inbox.run() == 1


async def test_a_file_that_is_not_the_one_read_is_not_copied_away(make_inbox: MakeInbox, small_disk: Path) -> None:
    inbox = make_inbox()
    path = inbox.put("plan.csv")
    taken = folders.fingerprint_at(path)
    path.write_bytes(b"sku\nanother\n")
    with pytest.raises(OSError, match="busy"):
        folders.put_away(path, small_disk / "archive", tag="x", expected=taken)
    assert (path.exists(), names_in(small_disk / "archive")) == (True, [])


async def test_a_full_archive_keeps_the_file_where_it_is_and_goes_on_when_there_is_room(
    make_inbox: MakeInbox, small_disk: Path
) -> None:
    inbox = make_inbox(archive=str(small_disk / "archive"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1020 * 1024)
    inbox.put("plan.csv", b"sku\n" + b"A\n" * 50_000)
    with pytest.raises(NotConnectedError) as caught:
        await inbox.run()
    assert caught.value.code == "disk-full"
    assert inbox.names() == ["plan.csv"]
    ballast.unlink()
    assert await inbox.run() == 0
    assert (inbox.names(), inbox.records) == ([], 50_000)
    assert [path.name for path in (small_disk / "archive").iterdir()] == ["plan.csv"]
