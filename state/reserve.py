"""Room kept back beside the store, given up when the disk is full, so that results and the audit can still be written.

The agent takes nothing new in long before that: what is left to write is what targets have said of calls that were made, and
what people decide. The file is allocated, not sparse: a file system that has promised the blocks keeps them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE: Final = 8 * 1024 * 1024
"""Bytes: some 50,000 results."""


class Reserve:
    """The reserve in one file."""

    def __init__(self, path: Path, *, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self.is_given_up = False
        """Whether it was released and could not be filled since."""

    def fill(self, *, leaving: int) -> None:
        """Set it aside again, as soon as that leaves so many bytes free."""
        if self._path.exists():
            return
        with suppress(OSError):  # somebody else was faster, or the mount is read-only
            if shutil.disk_usage(self._path.parent).free >= self._size + leaving:
                self._allocate()
                self.is_given_up = False

    def release(self) -> bool:
        """Give it up; answers whether there was anything to give."""
        try:
            self._path.unlink()
        except OSError:
            return False
        self.is_given_up = True
        return True

    def _allocate(self) -> None:
        unfinished = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
            unfinished.replace(self._path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
