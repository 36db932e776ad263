"""One file: inspected, hashed and decoded in portions, and caught when it changes meanwhile. Blocking.

Up to 16 MiB are read once, into memory, so that what was hashed is what is decoded. A larger file is read twice and hashed both
times; records of a portion are handed on only while the file looks as it did.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from connectors.base import RawDocument, SourceRecord, UnreadableRecord
from connectors.files.folder import Fingerprint, fingerprint_at, kind_of, open_untricked
from connectors.files.ledger import Identity
from connectors.formats.codec import decode
from connectors.formats.records import BadRecord, ByteSource, Record, place
from connectors.formats.settings import FormatSettings
from state.model.errors import RejectedError
from state.model.visible import visible

HELD_SIZE: Final = 16 * 1024 * 1024  # bytes; the store keeps documents up to here
PORTION_SIZE: Final = 4 * 1024 * 1024  # bytes of raw records in one portion, whatever their number
KEPT_OF_SPOILED: Final = 64 * 1024  # bytes of a file that is bad as a whole
_PIECE_SIZE: Final = 1024 * 1024


class MovedError(Exception):
    """The file changed, or was replaced, while it was read. Never leaves this connector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The first `size` bytes of a file and their hash."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A file whose bytes are known. `content` is None where it is too large to hold."""

    path: Path
    identity: Identity
    content: bytes | None
    begins_as: bool  # it begins with what was taken before it grew

    @property
    def shown_name(self) -> str:
        """The name for people."""
        return visible(self.path.name)

    def document(self, key: str) -> RawDocument:
        """The bytes as the agent keeps them."""
        return RawDocument(
            name=self.shown_name,
            sha256=self.identity.sha256,
            size=self.identity.fingerprint.size,
            content=self.content,
            path=None if self.content is not None else self.path,
            key=key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Some records; `is_last` marks the end of the file."""

    records: tuple[SourceRecord | UnreadableRecord, ...]
    is_last: bool
    is_spoiled: bool = False  # the file is bad as a whole; the records before that are good


def inspect(path: Path, expected: Fingerprint, grown_from: Beginning | None) -> Inspected:
    """Read and hash the file. Raises `MovedError` where it is not what was expected, `OSError` where it cannot be read."""
    with os.fdopen(_open(path), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if kind_of(status.st_mode) or Fingerprint.of(status) != expected:
            raise MovedError(path.name)
        hashing = _Hashing(file, expected.size, grown_from)
        content = _read_all(hashing) if expected.size <= HELD_SIZE else None
        if content is None:
            _read_through(hashing)
        if hashing.size != expected.size or Fingerprint.of(os.fstat(file.fileno())) != expected:
            raise MovedError(path.name)
    identity = Identity(name=path.name, sha256=hashing.sha256, fingerprint=expected, changed_ns=status.st_ctime_ns)
    return Inspected(path=path, identity=identity, content=content, begins_as=hashing.began_as_expected)


def portions(inspected: Inspected, settings: FormatSettings, size: int) -> Iterator[Portion]:
    """The file's records, at most `size` at a time. Raises `MovedError` or `OSError` like `inspect`."""
    kept: list[SourceRecord | UnreadableRecord] = []
    kept_bytes = 0
    is_spoiled = False
    name, changed_at = inspected.shown_name, modified_at(inspected.identity.fingerprint)
    with _reopened(inspected) as (source, check_end):
        try:
            for found in decode(source, settings):
                kept.append(_record(found, name, changed_at))
                kept_bytes += len(found.raw)
                if len(kept) >= size or kept_bytes >= PORTION_SIZE:
                    _check_unmoved(inspected)
                    yield Portion(records=tuple(kept), is_last=False)
                    kept, kept_bytes = [], 0
        except RejectedError as error:
            is_spoiled = True
            kept.append(_spoiled(error, inspected))
        check_end()
    yield Portion(records=tuple(kept), is_last=True, is_spoiled=is_spoiled)


def _open(path: Path) -> int:
    try:
        return open_untricked(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket took its place
            raise MovedError(path.name) from error
        raise


class _Hashing:
    """Reads at most `limit` bytes and hashes them; a file that grows is not run after."""

    def __init__(self, file: io.FileIO, limit: int, grown_from: Beginning | None = None) -> None:
        self._file = file
        self._left = limit
        self._hash = hashlib.sha256()
        self._expected = grown_from
        self.size = 0
        self.began_as_expected = False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        self._compare(data)
        self._hash.update(data)
        self.size += len(data)
        return data

    def _compare(self, data: bytes) -> None:
        if self._expected is not None and self.size <= self._expected.size <= self.size + len(data):
            beginning = self._hash.copy()
            beginning.update(data[: self._expected.size - self.size])
            self.began_as_expected = beginning.hexdigest() == self._expected.sha256


@contextmanager
def _reopened(inspected: Inspected) -> Iterator[tuple[ByteSource, Callable[[], None]]]:
    """The bytes again, and the check to make at their end."""
    if inspected.content is not None:
        yield io.BytesIO(inspected.content), lambda: None
        return
    with os.fdopen(open_untricked(inspected.path), "rb", buffering=0) as file:
        hashing = _Hashing(file, inspected.identity.fingerprint.size)
        yield hashing, partial(_check_second_reading, hashing, inspected)


def _check_second_reading(hashing: _Hashing, inspected: Inspected) -> None:
    _read_through(hashing)
    _check_unmoved(inspected)
    if hashing.sha256 != inspected.identity.sha256:
        raise MovedError(inspected.path.name)


def _check_unmoved(inspected: Inspected) -> None:
    if inspected.content is None and fingerprint_at(inspected.path) != inspected.identity.fingerprint:
        raise MovedError(inspected.path.name)


def _read_all(source: ByteSource) -> bytes:
    pieces = []
    while piece := source.read(_PIECE_SIZE):
        pieces.append(piece)
    return b"".join(pieces)


def _read_through(source: ByteSource) -> None:
    while source.read(_PIECE_SIZE):
        pass


def _record(found: Record | BadRecord, name: str, changed_at: datetime) -> SourceRecord | UnreadableRecord:
    if isinstance(found, BadRecord):
        return _unreadable(found, name)
    return SourceRecord(
        position=str(found.number),
        place=f"{name} line {found.line}",
        fields=found.fields,
        raw=found.raw,
        changed_at=changed_at,
    )


def _unreadable(found: BadRecord, name: str) -> UnreadableRecord:
    return UnreadableRecord(
        position=str(found.number),
        place=f"{name} {place(found.line, found.column)}".rstrip(),
        rule=found.rule,
        shown=found.shown,
        message=f"{name} {found.place}".rstrip() + f": {found.rule}",
        hint=found.hint,
        code=found.code,
        raw=found.raw,
        field=found.field,
    )


def _spoiled(error: RejectedError, inspected: Inspected) -> UnreadableRecord:
    where = f"{inspected.shown_name} {error.place}".rstrip()
    return UnreadableRecord(
        position="file",
        place=where,
        rule=error.rule or error.message,
        shown=error.shown,
        message=f"{where}: {error.rule or error.message}; the file is in quarantine",
        hint=error.hint,
        code=error.code,
        raw=_beginning(inspected),
    )


def _beginning(inspected: Inspected) -> bytes:
    if inspected.content is not None:
        return inspected.content[:KEPT_OF_SPOILED]
    with os.fdopen(open_untricked(inspected.path), "rb") as file:
        return file.read(KEPT_OF_SPOILED)


def modified_at(fingerprint: Fingerprint) -> datetime:
    """When the file was last written, in UTC; a time that no calendar holds is the epoch."""
    try:
        return datetime.fromtimestamp(fingerprint.modified_ns / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
