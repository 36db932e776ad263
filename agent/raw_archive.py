"""Raw documents too large for the store: copied to a folder under their hash and fsynced before the events are committed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

from connectors.base import RawDocument
from state.model.errors import StoreError, TransientError

_CHUNK: Final = 1 << 20


class RawArchive:
    """A folder of documents by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, sha256: str) -> Path:
        """Where a document of that hash lies."""
        return self._folder / sha256[:2] / sha256

    def keep(self, document: RawDocument) -> None:
        """Copy the document here, unless it is here. Blocks; raises `TransientError` where it changed meanwhile."""
        if document.path is None or self.path_of(document.sha256).exists():
            return
        target = self.path_of(document.sha256)
        partial = target.with_suffix(".partial")
        try:
            target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with document.path.open("rb") as source, partial.open("wb") as copy:
                found = _copy(source, copy)
            if found != document.sha256:
                partial.unlink()
                raise TransientError(
                    f"{document.name} changed while it was read", hint="it is read again", code="changed"
                )
            partial.rename(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise StoreError(
                f"the raw document {document.name} cannot be kept in {self._folder}: {error.strerror}",
                hint="free space there, or give the agent the right to write",
                code="raw-archive",
            ) from error


def _copy(source: BinaryIO, copy: BinaryIO) -> str:
    """Copy all of `source`, fsynced; returns the hash of what was copied."""
    state = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        state.update(chunk)
        copy.write(chunk)
    copy.flush()
    os.fsync(copy.fileno())
    return state.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
