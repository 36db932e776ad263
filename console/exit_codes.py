"""The exit codes of `distctl`: the one table. Scripts rely on it, so a code keeps its meaning for ever."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What a command came to."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    PARTLY = 5
    CONFLICT = 6
    UNREACHABLE = 7
    WAITS = 8
    UNHEALTHY = 9
    IN_DOUBT = 10
    INTERRUPTED = 130


MEANING: Final = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "usage, configuration, or findings of `check`",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.DENIED: "denied",
    ExitCode.PARTLY: "partly done; the JSON has the details",
    ExitCode.CONFLICT: "conflict: the plan changed, or somebody decided first",
    ExitCode.UNREACHABLE: "unreachable; nothing was done, safe to retry",
    ExitCode.WAITS: "waits for an approval",
    ExitCode.UNHEALTHY: "unhealthy (`status --fail-on`, `doctor`, `audit verify`, `verify`)",
    ExitCode.IN_DOUBT: "in doubt: do not retry, look",
    ExitCode.INTERRUPTED: "interrupted by the keyboard",
}
