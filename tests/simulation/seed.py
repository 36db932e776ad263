"""One seed from its beginning to its judgement."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.judge import Finding, judge
from tests.simulation.loop import MOST_TURNS, Endless, SimulatedLoop
from tests.simulation.story import Story
from tests.simulation.world import World

LONGEST: Final = 90 * 86_400.0
"""Seconds of virtual time after which a seed is stuck."""


@dataclass(slots=True)
class Verdict:
    """What a seed came to."""

    seed: int
    findings: list[Finding]
    events: int
    faults: Counter[str]
    cures: Counter[str]
    seconds: float  # of virtual time
    trace: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


class _OwnFaults(logging.Handler):
    """Keeps what the product says it did not foresee."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.told.append(f"{record.getMessage()}: {type(error).__name__}: {error}")


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the product says it did not foresee, alone; afterwards its log is as it was."""
    log = logging.getLogger("distctl")
    level, propagate, handlers = log.level, log.propagate, log.handlers
    faults = _OwnFaults()
    log.setLevel(logging.ERROR)
    log.propagate, log.handlers = False, [faults]
    try:
        yield faults.told
    finally:
        log.setLevel(level)
        log.propagate, log.handlers = propagate, handlers


def run_seed(
    seed: int, *, keep_trace: bool = False, story: type[Story] = Story, most_turns: int = MOST_TURNS
) -> Verdict:
    """Run a seed and judge it."""
    with _listening() as own:
        return _run_quietly(seed, own, keep_trace=keep_trace, story=story, most_turns=most_turns)


def _run_quietly(seed: int, own: list[str], *, keep_trace: bool, story: type[Story], most_turns: int) -> Verdict:
    loop = SimulatedLoop(random.Random(f"{seed} scheduler"), ends_at=LONGEST, most_turns=most_turns)
    unforeseen: list[str] = []
    loop.set_exception_handler(
        lambda _, context: unforeseen.append(f"{context['message']}: {context.get('exception')!r}")
    )
    gc.disable()  # a look for cycles finds next to none here, and costs a sixth
    try:
        return loop.run(_run(seed, story, own, unforeseen, keep_trace))
    except Endless as error:
        return Verdict(seed, [Finding("stuck", str(error))], 0, Counter(), Counter(), loop.time())
    finally:
        gc.enable()


async def _run(seed: int, story: type[Story], own: list[str], unforeseen: list[str], keep_trace: bool) -> Verdict:
    world = World(seed)
    told = story(world)
    findings: list[Finding] = []
    try:
        await told.run()
        findings += [Finding("stuck", one) for one in told.troubles()]
        findings += judge(world)
    finally:
        world.end()
        await asyncio.sleep(1)
    findings += [Finding("own fault", one) for one in (*own, *unforeseen)]
    verdict = Verdict(
        seed=seed,
        findings=findings,
        events=told.events,
        faults=world.counts,
        cures=world.cures,
        seconds=asyncio.get_running_loop().time(),
    )
    if keep_trace:
        verdict.trace, verdict.digest = world.trace.lines(), world.trace.digest()
    for disk in world.disks:
        disk.close()
    return verdict
