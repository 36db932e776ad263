"""A recorded run: what each process did to its disk, and what it said to others, in one order.

The recorder (`recorder.c`) appends a record behind each call; the rig and the launched agents append theirs with `Marks`. The
place of a record in the file is its moment.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

_HEAD: Final = struct.Struct("<6I3Q")
_MAGIC: Final = 0x43525750


class Kind(IntEnum):
    """What happened. The first eleven are those of `recorder.c`."""

    OPENED = 1  # made, which `offset` 0 says, or emptied, which `size` 1 says
    WRITTEN = 2
    TRUNCATED = 3  # to `size`, which may be longer
    SYNC_BEGINS = 4
    SYNC_ENDED = 5
    RENAME_BEGINS = 6
    RENAMED = 7
    UNLINKED = 8
    FOLDER_MADE = 9
    FOLDER_REMOVED = 10
    UNKNOWN = 11  # `other` names the call that the model does not know
    SAID = 20  # somebody was told something: `name` says what kind of thing, the bytes are JSON
    BROUGHT = 21  # a file that came from outside, and is no concern of a power cut here
    BROUGHT_FOLDER = 22


@dataclass(frozen=True, slots=True)
class Record:
    """One of them. Offsets and sizes are in bytes."""

    kind: Kind
    pid: int
    name: str
    other: str
    inode: int
    offset: int
    size: int
    data: memoryview

    def said(self) -> dict[str, Any]:
        """What was said."""
        told: dict[str, Any] = json.loads(bytes(self.data))
        return told


def read_recording(path: Path) -> Sequence[Record]:
    """All records of a run. Raises ValueError where the file is no recording."""
    return list(_read(memoryview(path.read_bytes())))


def _read(raw: memoryview) -> Iterator[Record]:
    place = 0
    while place < len(raw):
        magic, kind, pid, name, other, size, inode, offset, length = _HEAD.unpack_from(raw, place)
        if magic != _MAGIC:
            raise ValueError(f"no record at byte {place} of the recording")
        first = place + _HEAD.size
        second, third = first + name, first + name + other
        place = third + size
        yield Record(
            Kind(kind),
            pid,
            os.fsdecode(bytes(raw[first:second])),
            os.fsdecode(bytes(raw[second:third])),
            inode,
            offset,
            length,
            raw[third:place],
        )


class Marks:
    """Appends records of what the recorder cannot see. One write each, from any process and thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(self, kind: str, **told: Any) -> None:
        """Somebody is told this now."""
        self._append(Kind.SAID, kind, 0, json.dumps(told).encode())

    def bring(self, path: Path, content: bytes, *, inode: int) -> None:
        """A file comes to lie at `path`."""
        self._append(Kind.BROUGHT, str(path), inode, content)

    def bring_folder(self, path: Path) -> None:
        """A folder that was there before."""
        self._append(Kind.BROUGHT_FOLDER, str(path), path.stat().st_ino, b"")

    def close(self) -> None:
        """No more of it."""
        os.close(self._file)

    def _append(self, kind: Kind, name: str, inode: int, data: bytes) -> None:
        encoded = os.fsencode(name)
        head = _HEAD.pack(_MAGIC, kind, os.getpid(), len(encoded), 0, len(data), inode, 0, len(data))
        os.write(self._file, head + encoded + data)
