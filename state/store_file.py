"""The files of a store: who may read them, and which process owns them.

`<store>.lock` is held with flock(2) for as long as the store is open, so that one process writes. The kernel drops the lock with
the process, however it ended; the pid inside is only for the message.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from state.model.errors import ConflictError, DistctlError, StoreError
from state.sqlite_errors import read_only

_FILE_MODE = 0o600
_FOLDER_MODE = 0o750


class Ownership:
    """The right to write one store. Released by `release` or by the end of the process."""

    def __init__(self, path: Path, *, restoring: bool = False) -> None:
        """Take it, and create the folder (0750) and the file (0600) if they are missing; not the file for `restoring` it.

        Raises `ConflictError` if another process has it, or a restore into it was begun and did not end; `StoreError` if the
        place cannot be written.
        """
        try:
            _make_durable_folder(path.parent)
            self._lock = _lock(path)
            try:
                if not restoring:
                    _refuse_half_restored(path)
                    _keep_private(path)
            except (OSError, DistctlError):
                self.release()
                raise
        except OSError as error:
            raise _refusal(path, error) from error

    def release(self) -> None:
        """Let another process have it. The lock file stays: removing it would let two processes lock two files."""
        os.close(self._lock)


def restore_mark(path: Path) -> Path:
    """The file that is there while the store at `path` is exchanged for another."""
    return Path(f"{path}.restoring")


def _refuse_half_restored(path: Path) -> None:
    if restore_mark(path).exists():
        raise ConflictError(
            f"a restore of the store {path} was begun and did not end",
            hint=f"Run it again: `distctl restore BACKUP --data {path.parent} --reason ...`; it goes on where it stopped",
            code="half-restored",
        )


def _make_durable_folder(folder: Path) -> None:
    """Its name, too, is on disk before anything in it is acknowledged; SQLite syncs those inside."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    for one in missing or [folder]:
        _sync(one.parent)


def _sync(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # it is not ours to read, so what is in it was made by somebody else
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise ConflictError(
            f"the store {path} is already open in another process (pid {owner})",
            hint=f"Only one process writes a store: stop that one first, or look with `ps -p {owner}`",
            code="store-owned",
        ) from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _keep_private(path: Path) -> None:
    """SQLite gives `-wal` and `-shm` the rights of the file itself."""
    store = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        if os.fstat(store).st_mode & 0o077:
            os.fchmod(store, _FILE_MODE)
    finally:
        os.close(store)


def _refusal(path: Path, error: OSError) -> DistctlError:
    told = f"cannot open the store {path}: {error.strerror}"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return read_only(told)
    return StoreError(told, hint=f"Check that {path.parent} is a folder with free space", code="store-unavailable")
