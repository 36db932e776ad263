"""What a seed came to, small enough to be handed from one process to another."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """One seed."""

    seed: int
    findings: list[str]
    events: int
    faults: Counter[str]
    cures: Counter[str]
    seconds: float


def report_of(seed: int) -> Report:
    """Run it."""
    from tests.simulation.seed import run_seed  # after what is planted was planted

    verdict = run_seed(seed)
    findings = [str(finding) for finding in verdict.findings]
    return Report(seed, findings, verdict.events, verdict.faults, verdict.cures, verdict.seconds)


def settle_down() -> None:
    """What a process has once it has begun is there to stay. It stands here, since a worker does not read what is run by `-m`."""
    report_of(0)
    gc.collect()
    gc.freeze()
