"""A folder of backups: what a published backup consists of, which there are, and whether one can be trusted.

A backup is a folder of its own with `manifest.json` and what that lists. Raw documents, which never change, are shared by all
backups of the folder and lie under their hash in `raw/`. A backup is made under a hidden name and published by rename, so what
has a plain name is whole. Concurrency: `lock` lets one process at a time make backups there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.control.schema import BackupRow
from connectors.files.folder import sync_folder
from state import backup
from state.audit import AuditHead
from state.backup import Contents, GoOn
from state.model.errors import ConflictError, DistctlError, NotFoundError, StoreError
from state.model.ids import sha256

FORMAT: Final = 1
"""Of the manifest. A higher one is refused: it may list what this version would leave out."""

MANIFEST: Final = "manifest.json"
STORE: Final = "distctl.db"
KEPT_FOLDERS: Final = ("ca", "identity")
"""Folders of an agent's data that are part of a backup where they exist."""

_UNFINISHED: Final = ".unfinished-"
_CHUNK: Final = 1 << 20

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class FileEntry(_Part):
    """One file of a backup. `path` is relative to its folder."""

    path: str = Field(pattern=r"^[^/.][^/]*(/[^/.][^/]*)*$")
    size: int
    sha256: Hash


class DocumentEntry(_Part):
    """A raw document that was too large for the store; in `raw/` of the folder of backups."""

    sha256: Hash
    size: int


class AuditEntry(_Part):
    """How far the audit's chain reaches."""

    seq: int
    hash: Hash


class Manifest(_Part):
    """What a backup is of and what it consists of."""

    format: int
    version: str = Field(description="of the distctl that made it")
    step: int = Field(description="of the store's schema")
    site: str
    epoch: int = Field(description="of the store; 0: it was older than epochs")
    estate: str | None = Field(None, description="hash of the estate in force")
    taken_at: datetime = Field(description="nothing that came after is in it")
    events: int
    last_event: int = Field(description="it has every event up to this number")
    audit: AuditEntry
    files: list[FileEntry]
    documents: list[DocumentEntry]
    missing_documents: list[Hash] = Field([], description="the agent's own archive had lost them already")

    @property
    def size(self) -> int:
        """Bytes, with the documents that it shares with others."""
        return sum(one.size for one in self.files) + sum(one.size for one in self.documents)

    @property
    def audit_head(self) -> AuditHead:
        """The head to which its audit has to lead."""
        return AuditHead(seq=self.audit.seq, hash=self.audit.hash)

    def describes(self, held: Contents) -> bool:
        """Whether a store that holds this is the one that it lists."""
        return (self.step, self.site, self.epoch, self.events, self.last_event, self.audit_head) == (
            held.step,
            held.site or self.site,
            held.epoch,
            held.events,
            held.last_event,
            held.audit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A backup that was looked at as a whole; without findings it can be trusted."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    held: Contents | None  # what its store holds, as far as that can be read
    findings: tuple[str, ...]


# --- reading ------------------------------------------------------------------------------------------------------


def published(folder: Path) -> list[BackupRow]:
    """The backups in `folder`, newest first; those that cannot be read come last. Raises `NotFoundError`."""
    with refusing(folder):
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no folder {folder}", hint="Name the folder that backups go to", code="no-folder"
            )
        found = [_published(path) for path in sorted(folder.iterdir()) if _is_backup(path)]
    return sorted(found, key=_age, reverse=True)


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest of the backup at `path` and its hash. Raises `NotFoundError`, `StoreError`."""
    try:
        raw = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        hint = "Name one of those that `distctl backup list FOLDER` shows"
        raise NotFoundError(f"{path} is no backup: it has no {MANIFEST}", hint=hint, code="no-backup") from None
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise StoreError(f"{path / MANIFEST} is no manifest: {place}: {first['msg']}", code="bad-manifest") from None
    if manifest.format > FORMAT:
        hint = f"Use distctl {manifest.version} or newer, which made it"
        raise StoreError(
            f"the backup {path} is of a newer form than this distctl knows", hint=hint, code="newer-backup"
        )
    return manifest, sha256(raw)


def verify(path: Path, *, go_on: GoOn = lambda: None) -> Verdict:
    """Look at the backup at `path` as a whole: every file by its hash, and the store in it page by page.

    Raises `NotFoundError` where there is none, and `StoreError` where it cannot be read.
    """
    path = path.absolute()
    manifest, manifest_hash = read_manifest(path)
    findings: list[str] = []
    for entry in manifest.files:
        findings += _differing(path / entry.path, entry.size, entry.sha256, go_on)
    for document in manifest.documents:
        findings += _differing(document_in(path.parent, document.sha256), document.size, document.sha256, go_on)
    held, wrong = look_into(path / STORE, expected=manifest.audit_head, go_on=go_on)
    findings += wrong
    if held and not manifest.describes(held):
        findings.append("the store holds other things than the manifest says")
    return Verdict(path=path, manifest=manifest, manifest_sha256=manifest_hash, held=held, findings=tuple(findings))


def look_into(store: Path, *, expected: AuditHead, go_on: GoOn) -> tuple[Contents | None, list[str]]:
    """What the copied store holds and what is wrong with it. Holds nothing that can be told where it is no store at all."""
    if not store.is_file():
        return None, [f"{store.name} is missing"]
    try:
        with backup.opened(store, go_on=go_on) as connection:
            if wrong := backup.findings(connection, expected=expected):
                return None, wrong
            return backup.contents(connection), []
    except DistctlError as error:
        if error.code == STOPPED:
            raise
        return None, [error.message]


def document_in(folder: Path, name: str) -> Path:
    """Where a raw document of that hash lies in a folder of backups, or in an agent's data."""
    return folder / "raw" / name[:2] / name


