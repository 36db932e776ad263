"""The disks of a recorded run, and what a power cut may leave of them.

The model is what POSIX promises and no more. A file has the bytes that were written before its last completed fsync began.
Of each later write, a cut leaves all, nothing, or some of its 512-byte sectors; of what it added to the file's length also
zeros. Any subset of those writes may be there: that is what reordering comes to, since of two writes to one place the disk has
either. A name that was made, renamed or removed is durable once a folder that it concerns was fsynced; without that a cut
leaves a prefix of each folder's changes, and a rename is there wholly or not at all. An fsync of a file says nothing of its name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

from tests.powercut.recording import Kind, Record

SECTOR: Final = 512
"""Bytes that a disk writes wholly or not at all."""


class Leaves(Enum):
    """What a cut leaves of that which was not synced."""

    NOTHING = "nothing"
    ALL = "all of it"
    SOME = "some writes"
    TORN = "some writes, some of them torn"
    LAST = "the last write of each file"


@dataclass(slots=True, eq=False)
class File:
    """Its durable bytes, followed by zeros up to `size`, and what was done since."""

    content: bytearray = field(default_factory=bytearray)
    size: int = 0
    pending: list[tuple[int, Record]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Folder:
    """What lies in it as its processes see it, and what is durable of that."""

    now: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


Node: TypeAlias = File | Folder


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of names that is there wholly or not at all: what lies under each name afterwards."""

    moment: int
    changes: Sequence[tuple[Folder, str, Node | None]]


