"""What may hurt an agent on this machine, found without one running: each result says how bad it is and what to do.

Nothing is changed. The store is looked at through a connection that cannot write, for a bounded time.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from agent.control.client import ControlClient
from agent.control.endpoint import socket_in, store_in
from state.engine import connect_reader, engine_check, quick_check
from state.model.clock import from_millis
from state.model.errors import DistctlError, NotConnectedError
from state.sqlite_errors import translate
from state.views import newest_instant

_LOW_DISK: Final = 2 * 1024**3
_NO_DISK: Final = 256 * 1024**2
_LARGE_WAL: Final = 64 * 1024**2
_CHECKED_FOR: Final = timedelta(seconds=20)
_RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FEW_FILES: Final = 1024
_FEW_WATCHES: Final = 8192


class Grade(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one examination found."""

    name: str
    grade: Grade
    text: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        """The stable shape of `-o json`."""
        return {"name": self.name, "grade": self.grade.value, "text": self.text, "hint": self.hint}


def examine(data: Path | None, *, estate: Path | None) -> list[Result]:
    """All that can be examined: the machine, the agent's `data` folder and its store, the `estate` folder."""
    return [
        engine(),
        clock(data),
        watches(),
        open_files(),
        *(_of_data(data) if data else ()),
        *((the_estate(estate),) if estate else ()),
    ]


def engine() -> Result:
    """The SQLite version and the WAL defect that some have."""
    report = engine_check()
    if report.is_safe:
        return _good("engine", f"SQLite {report.version}")
    return Result(name="engine", grade=Grade.WARNING, text=report.advice)


def clock(data: Path | None, now: datetime | None = None) -> Result:
    """Whether the wall clock can be right: after our own release, and not before what the store has seen."""
    now = now or datetime.now(UTC)
    hint = "set the clock and keep it by NTP: `timedatectl`; order never depends on it, but retries and reports do"
    if now < _RELEASED:
        return Result(
            name="clock", grade=Grade.BAD, text=f"the clock says {now:%Y-%m-%d}, before this program", hint=hint
        )
    newest = _newest(data)
    if newest and newest > now + timedelta(minutes=1):
        text = f"the clock says {now:%Y-%m-%d %H:%M}Z, the store has seen {newest:%Y-%m-%d %H:%M}Z"
        return Result(name="clock", grade=Grade.BAD, text=text, hint=hint)
    return _good("clock", f"{now:%Y-%m-%d %H:%M:%S}Z, {time.tzname[0]}")


def watches() -> Result:
    """How many folders may be watched for files (inotify(7))."""
    try:
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        return _good("watches", "this system has no limit we know of")
    if limit >= _FEW_WATCHES:
        return _good("watches", f"{limit:,} folders may be watched")
    hint = "raise it with `sysctl fs.inotify.max_user_watches=65536`; until then files are found by looking every few seconds"
    return Result(name="watches", grade=Grade.WARNING, text=f"only {limit:,} folders may be watched", hint=hint)


def open_files() -> Result:
    """How many files and sockets a process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= _FEW_FILES:
        return _good("files", "as many open files as needed" if limit < 0 else f"{limit:,} open files")
    hint = "raise it: `LimitNOFILE=65536` in the unit, or `ulimit -n`"
    return Result(name="files", grade=Grade.WARNING, text=f"only {limit:,} files may be open at once", hint=hint)


def disk(data: Path) -> Result:
    """The space left under the data folder."""
    try:
        free = shutil.disk_usage(data).free
    except OSError as error:
        return Result(name="disk", grade=Grade.BAD, text=f"cannot look at {data}: {error.strerror}")
    text = f"{free / 1024**3:,.1f} GiB free under {data}"
    if free >= _LOW_DISK:
        return _good("disk", text)
    grade = Grade.BAD if free < _NO_DISK else Grade.WARNING
    return Result(
        name="disk", grade=grade, text=text, hint="make room: a full disk stops intake, though it loses nothing"
    )


def rights(data: Path) -> Result:
    """Whether the data folder is the account's own and closed to others."""
    status = data.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Result(
            name="rights",
            grade=Grade.BAD,
            text=f"this account cannot write {data}",
            hint="run it as the agent's account",
        )
    if mode & 0o007:
        hint = f"chmod 0750 {data}"
        return Result(name="rights", grade=Grade.WARNING, text=f"{data} is open to everybody ({mode:04o})", hint=hint)
    return _good("rights", f"{data} is closed to others ({mode:04o})")


def store(data: Path) -> Result:
    """Whether the store is whole and its WAL is of a normal size."""
    path = store_in(data)
    if not path.exists():
        return Result(name="store", grade=Grade.WARNING, text=f"no store yet at {path}", hint="an agent makes it")
    try:
        with closing(connect_reader(path)) as connection:
            is_complete = quick_check(connection, path, limit=_CHECKED_FOR)
    except DistctlError as error:
        return Result(name="store", grade=Grade.BAD, text=error.message, hint=error.hint)
    except sqlite3.Error as error:
        found = translate(error, operation="looking at it", path=path, writing=False)
        return Result(name="store", grade=Grade.BAD, text=found.message, hint=found.hint)
    wal = _size(Path(f"{path}-wal"))
    if wal > _LARGE_WAL:
        text = f"the WAL has {wal / 1024**2:,.0f} MiB"
        hint = f"something holds a read transaction open: `fuser -v {path}`"
        return Result(name="store", grade=Grade.WARNING, text=text, hint=hint)
    seen = "whole" if is_complete else f"whole as far as {_CHECKED_FOR.seconds} s went"
    return _good("store", f"{_size(path) / 1024**2:,.1f} MiB, {seen}")


def control(data: Path) -> Result:
    """Whether an agent answers, and what it says of itself."""
    try:
        health = ControlClient(socket_in(data), deadline=5.0).health()
    except NotConnectedError as error:
        return Result(name="agent", grade=Grade.WARNING, text=error.message, hint=error.hint)
    except DistctlError as error:
        return Result(name="agent", grade=Grade.BAD, text=error.message, hint=error.hint)
    if health.ok:
        return _good("agent", f"the agent of {health.site} works")
    return Result(name="agent", grade=Grade.BAD, text="; ".join(health.troubles))


def the_estate(folder: Path) -> Result:
    """Whether the estate can run."""
    from agent.estate.check import check
    from agent.estate.findings import has_errors

    findings = check(folder)
    if not findings:
        return _good("estate", f"{folder}: nothing to complain about")
    grade = Grade.BAD if has_errors(findings) else Grade.WARNING
    text = f"{folder}: {len(findings)} findings, the first: {findings[0]}"
    return Result(name="estate", grade=grade, text=text, hint=f"distctl check {folder}")


_OF_DATA: Final[tuple[Callable[[Path], Result], ...]] = (disk, rights, store, control)


def _of_data(data: Path) -> Iterator[Result]:
    if data.is_dir():
        yield from (examination(data) for examination in _OF_DATA)
        return
    yield Result(name="data", grade=Grade.WARNING, text=f"no data folder yet at {data}", hint="an agent makes it")


def _newest(data: Path | None) -> datetime | None:
    path = store_in(data or Path())
    if data is None or not path.exists():
        return None
    try:
        with closing(connect_reader(path)) as connection:
            millis = newest_instant(connection)
    except (sqlite3.Error, DistctlError):
        return None  # the store's own examination says why
    return None if millis is None else from_millis(millis)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _good(name: str, text: str) -> Result:
    return Result(name=name, grade=Grade.GOOD, text=text)
