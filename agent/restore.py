"""Putting a store back from a backup that was verified: the store side of `distctl restore`.

Order: everything is copied into `DATA/restored`, where the store begins its next life and is looked at once more. Then a mark
beside the store says that the exchange has begun, the store that is there is moved aside with its WAL and never removed, each new
piece gets its name, the store as the last, and the mark goes. Keys that are there stay: they are newer than those of a backup.
Concurrency: the right to write the store is held all the time, so no agent starts meanwhile. Crash: without the mark nothing has
happened and the next run begins anew; with it no agent starts, and the next run does what is left. Each step of the exchange is
done or not done, and shows which.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.backup_folder import KEPT_FOLDERS, STORE, Verdict, copy_file, document_in, remove, write
from agent.control.endpoint import store_in
from agent.crash_points import CrashPoint, ignore
from connectors.files.folder import make_folder, sync_folder
from state import backup, life, restore
from state.engine import connect_reader, connect_writer, settle_wal
from state.migrations import migrate, shipped
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, ConflictError, InvariantError, StoreError
from state.sqlite_errors import corrupt, translate
from state.store_file import Ownership, restore_mark

_STAGE: Final = "restored"
_BESIDE: Final = (f"{STORE}-wal", f"{STORE}-shm")
"""What belongs to the store that is moved aside, and goes before it."""


class Restored(BaseModel):
    """What a restore did, or, as the mark beside a store, what one has still to do."""

    model_config = ConfigDict(extra="allow", frozen=True)

    backup: str
    manifest_sha256: str
    site: str
    epoch: int
    taken_at: datetime
    last_event: int
    in_doubt: int
    aside: str  # where what was there before lies, in the data folder; empty: nothing was


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asked for."""

    data: Path
    site: str | None
    by: str
    reason: str
    replace: bool = False


def put_back(found: Verdict, order: Order, *, clock: Clock, crash: CrashPoint = ignore) -> Restored:
    """Make the backup the store of the data folder, in its next epoch. Blocks.

    Raises `ConflictError` where an agent owns the store, a restore was interrupted, or something is there and `replace` was not
    said; `ConfigError` for another site's backup; `StoreError` where the disk or the rights do not allow it.
    """
    if found.findings or found.held is None:
        raise InvariantError("a backup with findings cannot be put back")
    with _owned(order.data):
        if begun := _interrupted(order.data):
            hint = f"Finish that one first: `distctl restore {begun.backup} --data {order.data} --reason ...`"
            raise ConflictError(f"a restore of {begun.backup} did not end here", hint=hint, code="half-restored")
        begun = _prepare(found, order, clock, crash)
        crash("restore.before_mark")
        _mark(order.data, begun)
        _exchange(order.data, begun, crash)
        return begun


def finish(data: Path, *, crash: CrashPoint = ignore) -> Restored | None:
    """Do what an interrupted restore left to do; None where none was. Needs no backup: all of it is in the data folder."""
    if not restore_mark(store_in(data)).exists():
        return None
    with _owned(data):
        begun = _interrupted(data)
        if begun is not None:
            _exchange(data, begun, crash)
        return begun


@contextmanager
def _owned(data: Path) -> Iterator[None]:
    """Be the one who may write the store. What the operating system refuses becomes a `StoreError`."""
    try:
        ownership = Ownership(store_in(data), restoring=True)
        try:
            _give_to_owner(data, Path(f"{store_in(data)}.lock"))
            yield
        finally:
            ownership.release()
    except OSError as error:
        hint = f"Nothing that was there is lost. Correct it under {data} and run the restore again: it goes on where it stopped"
        raise StoreError(f"{error.filename or data}: {error.strerror}", hint=hint, code="restore-folder") from error


# --- before anything changes --------------------------------------------------------------------------------------


def _prepare(found: Verdict, order: Order, clock: Clock, crash: CrashPoint) -> Restored:
    data, manifest = order.data, found.manifest
    there = [name for name in (STORE, *_BESIDE) if (data / name).exists()]
    if there and not order.replace:
        raise ConflictError(
            f"{data} holds {', '.join(there)} already",
            hint="With --replace it is moved aside under a name with the date, and kept",
            code="store-there",
        )
    site = manifest.site or order.site
    if not site or order.site not in {None, site}:
        hint = f"Leave out --site: it is of {site}" if site else "Name its site with --site"
        raise ConfigError(
            f"the backup {found.path} is not known to be of site {order.site}", hint=hint, code="other-site"
        )
    stage = data / _STAGE
    if stage.exists():
        remove(stage)
    stage.mkdir(mode=0o700)
    for entry in manifest.files:
        if any(entry.path.startswith(f"{kept}/") and (data / kept).exists() for kept in KEPT_FOLDERS):
            continue  # keys that are there are newer than those of the backup
        target = stage / entry.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if copy_file(found.path / entry.path, target) != entry.model_copy(update={"path": target.name}):
            raise StoreError(f"{entry.path} changed while it was copied", hint="Begin again", code="bad-backup")
    _bring_documents(found, data)
    crash("restore.after_copy")
    now = clock.now()
    epoch, in_doubt = _begin_again(stage / STORE, found, order, site, now=now, above=_highest_epoch(data))
    _give_to_owner(data, stage)
    return Restored(
        backup=str(found.path),
        manifest_sha256=found.manifest_sha256,
        site=site,
        epoch=epoch,
        taken_at=manifest.taken_at,
        last_event=manifest.last_event,
        in_doubt=in_doubt,
        aside=_free_name(data, f"replaced-{now:%Y%m%dT%H%M%SZ}") if there else "",
    )


def _begin_again(path: Path, found: Verdict, order: Order, site: str, *, now: datetime, above: int) -> tuple[int, int]:
    """Give the copied store its next life; returns its epoch and how many deliveries are in doubt."""
    if found.held is None:
        raise InvariantError("a store that cannot be read was to be put back")
    with _of_store(path), closing(connect_writer(path)) as connection:
        migrate(connection, shipped(), now_ms=to_millis(now), crash=ignore)
        connection.execute("BEGIN IMMEDIATE")
        begun, in_doubt = restore.begin_again(
            connection,
            found.held,
            site=site,
            above=above,
            name=found.path.name,
            folder=str(found.path.parent),
            manifest_sha256=found.manifest_sha256,
            taken_at=found.manifest.taken_at,
            now=now,
            by=order.by,
            reason=order.reason,
        )
        connection.execute("COMMIT")
        if wrong := backup.findings(connection, expected=found.manifest.audit_head):
            raise corrupt(path, f"after it was put back: {'; '.join(wrong)}")
        settle_wal(connection, path)
    return begun.epoch, in_doubt


def _bring_documents(found: Verdict, data: Path) -> None:
    """Raw documents that the data folder lacks. They lie under their hash and disturb nobody, so they come first."""
    for document in found.manifest.documents:
        target = document_in(data, document.sha256)
        if target.exists():
            continue
        for folder in (target.parent.parent, target.parent):
            make_folder(folder, mode=0o750)
        unfinished = target.with_suffix(".partial")
        unfinished.unlink(missing_ok=True)
        copied = copy_file(document_in(found.path.parent, document.sha256), unfinished)
        if copied.sha256 != document.sha256:
            raise StoreError(f"{target.name} changed while it was copied", hint="Begin again", code="bad-backup")
        unfinished.rename(target)
        _give_to_owner(data, data / "raw")
        sync_folder(target.parent)


def _highest_epoch(data: Path) -> int:
    """Of the stores that are or were here, as far as they can be read: none of their epochs comes again."""
    stores = [store_in(data), *data.glob(f"replaced-*/{STORE}")]
    return max((_epoch_of(path) for path in stores if path.exists()), default=0)


def _epoch_of(path: Path) -> int:
    with suppress(sqlite3.Error, InvariantError), closing(connect_reader(path)) as connection:
        found = life.find(connection)
        return found.epoch if found else 0
    return 0


def _give_to_owner(data: Path, path: Path) -> None:
    """Root restores for the agent's account, which owns the data folder."""
    if os.geteuid() == 0:
        owner = data.stat()
        for one in (path, *path.rglob("*")):
            os.chown(one, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _free_name(data: Path, wish: str) -> str:
    names = (wish if number == 1 else f"{wish}-{number}" for number in range(1, 1000))
    return next(name for name in names if not (data / name).exists())


# --- the exchange -------------------------------------------------------------------------------------------------


def _mark(data: Path, begun: Restored) -> None:
    _sync_tree(data / _STAGE)
    mark = restore_mark(store_in(data))
    unfinished = mark.with_name(f"{mark.name}.new")
    unfinished.unlink(missing_ok=True)
    write(unfinished, begun.model_dump_json().encode())
    unfinished.rename(mark)
    sync_folder(data)


def _interrupted(data: Path) -> Restored | None:
    """What a restore that did not end has still to do."""
    mark = restore_mark(store_in(data))
    try:
        return Restored.model_validate_json(mark.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        hint = "It was written by another version: finish the restore with that one"
        raise ConflictError(f"{mark} cannot be understood", hint=hint, code="half-restored") from None


def _exchange(data: Path, begun: Restored, crash: CrashPoint) -> None:
    """Move aside and give the new pieces their names, the store as the last; what is done already is not done again."""
    stage = data / _STAGE
    if begun.aside and (stage / STORE).exists():
        _move_aside(data, data / begun.aside, crash)
    for name in (*KEPT_FOLDERS, STORE):
        if (stage / name).exists():
            crash("restore.before_publish")
            (stage / name).rename(data / name)
            sync_folder(data)
            crash("restore.after_publish")
    restore_mark(store_in(data)).unlink()
    if stage.exists():
        remove(stage)
    sync_folder(data)


def _move_aside(data: Path, aside: Path, crash: CrashPoint) -> None:
    """The store goes after its WAL: whoever finds a store here finds it without one of another's."""
    if not aside.exists():
        aside.mkdir(mode=0o700)
        _give_to_owner(data, aside)
    for piece in (*_BESIDE, STORE):
        if (data / piece).exists():
            (data / piece).rename(aside / piece)
            sync_folder(aside)
            sync_folder(data)
            crash("restore.after_move_aside")


def _sync_tree(folder: Path) -> None:
    for one in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir())):
        sync_folder(one)


@contextmanager
def _of_store(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, operation="a restore", path=path, writing=False) from error
