"""Images of a recorded run: where each is cut, whose power fails, and what is left; image `n` of a seed is always the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.acceptance.test_estatewide import SITES
from tests.powercut.disk import Disks, Leaves
from tests.powercut.facts import Facts, is_acknowledgement
from tests.powercut.recorded_run import Recording
from tests.powercut.recording import Kind, Record

_LEAVES: Final = {Leaves.NOTHING: 30, Leaves.ALL: 5, Leaves.SOME: 25, Leaves.TORN: 30, Leaves.LAST: 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One power cut. `moment` is how many records had happened; machines that are not `cut` lose nothing."""

    number: int
    moment: int
    cut: Sequence[str]
    leaves: Leaves
    dice: str

    def __str__(self) -> str:
        return f"image {self.number}: power cut of {', '.join(self.cut)} at record {self.moment}, leaves {self.leaves.value}"


def cuts(records: Sequence[Record], *, seed: int, images: int) -> list[Cut]:
    """The cuts of a seed: half of them right behind an acknowledgement, a quarter inside of a sync, the rest anywhere."""
    told = [moment for moment, record in enumerate(records, 1) if is_acknowledgement(record)]
    syncing = [moment for moment, record in enumerate(records, 1) if record.kind is Kind.SYNC_BEGINS]
    return [_cut(number, seed, len(records), told, syncing) for number in range(images)]


def _cut(number: int, seed: int, end: int, told: Sequence[int], syncing: Sequence[int]) -> Cut:
    dice = random.Random(f"{seed}/{number}")
    moment = dice.choice((told, told, syncing, range(1, end + 1)))
    alone = dice.choice(SITES)
    return Cut(
        number=number,
        moment=dice.choice(moment),
        cut=SITES if dice.random() < 0.4 else (alone,),
        leaves=dice.choices(list(_LEAVES), list(_LEAVES.values()))[0],
        dice=f"{seed}/{number}/disk",
    )


def build(recording: Recording, wanted: Sequence[Cut], folder: Path) -> Iterator[tuple[Cut, Path, Facts]]:
    """Each image in a folder of its own, in the order of the cuts' moments, with what held by then."""
    disks, facts, place = Disks(), Facts(), 0
    for cut in sorted(wanted, key=lambda one: (one.moment, one.number)):
        while place < cut.moment:
            disks.play(place, recording.records[place])
            facts.learn(recording.records[place])
            place += 1
        target = folder / f"image-{cut.number}"
        disks.write_image(target, cut=cut.cut, leaves=cut.leaves, dice=random.Random(cut.dice))
        yield cut, target, facts
