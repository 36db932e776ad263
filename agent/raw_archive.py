"""Raw documents too large for the store: copied to a folder under their hash and fsynced before the events are committed.

Concurrency: one document is copied at a time, since two flows may take the same one. Crash: what a copy left half done has a
name of its own, and is written over by the next one. One that is there under its hash is whole, and its name is made durable
again: whoever gave it that may have been killed before.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import BinaryIO, Final

from connectors.base import RawDocument
from connectors.files.folder import make_folder, sync_folder
from state.model.errors import StoreError, TransientError
from state.model.visible import visible

_CHUNK: Final = 1 << 20


class RawArchive:
    """A folder of documents by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copying = threading.Lock()
        self._asked_for: set[str] = set()  # since this start: whoever asked commits a row that means the file

    def path_of(self, sha256: str) -> Path:
        """Where a document of that hash lies."""
        return self._folder / sha256[:2] / sha256

    def keep(self, document: RawDocument) -> None:
        """Copy the document here, unless it is here. Blocks; raises `TransientError` where it changed meanwhile."""
        if document.path is None:
            return
        target = self.path_of(document.sha256)
        try:
            with self._copying:
                self._asked_for.add(document.sha256)
                make_folder(self._folder, mode=0o750)
                make_folder(target.parent, mode=0o750)
                if not target.exists():
                    _keep(document.path, target)
                sync_folder(target.parent)
        except OSError as error:
            raise StoreError(
                f"the raw document {document.name} cannot be kept in {self._folder}: {error.strerror}",
                hint="free space there, or give the agent the right to write",
                code="raw-archive",
            ) from error

    def remove(self, sha256: str) -> bool:
        """Remove a document that nothing speaks of; answers False where it was kept since this start and may be needed again.

        Blocks. Raises `StoreError`.
        """
        target = self.path_of(sha256)
        try:
            with self._copying:
                if sha256 in self._asked_for:
                    return False
                target.unlink(missing_ok=True)
                if target.parent.exists():
                    sync_folder(target.parent)
                return True
        except OSError as error:
            raise StoreError(
                f"the raw document {sha256} cannot be removed from {self._folder}: {error.strerror}",
                hint="give the agent the right to write there",
                code="raw-archive",
            ) from error


def _keep(path: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    try:
        with path.open("rb") as source, partial.open("wb") as copy:
            found = _copy(source, copy)
        if found != target.name:
            raise TransientError(
                f"{visible(path.name)} changed while it was read", hint="it is read again", code="changed"
            )
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: BinaryIO, copy: BinaryIO) -> str:
    """Copy all of `source`, fsynced; returns the hash of what was copied."""
    state = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        state.update(chunk)
        copy.write(chunk)
    copy.flush()
    os.fsync(copy.fileno())
    return state.hexdigest()
