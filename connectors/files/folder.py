"""What is done to files and folders: listing, opening without being led astray, putting away. Blocking; no file is deleted.

Crash behaviour: a file is in its old place or in its new one; across file systems it may be in both, never in neither.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from connectors.files.naming import tagged

_UNFINISHED: Final = (
    ".tmp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
)  # names that transfer programs use meanwhile
_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What stays when a file is left alone or renamed, and changes when it is written."""

    inode: int
    size: int  # bytes
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """The fingerprint in a status."""
        return cls(inode=status.st_ino, size=status.st_size, modified_ns=status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in the folder. The name may hold bytes that are no text, as surrogates."""

    name: str
    fingerprint: Fingerprint
    links: int
    kind: str  # for people; empty for a regular file


def entries(folder: Path, pattern: str) -> list[Entry]:
    """What lies in the folder and matches, without subfolders, hidden names and names of unfinished transfers."""
    with os.scandir(folder) as scan:
        return [found for item in scan if is_wanted(item.name, pattern) and (found := _entry(item)) is not None]


def is_wanted(name: str, pattern: str) -> bool:
    """Whether a name may be a delivery."""
    return fnmatch.fnmatchcase(name, pattern) and not name.startswith(".") and not name.lower().endswith(_UNFINISHED)


def _entry(item: os.DirEntry[str]) -> Entry | None:
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None  # gone since it was listed
    if stat.S_ISDIR(status.st_mode):
        return None
    return Entry(
        name=item.name, fingerprint=Fingerprint.of(status), links=status.st_nlink, kind=kind_of(status.st_mode)
    )


def kind_of(mode: int) -> str:
    """What it is where it is no regular file; empty for a regular one."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_untricked(path: Path) -> int:
    """A descriptor that reads `path` itself: follows no link, never waits for the other end of a pipe. Raises `OSError`."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def fingerprint_at(path: Path) -> Fingerprint | None:
    """The fingerprint of what lies there now, links not followed; None for nothing."""
    try:
        return Fingerprint.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def put_away(path: Path, into: Path, *, tag: str, expected: Fingerprint | None = None) -> Path:
    """`move` it, for good: the names are on disk when this returns."""
    target = move(path, into, tag=tag, expected=expected)
    sync_folder(into)
    sync_folder(path.parent)
    return target


def move(path: Path, into: Path, *, tag: str, expected: Fingerprint | None = None) -> Path:
    """Move a file into a folder, which is made if need be, under its own name or, where that is taken, one with `tag`.

    Across file systems it is copied, and only if it is the one `expected`.
    Returns where it is now. A special file on another file system stays where it is. Raises `OSError`.
    """
    if not into.is_dir():
        into.mkdir()
    target = _free(into, path.name, tag)
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if kind_of(path.lstat().st_mode):
            return path
        _copy_over(path, target, expected)
    return target


def put_back(path: Path, into: Path, name: str) -> bool:
    """Move a file back under its old name, unless there is another by now, or it went to another file system."""
    target = into / name
    if os.path.lexists(target) or path.parent.stat().st_dev != into.stat().st_dev:
        return False
    path.rename(target)
    sync_folder(into)
    return True


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing; their names are durable when this returns. Raises `OSError`.

    The name of one that is there is made durable too: whoever made it may have been killed before that.
    """
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a parent that is not ours to read: what is in it was made by somebody else
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some shares cannot, and have no cache of ours to lose
            raise
    finally:
        os.close(descriptor)


def _free(folder: Path, name: str, tag: str) -> Path:
    return next(path for path in _candidates(folder, name, tag) if not os.path.lexists(path))


def _candidates(folder: Path, name: str, tag: str) -> Iterator[Path]:
    yield folder / name
    yield folder / tagged(name, tag)
    number = 2
    while True:
        yield folder / tagged(name, f"{tag}-{number}")
        number += 1


def _copy_over(path: Path, target: Path, expected: Fingerprint | None) -> None:
    with os.fdopen(open_untricked(path), "rb") as source:
        before = os.fstat(source.fileno())
        unfinished = target.with_name(f".copy-{before.st_dev}-{before.st_ino}.part")
        _copy(source, unfinished)
    os.utime(unfinished, ns=(before.st_atime_ns, before.st_mtime_ns))
    copied = Fingerprint.of(before)
    if fingerprint_at(path) != copied or copied != (expected or copied):
        unfinished.unlink()  # a copy of something that moves; the file itself stays and is looked at again
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
    unfinished.rename(target)
    sync_folder(target.parent)
    path.unlink()


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1024 * 1024)
        copy.flush()
        os.fsync(copy.fileno())
