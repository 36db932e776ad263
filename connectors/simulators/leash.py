"""Starts a program that ends when its starter ends, however that ends: `python -m connectors.simulators.leash PID COMMAND...`.

On Linux the kernel sends SIGTERM to the program when process PID, its starter, is gone (prctl PR_SET_PDEATHSIG, which
survives the exec). Elsewhere the program runs without a leash.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def leashed(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` on a leash held by this process."""
    return [sys.executable, "-m", "connectors.simulators.leash", str(os.getpid()), *command]


def main(starter: int, command: Sequence[str]) -> None:
    """Put this process on the leash, then become `command`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != starter:  # it ended before the leash held
            sys.exit(f"process {starter}, which started this one, is gone")
    os.execvp(command[0], list(command))  # noqa: S606 - the caller's own command, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
