"""The table, for a terminal and for docs/performance.md."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.row import Row

PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN: Final = "<!-- the last table: python -m bench --write -->"
_END: Final = "<!-- the end of the table -->"
_HEADINGS: Final = ("#", "measure", "distctl", "beside", "ratio", "reach / dream", "stands")


def text(rows: Sequence[Row]) -> str:
    """Aligned columns."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(_aligned(line, widths) for line in lines)


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [_HEADINGS, ("---",) * len(_HEADINGS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def circumstances(file_system: str) -> str:
    """What the figures were measured on."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} CPUs, {platform.machine()}, {file_system}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def keep(rows: Sequence[Row], told: str) -> None:
    """Put the table into docs/performance.md in place of the last one."""
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n\n{told}\n\n{markdown(rows)}\n\n{_END}{after}")


def _cells(row: Row) -> tuple[str, ...]:
    unit = row.aim.unit if row.aim else ""
    held = f"{row.ratio:.2f}" if row.held is None else f"{row.ratio:.2f} ({row.held:.0f}{unit})"
    return (row.number, row.measure, str(row.ours), str(row.beside), held, str(row.aim or "-"), row.standing)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
