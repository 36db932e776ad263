"""Making a backup: of a running agent's store, or of one that nobody owns.

Order: the store is copied in one snapshot; then comes what lies beside it (raw documents, which are there before the events that
speak of them, and the folders `ca` and `identity`); all of it is read back from the disk and looked at; the manifest is written;
the whole gets its name. Only then it is noted in the store and the audit. Concurrency: one backup at a time an agent, on a thread
of its own with a connection that cannot write. Crash: until it has its name a backup is a hidden folder, which the next one
removes; a backup that has its name and was not noted is whole, and no reason yet to let old events go.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from agent.backup_folder import (
    FORMAT,
    KEPT_FOLDERS,
    STOPPED,
    STORE,
    AuditEntry,
    DocumentEntry,
    FileEntry,
    Manifest,
    copy_file,
    document_in,
    entry_of,
    free_name,
    lock,
    look_into,
    publish,
    refusing,
    unfinished,
)
from agent.control.endpoint import store_in
from agent.crash_points import CrashPoint, ignore
from connectors.files.folder import sync_folder
from state import audit, backup
from state.audit import GENESIS
from state.backup import Contents, GoOn
from state.database import Database
from state.engine import connect_reader, connect_writer, settle_wal
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, ConflictError, DistctlError, NotFoundError, StoreError
from state.sqlite_errors import translate
from state.store_file import Ownership, restore_mark

ROOM_KEPT: Final = 128 * 1024 * 1024
"""Bytes where the store is. A backup that would leave less ends: it never makes the agent stop taking in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was verified and published."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    held: Contents


class Backups:
    """The backups of a running agent."""

    def __init__(self, database: Database, *, site: str, data: Path, clock: Clock, crash: CrashPoint = ignore) -> None:
        self._database = database
        self._site = site
        self._data = data
        self._clock = clock
        self._crash = crash
        self._making = asyncio.Lock()
        self._stopped = threading.Event()

    async def make(self, folder: Path, *, by: str) -> Backup:
        """Publish a verified backup in `folder` and note it, audited.

        Raises `ConflictError` where one is being made, `ConfigError` for a folder that is not absolute, `StoreError` where it
        cannot be made, or `DistctlError` where the copy does not pass its checks.
        """
        if not folder.is_absolute():
            raise ConfigError(
                f"the folder {folder} is not absolute", hint="Name it from the root", code="backup-folder"
            )
        if self._making.locked():
            raise ConflictError("a backup is being made", hint="Wait for its end", code="backup-runs")
        async with self._making:
            made = await asyncio.to_thread(self._make, folder)
            await self._database.write(partial(_note, made, self._clock.now(), by), name="backup.note")
            return made

    @property
    def is_making(self) -> bool:
        """Whether one is being made."""
        return self._making.locked()

    def stop(self) -> None:
        """The agent ends: so does the backup that is being made."""
        self._stopped.set()

    def _make(self, folder: Path) -> Backup:
        with _of_store(self._database.path), closing(connect_reader(self._database.path)) as source:
            return make(
                source,
                data=self._data,
                folder=folder,
                site=self._site,
                clock=self._clock,
                go_on=self._go_on,
                crash=self._crash,
            )

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise StoreError("the agent ends, and the backup with it", hint="Begin again later", code=STOPPED)
        free = shutil.disk_usage(self._data).free
        if free < ROOM_KEPT:
            hint = f"Nothing was published. Make room under {self._data}: while a backup runs, the store's WAL grows"
            raise StoreError(
                f"only {free / 1024**2:,.0f} MiB are left where the store is", hint=hint, code="backup-full"
            )


def make_alone(
    data: Path, folder: Path, *, site: str | None, clock: Clock, by: str, crash: CrashPoint = ignore
) -> Backup:
    """Publish a verified backup of a store that no agent owns, and note it. Blocks.

    A store of an older version is copied as it is, for whoever is about to install a newer one. Raises as `Backups.make`, and
    `NotFoundError` where there is no store.
    """
    path = store_in(data)
    if not path.exists() and not restore_mark(path).exists():
        raise NotFoundError(f"there is no store at {path}", hint="Name the agent's --data folder", code="no-store")
    ownership = Ownership(path)
    try:
        with _of_store(path), closing(connect_writer(path)) as connection:
            settle_wal(connection, path)
            site = _site_of(backup.contents(connection), site, path)
            made = make(connection, data=data, folder=folder, site=site, clock=clock, crash=crash)
            connection.execute("BEGIN IMMEDIATE")
            _note(made, clock.now(), by, connection)
            connection.execute("COMMIT")
            return made
    finally:
        ownership.release()


def make(
    source: sqlite3.Connection,
    *,
    data: Path,
    folder: Path,
    site: str,
    clock: Clock,
    go_on: GoOn = lambda: None,
    crash: CrashPoint = ignore,
) -> Backup:
    """Publish a verified backup of what `source` sees now and of what lies beside it in `data`. Notes nothing. Blocks."""
    with refusing(folder), lock(folder):
        taken_at = clock.now()
        name = free_name(folder, f"{site or 'store'}-{taken_at:%Y%m%dT%H%M%SZ}")
        with unfinished(folder, name) as path:
            _copy_store(source, path / STORE, go_on)
            crash("backup.after_copy")
            held, wrong = look_into(path / STORE, expected=GENESIS, go_on=go_on)
            if held is None:
                raise _damaged(data, folder, wrong)
            manifest = Manifest(
                format=FORMAT,
                version=version("distctl"),
                step=held.step,
                site=site,
                epoch=held.epoch,
                estate=held.estate,
                taken_at=taken_at,
                events=held.events,
                last_event=held.last_event,
                audit=AuditEntry(seq=held.audit.seq, hash=held.audit.hash),
                files=[entry_of(path / STORE, STORE, go_on=go_on), *_copy_folders(data, path, go_on)],
                documents=list(_copy_documents(data, folder, path, held, go_on)),
                missing_documents=[one for one in held.documents if not document_in(folder, one).exists()],
            )
            crash("backup.before_publish")
            manifest_hash = publish(path, manifest, folder / name)
        crash("backup.after_publish")
        return Backup(path=folder / name, manifest=manifest, manifest_sha256=manifest_hash, held=held)


def _damaged(data: Path, folder: Path, wrong: list[str]) -> DistctlError:
    hint = f"Nothing was published. `distctl doctor --data {data}` looks at the store itself; else look at the disk of {folder}"
    return DistctlError(f"the copy did not pass its checks: {'; '.join(wrong)}", hint=hint, code="backup-damaged")


def _copy_store(source: sqlite3.Connection, target: Path, go_on: GoOn) -> None:
    try:
        backup.copy(source, target, go_on=go_on)
    except StoreError as error:
        if error.code != "store-full":
            raise
        told = f"the disk is full: the store does not fit into {target.parent.parent}"
        hint = "Nothing was published. Make room there and begin again"
        raise StoreError(told, hint=hint, code="backup-full") from error


def _copy_folders(data: Path, path: Path, go_on: GoOn) -> Iterator[FileEntry]:
    """What makes the agent who it is: its keys and, at a hub, its authority."""
    for kept in KEPT_FOLDERS:
        for source in sorted((data / kept).rglob("*")):
            if source.is_symlink() or not source.is_file() or source.name.startswith("."):
                continue
            relative = source.relative_to(data)
            _make_folders(path, relative.parent)
            entry = copy_file(source, path / relative, go_on=go_on)
            yield entry.model_copy(update={"path": str(relative)})


def _make_folders(path: Path, relative: Path) -> None:
    for part in reversed([relative, *relative.parents]):
        (path / part).mkdir(mode=0o700, exist_ok=True)


def _copy_documents(data: Path, folder: Path, path: Path, held: Contents, go_on: GoOn) -> Iterator[DocumentEntry]:
    """Raw documents that the folder does not have yet; they never change, so those it has are not read again."""
    for name in held.documents:
        target, source = document_in(folder, name), document_in(data, name)
        if not target.exists() and source.exists():
            copied = copy_file(source, path / name, go_on=go_on)
            if copied.sha256 != name:
                (path / name).unlink()
                continue  # the archive lost it: the disk gives back something else
            _make_folders(folder, Path("raw", name[:2]))
            (path / name).rename(target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)
            sync_folder(folder)
        if target.exists():
            yield DocumentEntry(sha256=name, size=target.stat().st_size)


def _note(made: Backup, now: datetime, by: str, connection: sqlite3.Connection) -> None:
    was_noted = backup.note(
        connection,
        made.held,
        name=made.path.name,
        folder=str(made.path.parent),
        manifest_sha256=made.manifest_sha256,
        taken_at=made.manifest.taken_at,
        now=now,
    )
    if was_noted:
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor=by,
            action="back up",
            target="store",
            reason=f"to {made.path}",
            details={"manifest": made.manifest_sha256, "last_event": made.manifest.last_event},
        )


def _site_of(held: Contents, site: str | None, path: Path) -> str:
    if site and held.site and held.site != site:
        raise ConfigError(
            f"the store {path} belongs to site {held.site}, not to {site}",
            hint=f"Leave out --site, or name the --data folder of {site}",
            code="other-site",
        )
    return held.site or site or ""


@contextmanager
def _of_store(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, operation="a backup", path=path, writing=False) from error
