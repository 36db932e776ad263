"""A crash report: what a defect of ours leaves behind instead of a traceback on somebody's screen."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version


def write_report(error: BaseException, arguments: Sequence[str]) -> str:
    """Write the report to a private file of its own; answers its path, or why there is none."""
    try:
        handle, path = tempfile.mkstemp(prefix="distctl-crash-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(_report(error, arguments))
    except OSError as failure:
        return f"lost: {failure.strerror}"
    return path


def _report(error: BaseException, arguments: Sequence[str]) -> str:
    about = (
        f"distctl {version('distctl')}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.platform()}"
    )
    called = f"distctl {' '.join(arguments)}"
    return "\n".join((about, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}", called, "", *traceback.format_exception(error)))
