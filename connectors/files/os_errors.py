"""What the operating system says about files, translated into our errors. Nothing above this folder names an errno."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from state.model.errors import NotConnectedError, TransientError
from state.model.visible import visible

_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETXTBSY, errno.ENOMEM}

_CURES: Final = {
    errno.ENOENT: ("folder-missing", "create the folder, or mount the share"),
    errno.ENOTDIR: ("folder-missing", "the path leads through a file: correct `folder`"),
    errno.EACCES: ("no-permission", "give the agent's user the right to read, write and rename there"),
    errno.EPERM: ("no-permission", "give the agent's user the right to read, write and rename there"),
    errno.EROFS: ("read-only", "the file system is read-only: see dmesg, repair it, mount it writable"),
    errno.ENOSPC: ("disk-full", "free space there; it goes on by itself"),
    errno.EDQUOT: ("disk-full", "raise the quota or free space there; it goes on by itself"),
    errno.EMFILE: ("too-many-files", "raise LimitNOFILE of the agent; it goes on by itself"),
    errno.ENFILE: ("too-many-files", "the machine has no file handles left; it goes on by itself"),
    errno.EIO: ("io-error", "the disk or the share fails: see dmesg"),
    errno.ESTALE: ("share-gone", "the share was exported anew: mount it again"),
    errno.EHOSTDOWN: ("share-gone", "the file server is down; it goes on by itself"),
    errno.ETIMEDOUT: ("share-gone", "the file server does not answer; it goes on by itself"),
}


def translate(error: OSError, doing: str) -> NotConnectedError | TransientError:
    """The error for the caller: nothing was applied, and it may work later."""
    number = error.errno or 0
    code, cure = _CURES.get(number, ("file-system", "see the system's log"))
    message = f"{visible(doing)}: {os.strerror(number) if number else visible(str(error))}"
    kind = TransientError if number in _PASSING else NotConnectedError
    return kind(message, hint=cure, code=code)


@contextmanager
def telling(doing: str) -> Iterator[None]:
    """Translate what is raised inside."""
    try:
        yield
    except OSError as error:
        raise translate(error, doing) from error
