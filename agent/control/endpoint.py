"""Where an agent is found: its data folder, and in it the Unix socket of the control API.

The socket lies in a folder of mode 0750 and has mode 0660, so the operating system lets in root, the agent's own account and the
members of the folder's group, and nobody else. A socket's path may have 107 bytes (unix(7)); a longer one is reached through a
descriptor of its folder.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from state.model.errors import ConfigError, ConflictError

_FOLDER_MODE: Final = 0o750
_FOR_OTHERS: Final = 0o027  # what a folder of mode 0750 denies
_SOCKET_MODE: Final = 0o660
_LONGEST_PATH: Final = 107


def state_home() -> Path:
    """Where agents keep their data folders: /var/lib/distctl for root, else under $XDG_STATE_HOME."""
    if os.geteuid() == 0:
        return Path("/var/lib/distctl")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "distctl"


def data_folder(site: str) -> Path:
    """The data folder of a site's agent, where nobody names another."""
    return state_home() / site


def store_in(data: Path) -> Path:
    """The store of the agent that has its data in `data`."""
    return data / "distctl.db"


def socket_in(data: Path) -> Path:
    """The socket of the agent that has its data in `data`."""
    return data / "control" / "agent.sock"


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, open to the owner and the folder's group. A socket left by a dead agent is replaced.

    Raises `ConflictError` if an agent answers there, `ConfigError` where no socket can be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_folder(path.parent)
        _remove_leftover(path)
        with _address(path) as address:
            listener.bind(address)
        # Nobody can connect before listen(), so there is no moment with other rights.
        _let_in_the_folders_group(path)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = "the agent's account must own the data folder and be able to write there"
        raise ConfigError(f"cannot make the socket {path}: {error.strerror}", hint=hint, code="socket") from error
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, *, timeout: float) -> socket.socket:
    """A connection to the agent at `path`: `timeout` seconds are for all that is done with it. Raises OSError."""
    connection = _BoundedSocket(time.monotonic() + timeout)
    try:
        connection.settimeout(timeout)
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


class _BoundedSocket(socket.socket):
    """A Unix socket whose calls together end by `until`, on the monotonic clock: a timeout of its own is for each call."""

    def __init__(self, until: float) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._until = until

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        self._bound()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        self._bound()
        return super().recv_into(buffer, nbytes, flags)

    def _bound(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _FOR_OTHERS:
        folder.chmod(mode & ~_FOR_OTHERS)


def _let_in_the_folders_group(path: Path) -> None:
    path.chmod(_SOCKET_MODE)
    with suppress(PermissionError):  # an account outside that group cannot give to it: then its own group gets in
        os.chown(path, -1, path.parent.stat().st_gid)


def _remove_leftover(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is in the way: it is no socket", hint="move it aside", code="socket")
        connect(path, timeout=1.0).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    raise ConflictError(
        f"an agent already answers at {path}",
        hint="stop it first, or give this one another --data folder",
        code="socket",
    )


@contextmanager
def _address(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