STOPPED: Final = "backup-stopped"
"""The code of the error that ends long work when a person or the agent's end asks for it."""


def _is_backup(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path.name != "raw" and (path / MANIFEST).exists()


def _published(path: Path) -> BackupRow:
    try:
        return row_of(path, *read_manifest(path))
    except DistctlError as error:
        return BackupRow(name=path.name, path=str(path), problem=error.message)


def row_of(path: Path, manifest: Manifest, manifest_sha256: str) -> BackupRow:
    """The backup at `path` as it is listed."""
    return BackupRow(
        name=path.name,
        path=str(path),
        site=manifest.site,
        epoch=manifest.epoch,
        taken_at=manifest.taken_at,
        events=manifest.events,
        last_event=manifest.last_event,
        size=manifest.size,
        missing_documents=len(manifest.missing_documents),
        version=manifest.version,
        manifest_sha256=manifest_sha256,
    )


def _age(one: BackupRow) -> tuple[float, str]:
    return (one.taken_at.timestamp() if one.taken_at else 0, one.name)


def _differing(path: Path, size: int, expected: str, go_on: GoOn) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                yield f"{path.name} has {found:,} bytes instead of {size:,}"
            elif _hash(file.read, go_on) != expected:
                yield f"{path.name} is not what was written: its SHA-256 differs"
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}"


# --- writing ------------------------------------------------------------------------------------------------------


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the one that makes backups in `folder`, which is made if its parent is there. Removes what one that was killed left.

    Raises `ConflictError` where another process is at it.
    """
    with refusing(folder):
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with refusing(folder):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"another backup is being made in {folder}", hint="Wait for its end", code="backup-runs"
                ) from None
            for path in folder.glob(f"{_UNFINISHED}*"):
                remove(path)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unfinished(folder: Path, name: str) -> Iterator[Path]:
    """A hidden folder in which the backup `name` is made; gone at the end, unless it was published."""
    path = folder / f"{_UNFINISHED}{name}"
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        if path.exists():
            remove(path)


def free_name(folder: Path, wish: str) -> str:
    """`wish`, with a number where that name is taken."""
    names = (wish if number == 1 else f"{wish}-{number}" for number in range(1, 1000))
    return next(name for name in names if not (folder / name).exists())


def publish(path: Path, manifest: Manifest, target: Path) -> str:
    """Write the manifest into the finished backup at `path` and give it its name; returns the manifest's hash."""
    raw = manifest.model_dump_json(indent=1).encode() + b"\n"
    write(path / MANIFEST, raw)
    for folder in (*(one for one in path.rglob("*") if one.is_dir()), path):
        sync_folder(folder)
    path.rename(target)
    sync_folder(target.parent)
    return sha256(raw)


def write(path: Path, content: bytes) -> None:
    """A new file of mode 0600 that is on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path, *, go_on: GoOn = lambda: None) -> FileEntry:
    """A copy of mode 0600 that is on the disk when this returns; its entry has the path `target.name`."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:

        def read(size: int) -> bytes:
            chunk = reading.read(size)
            writing.write(chunk)
            return chunk

        found = _hash(read, go_on)
        writing.flush()
        os.fsync(writing.fileno())
        return FileEntry(path=target.name, size=writing.tell(), sha256=found)


def entry_of(path: Path, relative: str, *, go_on: GoOn) -> FileEntry:
    """The entry of a file that is there, by what the disk gives back."""
    with path.open("rb") as file:
        found = _hash(file.read, go_on)
        return FileEntry(path=relative, size=file.tell(), sha256=found)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            remove(inner)
        path.rmdir()
    else:
        path.unlink()


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """What the operating system refuses becomes a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise _refusal(folder, error) from error


def _refusal(folder: Path, error: OSError) -> StoreError:
    told = f"{error.filename or folder}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = f"Nothing was published. Make room under {folder} and begin again"
        return StoreError(f"the disk is full: {told}", hint=hint, code="backup-full")
    hint = "The account that makes the backup must be able to write there; under systemd the unit has to name the folder too"
    return StoreError(f"the folder of backups cannot be used: {told}", hint=hint, code="backup-folder")


def _hash(read: Callable[[int], bytes], go_on: GoOn) -> str:
    state = hashlib.sha256()
    while chunk := read(_CHUNK):
        state.update(chunk)
        go_on()
    return state.hexdigest()
