"""Named places at which a test ends the process with SIGKILL, as a power cut or the kernel's OOM killer would.

`DISTCTL_CRASH_AT=relay.after_send:3` kills at the third passage of that point. Without the variable a point costs one call.
The points of the store itself are `<unit>.before_commit` and `<unit>.after_commit` for every unit name listed here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

CrashPoint: TypeAlias = Callable[[str], None]

VARIABLE: Final = "DISTCTL_CRASH_AT"

UNITS: Final = ("intake.take_in", "relay.turn", "reaper.recover", "runtime.adopt_estate", "runtime.start")
"""The names under which the agent writes."""

POINTS: Final = (
    "migration.before_commit",
    "migration.after_commit",
    "store.before_begin",
    "store.before_commit",
    "store.after_commit",
    *(f"{unit}.{moment}_commit" for unit in UNITS for moment in ("before", "after")),
    "intake.before_settle",
    "intake.after_settle",
    "relay.before_send",
    "relay.after_send",
)
"""Every named crash point that an agent passes by itself."""

OF_A_HUB: Final = tuple(
    f"sync.{unit}.{moment}_commit"
    for unit in ("hello", "audit", "push", "look", "pull")
    for moment in ("before", "after")
)
OF_A_SITE: Final = tuple(
    f"sync.{unit}.{moment}_commit"
    for unit in ("hello", "greeted", "audit", "acknowledged", "take_in")
    for moment in ("before", "after")
)
"""Those that are passed besides where agents are linked."""

OF_RETENTION: Final = (
    *(
        f"retention.{unit}.{moment}_commit"
        for unit in ("items", "events", "arrivals", "records", "documents", "files")
        for moment in ("before", "after")
    ),
    "retention.before_remove",
    "retention.after_remove",
)
"""Those that are passed where something is old enough to be let go."""

ON_DEMAND: Final = (
    "backup.after_copy",
    "backup.before_publish",
    "backup.after_publish",
    "backup.note.before_commit",
    "backup.note.after_commit",
    "restore.after_copy",
    "restore.before_mark",
    "restore.after_move_aside",
    "restore.before_publish",
    "restore.after_publish",
)
"""Those that are passed when a person asks for a backup or a restore."""


def ignore(_: str) -> None:
    """The crash point of a process that is not under test."""


def from_environment(environment: Mapping[str, str]) -> CrashPoint:
    """The crash points that `DISTCTL_CRASH_AT` asks for; `ignore` where it is not set."""
    wish = environment.get(VARIABLE)
    if not wish:
        return ignore
    point, _, passage = wish.partition(":")
    remaining = int(passage or "1")

    def crash(passed: str) -> None:
        nonlocal remaining
        if passed == point:
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash
