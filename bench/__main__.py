"""`python -m bench`: measure, print the table, and with `--write` keep it in docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from bench import backlog, intake, latency, linked_path, memory, slow_disk, startup, table, waiting_producer, whole_path
from bench.disk import BUILD, file_system, workspace
from bench.row import Row

Measure: TypeAlias = Callable[[Path], Coroutine[Any, Any, list[Row]]]

MEASURES: Final[Mapping[str, Measure]] = {
    "P1": intake.measure,
    "P2": linked_path.measure,
    "P3": whole_path.measure,
    "P4": linked_path.measure,
    "link": linked_path.measure,
    "P5": waiting_producer.measure,
    "P7": backlog.measure,
    "P8": latency.measure,
    "P9": memory.measure,
    "P10": slow_disk.measure,
    "P11": startup.measure,
}


def main(arguments: Sequence[str]) -> None:
    """Run the bench."""
    options = _parser().parse_args(arguments)
    if unknown := [name for name in options.rows if name not in MEASURES]:
        raise SystemExit(f"there is no row {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    rows: list[Row] = []
    with workspace(options.under) as folder:
        for measure, names in _asked(options.rows or list(MEASURES)).items():
            began = time.monotonic()
            rows += asyncio.run(measure(folder))
            print(f"{', '.join(names)} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: list(MEASURES).index(row.number))
    told = table.circumstances(file_system(options.under))
    print(told, table.text(rows), sep="\n\n")
    if options.write:
        table.keep(rows, told)


def _asked(names: Sequence[str]) -> Mapping[Measure, Sequence[str]]:
    """Each measure once, with the rows that it is asked for."""
    measures: dict[Measure, list[str]] = {}
    for name in names:
        measures.setdefault(MEASURES[name], []).append(name)
    return measures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(MEASURES)}; all")
    parser.add_argument("--write", action="store_true", help="keep the table in docs/performance.md")
    parser.add_argument("--under", type=Path, default=BUILD, help="a folder on a local disk; default %(default)s")
    return parser


main(sys.argv[1:])
