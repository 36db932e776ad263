"""Builds and judges the images of a recording, on several processes."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from tests.acceptance.test_estatewide import SITES
from tests.powercut.images import Cut, build
from tests.powercut.judge import Verdict, Whole, judge
from tests.powercut.recorded_run import Recording

_AT_ONCE: Final = 50
"""Images that one process takes at a time; to get to the first of them it plays the run up to there."""

_Judged: TypeAlias = tuple[Cut, int, Verdict]
"""What was cut, how many events were acknowledged by then, and what was found."""


@dataclass(slots=True)
class Tally:
    """What came of the images of one recording."""

    images: int = 0
    moments: set[int] = field(default_factory=set)
    acknowledged: int = 0  # events, over all images
    opened: int = 0  # images of which every store opened
    lost: int = 0  # what was acknowledged and is not there, over all images
    with_loss: int = 0  # images
    bad: list[tuple[Cut, Verdict]] = field(default_factory=list)

    def add(self, cut: Cut, acknowledged: int, verdict: Verdict) -> None:
        """One more image."""
        self.images += 1
        self.moments.add(cut.moment)
        self.acknowledged += acknowledged
        self.opened += verdict.opened == len(SITES)
        self.lost += len(verdict.lost)
        self.with_loss += bool(verdict.lost)
        if not verdict.is_good:
            self.bad.append((cut, verdict))


def judge_all(
    recording: Recording, wanted: Sequence[Cut], *, workers: int = 1, told: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Judge each image; nothing of them stays. `told` hears of the tally now and then."""
    ordered = sorted(wanted, key=lambda one: (one.moment, one.number))
    shares = [ordered[first : first + _AT_ONCE] for first in range(0, len(ordered), _AT_ONCE)]
    tally = Tally()
    for results in _judged(recording, shares, workers):
        for result in results:
            tally.add(*result)
        told(tally)
    return tally


def _judged(recording: Recording, shares: Sequence[Sequence[Cut]], workers: int) -> Iterator[list[_Judged]]:
    if workers == 1:
        _Worker.begin(recording.folder)
        yield from map(_Worker.judge, shares)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_Worker.begin_alone, initargs=(recording.folder,)) as pool:
        yield from pool.map(_Worker.judge, shares)


class _Worker:
    """What a process keeps from share to share."""

    recording: Recording
    whole: Whole

    @classmethod
    def begin(cls, folder: Path) -> None:
        cls.recording, cls.whole = Recording.load(folder), Whole.of(folder)

    @classmethod
    def begin_alone(cls, folder: Path) -> None:
        logging.disable(logging.CRITICAL)  # fences and redials are findings
        cls.begin(folder)

    @classmethod
    def judge(cls, share: Sequence[Cut]) -> list[_Judged]:
        with tempfile.TemporaryDirectory(prefix="powercut-", dir=memory()) as folder:
            return asyncio.run(cls._judge(share, Path(folder)))

    @classmethod
    async def _judge(cls, share: Sequence[Cut], folder: Path) -> list[_Judged]:
        judged = []
        for cut, image, facts in build(cls.recording, share, folder):
            judged.append((cut, facts.acknowledged, await judge(image, facts, cls.whole)))
            shutil.rmtree(image)
        return judged


def memory() -> Path | None:
    """A file system in memory, where there is one: images are many, and their fsyncs prove nothing."""
    shared = Path("/dev/shm")
    return shared if sys.platform == "linux" and shared.is_dir() else None
