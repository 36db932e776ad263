"""Files that only the agent's account may read: written whole or not at all, and on disk when the call returns."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

from connectors.files.folder import make_folder, sync_folder
from state.model.errors import ConfigError

_log: Final = logging.getLogger("distctl.identity")
_FOR_OTHERS: Final = 0o077


def make_private_folder(folder: Path) -> None:
    """A folder of mode 0700, on disk with the one that it is in when the call returns. Raises `ConfigError`."""
    try:
        make_folder(folder.parent)  # an agent's data: the command that enrols it may just have made it
        make_folder(folder, mode=0o700)
    except OSError as error:
        raise _cannot("make the folder", folder, error) from error


def write_private(path: Path, content: bytes) -> None:
    """Replace the file by one of mode 0600 with that content. Raises `ConfigError`; the file before is then untouched."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # a leftover may be open to others
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _cannot("write", path, error) from error


def read_private(path: Path) -> bytes | None:
    """The file's content, None where it is missing. One that others may read is closed to them, and the log says so.

    Raises `ConfigError` where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _FOR_OTHERS:
                _log.warning("%s had mode %04o and holds a private key: it is 0600 now", path, mode)
                os.fchmod(file.fileno(), 0o600)
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from error


def _cannot(do: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot {do} {path}: {error.strerror}",
        file=str(path),
        hint="the agent's account must own the data folder and everything in it",
        code="private-file",
    )
