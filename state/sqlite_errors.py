"""What SQLite says, translated into our errors: each with the operation, the cause and what to do.

The one place that knows SQLite's result codes (https://www.sqlite.org/rescode.html). Nothing above the stores names a `sqlite3`
error.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from state.model.errors import DistctlError, InvariantError, StoreCorruptError, StoreError, StoreInDoubtError

# Where an error ends the whole transaction and not only its statement, and running it again is safe.
_VANISHING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM}
_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_UNAVAILABLE: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


def primary_code(error: BaseException) -> int:
    """The primary result code (the low byte of the extended one); `SQLITE_ERROR` where SQLite gave none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_vanishing(error: BaseException) -> bool:
    """Whether SQLite may have rolled back the whole transaction by itself, so that it can run again."""
    return primary_code(error) in _VANISHING


def is_full(error: BaseException) -> bool:
    """Whether the disk has no room. A user's quota is not told so: SQLite calls that an I/O error."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def is_fatal(error: BaseException, path: Path) -> bool:
    """Whether the connection must not be used again: the disk failed below us, or the file is damaged."""
    code = primary_code(error)
    return code in _CORRUPT or (code == sqlite3.SQLITE_IOERR and not _refused_by_mount(error, path))


def is_constraint(error: BaseException) -> bool:
    """Whether a rule of the schema was broken; at COMMIT that is a deferred foreign key."""
    return primary_code(error) == sqlite3.SQLITE_CONSTRAINT


def translate(error: sqlite3.Error, *, operation: str, path: Path, writing: bool = True) -> DistctlError:
    """The error for the caller of `operation` on the store at `path`; `writing` says whether something may be half done."""
    told = f"{operation} failed in the store {path}: {error} ({_name(error)})"
    code = primary_code(error)
    if code == sqlite3.SQLITE_IOERR:
        return _io_error(error, told, path, writing=writing)
    if code in _CORRUPT:
        return corrupt(path, str(error))
    if code in _LOCKED:
        return StoreError(told, hint=_who_holds(path), code="store-locked")
    if code == sqlite3.SQLITE_FULL:
        return _full(told, path)
    if code in _UNAVAILABLE:
        return read_only(told)
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreError(told, hint="Nothing was applied; it was stopped before it ended", code="store-interrupted")
    if code == sqlite3.SQLITE_NOMEM:
        return StoreError(told, hint="Nothing was applied; the machine is out of memory", code="store-memory")
    return InvariantError(told, hint="This is a defect of distctl: please report it with this text", code="store-rule")


def translate_opening(error: sqlite3.Error, *, path: Path) -> DistctlError:
    """The error for whoever opens the store at `path`.

    An index of the WAL that cannot grow is a full disk: whoever opens the store anew makes it anew. Inside a commit the same
    error leaves open whether the WAL has it.
    """
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return _full(f"the store {path} cannot be opened: {error} ({_name(error)})", path)
    return translate(error, operation="opening", path=path)


def corrupt(path: Path, finding: str) -> StoreCorruptError:
    """The store at `path` is damaged, as `finding` says."""
    return StoreCorruptError(
        f"the store {path} is damaged: {finding}",
        hint=f"Keep it: move {path.name} and {path.name}-wal aside together, save what is readable with "
        f"`sqlite3 {path.name} .recover`, and restore the last verified backup. Starting again changes nothing",
        code="store-corrupt",
    )


def read_only(told: str) -> StoreError:
    """The file system or its rights refuse us; it works again as soon as they allow it."""
    hint = "Nothing was applied. Check the mount (`findmnt -T`) and the owner and rights of the file and its folder"
    return StoreError(told, hint=hint, code="store-readonly")


def _full(told: str, path: Path) -> StoreError:
    return StoreError(told, hint=f"Nothing was applied. Free space: {_free_space(path)}", code="store-full")


def _io_error(error: sqlite3.Error, told: str, path: Path, *, writing: bool) -> DistctlError:
    if _refused_by_mount(error, path):
        return read_only(told)
    hint = f"Look at the disk (`dmesg`, `smartctl`) under {path.parent} before trusting it again"
    if writing:
        told += "; whether it was kept will show after a restart"
        return StoreInDoubtError(told, hint=hint, code="store-io")
    return StoreError(told, hint=hint, code="store-io")


def _refused_by_mount(error: BaseException, path: Path) -> bool:
    """A mount that turned read-only under an open file fails each write before it begins: nothing is in doubt then."""
    if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_IOERR_WRITE:
        return False
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _free_space(path: Path) -> str:
    try:
        status = os.statvfs(path.parent)
    except OSError:
        return f"look at {path.parent}"
    return f"{status.f_bavail * status.f_frsize:,} bytes are left under {path.parent}"


def _who_holds(path: Path) -> str:
    """Name the processes that lock the store, where the kernel tells; asking must not open the file (POSIX locks drop)."""
    holders = ", ".join(str(pid) for pid in _lock_holders(path)) or "unknown"
    return (
        f"Nothing was applied. Another process holds the store (pid {holders}): look for a sqlite3 shell, a backup or a "
        f"virus scanner, with `fuser -v {path}`"
    )


def _lock_holders(path: Path) -> list[int]:
    inodes = {name.stat().st_ino for name in (path, Path(f"{path}-shm")) if name.exists()}
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []
    named = {int(lock[4]) for lock in locks if "->" not in lock and int(lock[5].rpartition(":")[2]) in inodes}
    return sorted(named - {os.getpid()})


def _name(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", "") or type(error).__name__