class Disks:
    """All disks of a run, as they are after the records that were played."""

    def __init__(self) -> None:
        self.tops: dict[str, Folder] = {}
        """One folder a disk, by its path; what lies elsewhere is left out."""
        self._nodes: dict[int, Node] = {}
        self._namings: list[Naming] = []
        self._syncs: dict[tuple[int, int], list[int]] = {}  # by process and inode: when those under way began

    def play(self, moment: int, record: Record) -> None:
        """Let one record happen. Raises ValueError where the model cannot follow it."""
        match record.kind:
            case Kind.BROUGHT_FOLDER:
                folder = self._nodes[record.inode] = Folder()
                if found := self._place(record.name):
                    found[0].now[found[1]] = found[0].durable[found[1]] = folder
                else:
                    self.tops[record.name] = folder
            case Kind.BROUGHT if found := self._place(record.name):
                file = self._nodes[record.inode] = File(bytearray(record.data), len(record.data))
                found[0].now[found[1]] = found[0].durable[found[1]] = file
            case Kind.OPENED if found := self._place(record.name):
                self._open(moment, record, *found)
            case Kind.WRITTEN | Kind.TRUNCATED:
                node = self._nodes.get(record.inode)
                if isinstance(node, File):
                    node.pending.append((moment, record))
            case Kind.SYNC_BEGINS:
                self._syncs.setdefault((record.pid, record.inode), []).append(moment)
            case Kind.SYNC_ENDED:
                self._sync(record)
            case Kind.RENAMED:
                self._rename(moment, record)
            case Kind.UNLINKED | Kind.FOLDER_REMOVED if found := self._place(record.name):
                found[0].now.pop(found[1], None)
                self._namings.append(Naming(moment, [(*found, None)]))
            case Kind.FOLDER_MADE if found := self._place(record.name):
                folder = self._nodes[record.inode] = found[0].now[found[1]] = Folder()
                self._namings.append(Naming(moment, [(*found, folder)]))
            case Kind.UNKNOWN if self._place(record.name):
                raise ValueError(f"{record.other} on {record.name} is not in the model")
            case _:
                pass

    # What a record does.

    def _open(self, moment: int, record: Record, folder: Folder, name: str) -> None:
        is_new, is_emptied = record.offset == 0, record.size == 1
        if is_new:
            file = self._nodes[record.inode] = folder.now[name] = File()
            self._namings.append(Naming(moment, [(folder, name, file)]))
        elif is_emptied and isinstance(node := folder.now.get(name), File):
            empty = Record(Kind.TRUNCATED, record.pid, record.name, "", record.inode, 0, 0, memoryview(b""))
            node.pending.append((moment, empty))

    def _rename(self, moment: int, record: Record) -> None:
        source, target = self._place(record.name), self._place(record.other)
        if source is None or target is None:
            if source or target:
                raise ValueError(f"{record.name} was renamed out of or into what is recorded: {record.other}")
            return
        node = source[0].now.pop(source[1])
        target[0].now[target[1]] = node
        self._namings.append(Naming(moment, [(*source, None), (*target, node)]))

    def _sync(self, sync: Record) -> None:
        """What was done before the sync began is durable."""
        begun = self._syncs[sync.pid, sync.inode].pop(0)
        match self._nodes.get(sync.inode):
            case File() as file:
                durable = [record for moment, record in file.pending if moment < begun]
                file.pending = [(moment, record) for moment, record in file.pending if moment > begun]
                for record in durable:
                    file.size = _apply(record, file.content, file.size)
            case Folder() as folder:
                self._sync_names(folder, begun)
            case None:
                pass

    def _sync_names(self, folder: Folder, begun: int) -> None:
        """With a change all earlier ones of the folders that it concerns are durable."""
        concerned, durable = {id(folder)}, []
        for naming in reversed([one for one in self._namings if one.moment < begun]):
            folders = {id(one) for one, _, _ in naming.changes}
            if folders & concerned:
                concerned |= folders
                durable.append(naming)
        for naming in reversed(durable):
            self._namings.remove(naming)
            for one, name, node in naming.changes:
                _put(one.durable, name, node)

    def _place(self, path: str) -> tuple[Folder, str] | None:
        """The folder and the name that a path means now; None outside of what is recorded."""
        for top, disk in self.tops.items():
            if path.startswith(f"{top}/"):
                *parts, name = path[len(top) + 1 :].split("/")
                folder = _inside(disk, parts)
                return (folder, name) if folder else None
        return None

    def differing(self, top: Path) -> Iterator[Path]:
        """Files below a recorded folder that are not what the records made of them: a call that nobody recorded."""
        expected = dict(_files(self.tops[str(top)], top))
        found = {path for path in top.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
        yield from found ^ expected.keys()
        for path in found & expected.keys():
            content, size = expected[path]
            there = path.read_bytes()
            if len(there) != size or there[: len(content)] != content or any(there[len(content) :]):
                yield path

    # What a cut leaves.

    def write_image(self, target: Path, *, cut: Collection[str], leaves: Leaves, dice: random.Random) -> None:
        """Write what is left of each disk to a folder of its name. Those that are not `cut` keep all that was done to them."""
        tops = {Path(path).name: folder for path, folder in self.tops.items()}
        names = self._surviving([tops[name] for name in cut], leaves, dice)
        for name, folder in tops.items():
            _write(folder, names, target / name, leaves if name in cut else Leaves.ALL, dice)

    def _surviving(
        self, cut: Collection[Folder], leaves: Leaves, dice: random.Random
    ) -> Mapping[int, Mapping[str, Node | None]]:
        """By folder: the names that differ from its durable ones."""
        lost = {id(folder) for top in cut for folder in _folders(top)}
        ended: set[int] = set()
        left: dict[int, dict[str, Node | None]] = {}
        for naming in self._namings:
            folders = {id(folder) for folder, _, _ in naming.changes}
            if folders & ended or (folders & lost and not _survives(leaves, dice)):
                ended |= folders
                continue
            for folder, name, node in naming.changes:
                left.setdefault(id(folder), {})[name] = node
        return left


def _inside(folder: Folder, parts: Sequence[str]) -> Folder | None:
    for part in parts:
        inner = folder.now.get(part)
        if not isinstance(inner, Folder):
            return None
        folder = inner
    return folder


def _survives(leaves: Leaves, dice: random.Random) -> bool:
    return leaves is Leaves.ALL or (leaves is not Leaves.NOTHING and dice.random() < 0.7)


def _folders(folder: Folder) -> Iterator[Folder]:
    """The folder and all that are or were in it."""
    yield folder
    for node in {id(node): node for names in (folder.now, folder.durable) for node in names.values()}.values():
        if isinstance(node, Folder):
            yield from _folders(node)


def _files(folder: Folder, path: Path) -> Iterator[tuple[Path, tuple[bytearray, int]]]:
    """Every file as its processes see it: its bytes, and its size where zeros follow."""
    for name, node in folder.now.items():
        if isinstance(node, Folder):
            yield from _files(node, path / name)
        else:
            content, size = bytearray(node.content), node.size
            for _, record in node.pending:
                size = _apply(record, content, size)
            yield path / name, (content, size)


def _put(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _write(
    folder: Folder, changed: Mapping[int, Mapping[str, Node | None]], path: Path, leaves: Leaves, dice: random.Random
) -> None:
    path.mkdir(parents=True)
    names: dict[str, Node] = dict(folder.durable)
    for name, node in changed.get(id(folder), {}).items():
        _put(names, name, node)
    for name, inner in sorted(names.items()):
        if isinstance(inner, Folder):
            _write(inner, changed, path / name, leaves, dice)
        else:
            _write_file(inner, path / name, leaves, dice)


def _write_file(file: File, path: Path, leaves: Leaves, dice: random.Random) -> None:
    content, size = file.content, file.size
    if file.pending and leaves is not Leaves.NOTHING:
        content = bytearray(content)
        for record in _chosen([record for _, record in file.pending], leaves, dice):
            size = _apply(record, content, size, sectors=_sectors(record, leaves, dice))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _chosen(records: Sequence[Record], leaves: Leaves, dice: random.Random) -> Sequence[Record]:
    match leaves:
        case Leaves.LAST:
            return records[-1:]
        case Leaves.SOME | Leaves.TORN:
            kept = dice.choice((0.2, 0.5, 0.8))
            return [record for record in records if dice.random() < kept]
        case _:
            return records


def _sectors(record: Record, leaves: Leaves, dice: random.Random) -> Collection[int] | None:
    """Which sectors of a write are there; None for all of them."""
    if leaves is not Leaves.TORN or record.kind is not Kind.WRITTEN or dice.random() < 0.5:
        return None
    every = range(record.offset // SECTOR, (record.offset + record.size - 1) // SECTOR + 1)
    match dice.choice(("first", "last", "any", "none")):
        case "first":
            return every[: dice.randrange(len(every) + 1)]
        case "last":
            return every[dice.randrange(len(every) + 1) :]
        case "any":
            return {sector for sector in every if dice.random() < 0.5}
        case _:
            return ()  # the file is longer, and nothing was written there


def _apply(record: Record, content: bytearray, size: int, *, sectors: Collection[int] | None = None) -> int:
    """Do what the record did, or some sectors of it; returns the file's size."""
    if record.kind is Kind.TRUNCATED:
        del content[record.size :]
        return record.size
    end = record.offset + record.size
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if sectors is None:
        content[record.offset : end] = record.data
    for sector in sectors or ():
        first, last = max(sector * SECTOR, record.offset), min((sector + 1) * SECTOR, end)
        content[first:last] = record.data[first - record.offset : last - record.offset]
    return max(size, end)
