"""`make simulate SEEDS=n`: that many seeds on all cores, and the one command that replays each that fails.

`python -m tests.simulation --seed 17 --trace` replays one seed and tells what happened in it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from tests.simulation import planted
from tests.simulation.report import Report, report_of, settle_down

_ALOUD_EVERY: Final = 30.0
_SHOWN: Final = 6


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; 0 where nothing was found."""
    asked = _parser().parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.stderr.write("PYTHONHASHSEED=0 is needed: a seed is the same story only then\n")
        return 2
    if asked.bugs is not None:
        return planted.main(asked.bugs, most=asked.seeds or planted.MOST_SEEDS)
    if asked.until_found:
        print(planted.look_for(asked.planted, most=asked.until_found, first=asked.first))
        return 0
    if asked.planted:
        planted.plant(asked.planted)
    if asked.seed is not None:
        return _replay(asked.seed, trace=asked.trace)
    return _many(asked.first, asked.seeds or 200)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, help="how many to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell what happened")
    parser.add_argument("--planted", help="with this bug planted")
    parser.add_argument("--until-found", type=int, help="with --planted: at most so many seeds, until one fails")
    parser.add_argument("--bugs", nargs="*", help="find these planted bugs, or all")
    return parser


def _replay(seed: int, *, trace: bool) -> int:
    from tests.simulation.seed import run_seed

    verdict = run_seed(seed, keep_trace=trace)
    for line in verdict.trace:
        print(line)
    _tell(seed, [str(finding) for finding in verdict.findings])
    print(f"seed {seed}: {verdict.events} events, {verdict.faults.total()} faults, {len(verdict.findings)} findings")
    return 1 if verdict.findings else 0


def _many(first: int, count: int) -> int:
    began, last_told = time.monotonic(), time.monotonic()
    faults: Counter[str] = Counter()
    cures: Counter[str] = Counter()
    events, done, failed, fewest, virtual = 0, 0, 0, sys.maxsize, 0.0
    for report in _reports(range(first, first + count)):
        done += 1
        faults += report.faults
        cures += report.cures
        events += report.events
        virtual += report.seconds
        fewest = min(fewest, report.faults.total())
        if report.findings:
            failed += 1
            _tell(report.seed, report.findings)
        if time.monotonic() - last_told > _ALOUD_EVERY:
            last_told = time.monotonic()
            print(f"{done:,} of {count:,} seeds, {failed} failed", flush=True)
    seconds = time.monotonic() - began
    print(
        f"\n{done:,} seeds in {seconds:.0f} s, {done / seconds:.1f} a second; {virtual / 86_400:.1f} days of virtual time"
    )
    print(f"{events:,} events, {faults.total():,} faults, at least {fewest} a seed:")
    for kind, number in sorted(faults.items()):
        print(f"  {number:>8,}  {kind}")
    print("what people cured:")
    for kind, number in sorted(cures.items()):
        print(f"  {number:>8,}  {kind}")
    print(f"{failed} seeds failed" if failed else "lost = doubled = inverted = 0 in every seed")
    return 1 if failed else 0


def _tell(seed: int, findings: Sequence[str]) -> None:
    if findings:
        print(f"seed {seed} failed: PYTHONHASHSEED=0 {sys.executable} -m tests.simulation --seed {seed} --trace")
        for finding in findings[:_SHOWN]:
            print(f"    {finding}")
        if len(findings) > _SHOWN:
            print(f"    and {len(findings) - _SHOWN} more", flush=True)


def _reports(seeds: Sequence[int]) -> Iterator[Report]:
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), settle_down) as pool:
        yield from pool.imap_unordered(report_of, seeds, chunksize=4)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
