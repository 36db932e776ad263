"""Cuts the power of a recorded run in many places: `make powercut IMAGES=2000`, or `python -m tests.powercut --help`.

Two runs are recorded: one as shipped, which may lose nothing that was acknowledged, and a control with `synchronous=NORMAL`,
which has to lose some, or this would prove nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.powercut.facts import Facts
from tests.powercut.images import Cut, build, cuts
from tests.powercut.judge import Verdict, Whole, judge
from tests.powercut.recorded_run import FULL, NORMAL, Recording, build_recorder, record
from tests.powercut.restart import go_on
from tests.powercut.trial import Tally, judge_all

_SHOWN: Final = 10


def main() -> int:
    """Returns the exit code: 0 where nothing was lost and the control lost something."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # fences and redials are findings
    if arguments.image is not None:
        return _look_at(arguments)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="powercut-"))
    recorder = build_recorder(folder)
    if recorder is None:
        folder.rmdir()
        _say("powercut needs a C compiler (cc or gcc) for its recorder, and there is none")
        return 2
    shipped = _record(folder / "shipped", recorder, arguments.rounds, FULL)
    tally = _judge(shipped, arguments.images, arguments)
    control = _record(folder / "control", recorder, max(2, arguments.rounds // 2), NORMAL)
    lost = _judge(control, max(20, arguments.images // 10), arguments)
    told = _restart(shipped, arguments)
    _summarise(arguments, tally, lost, told, seconds=time.monotonic() - began)
    if tally.bad or told:
        alone = f"python -m tests.powercut --recording {shipped.folder} --seed {arguments.seed} --image NUMBER"
        _print("", "The recording is kept. To build and judge an image alone:", f"  {alone}")
        return 1
    shutil.rmtree(folder)
    return 0 if lost.with_loss else 1


def _record(folder: Path, recorder: Path, rounds: int, synchronous: int) -> Recording:
    _say(
        f"recording {rounds} rounds of a hub and two sites, synchronous={'NORMAL' if synchronous == NORMAL else 'FULL'}"
    )
    return record(folder, recorder, rounds=rounds, synchronous=synchronous)


def _judge(recording: Recording, images: int, arguments: argparse.Namespace) -> Tally:
    _say(f"judging {images} images of {len(recording.records):,} records")
    wanted = cuts(recording.records, seed=arguments.seed, images=images)
    return judge_all(recording, wanted, workers=arguments.workers, told=lambda tally: _say(f"  {tally.images}"))


def _restart(recording: Recording, arguments: argparse.Namespace) -> list[str]:
    """Real agents on some of the images, which are no others than were judged."""
    numbers = random.Random(arguments.seed).sample(range(arguments.images), min(arguments.restarts, arguments.images))
    told = []
    for number in numbers:
        [cut] = [one for one in cuts(recording.records, seed=arguments.seed, images=number + 1) if one.number == number]
        _say(f"starting the agents on {cut}")
        image, facts = _image(recording, cut, recording.folder / "image")
        told += [f"{cut}: {finding}" for finding in go_on(image, recording, facts)]
    return told


def _look_at(arguments: argparse.Namespace) -> int:
    """One image of a recording that was kept; it is left as it was before anything opened it."""
    recording = Recording.load(arguments.recording)
    cut = cuts(recording.records, seed=arguments.seed, images=arguments.image + 1)[arguments.image]
    target = Path(tempfile.mkdtemp(prefix="powercut-image-"))
    image, facts = _image(recording, cut, target / "untouched")
    shutil.copytree(image, target / "opened")
    verdict = asyncio.run(judge(target / "opened", facts, Whole.of(recording.folder)))
    _show(cut, verdict)
    _print(f"  the image: {image}")
    return 0 if verdict.is_good else 1


def _image(recording: Recording, cut: Cut, folder: Path) -> tuple[Path, Facts]:
    [(_, image, facts)] = build(recording, [cut], folder)
    return image, facts


def _summarise(arguments: argparse.Namespace, tally: Tally, control: Tally, told: list[str], *, seconds: float) -> None:
    for cut, verdict in tally.bad[:_SHOWN]:
        _show(cut, verdict)
    otherwise = sum(bool(verdict.wrong) for _, verdict in tally.bad)
    rows = (
        ("images", tally.images, f"seed {arguments.seed}, {len(tally.moments):,} cut points"),
        ("opened", tally.opened, "all three stores, by themselves"),
        ("acknowledged events judged", tally.acknowledged, ""),
        ("lost", tally.lost, f"in {tally.with_loss} images"),
        ("images wrong otherwise", otherwise, ""),
        ("restarted as processes", arguments.restarts, f"{len(told)} findings by the targets' ledgers"),
        ("control: images with a loss", control.with_loss, f"of {control.images:,} with synchronous=NORMAL"),
        ("seconds", round(seconds), ""),
    )
    _print(*told[:_SHOWN], *(f"{what:<30}{number:>10,}   {more}".rstrip() for what, number, more in rows))
    if not control.with_loss:
        _print("The control lost nothing, so this rig proves nothing.")


def _show(cut: Cut, verdict: Verdict) -> None:
    _print(str(cut))
    for word, findings in (("lost", verdict.lost), ("wrong", verdict.wrong)):
        _print(*(f"  {word}: {finding}" for finding in findings[:_SHOWN]))


def _print(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6, help="how long the recorded run is")
    parser.add_argument("--restarts", type=int, default=5, help="images on which real agents are started")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--recording", type=Path, help="the folder of a run that was kept, for --image")
    parser.add_argument("--image", type=int, help="build and judge this image alone, and keep it")
    arguments = parser.parse_args()
    if (arguments.image is None) != (arguments.recording is None):
        parser.error("--image and --recording go together")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
