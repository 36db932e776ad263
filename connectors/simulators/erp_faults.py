"""When and how the ERP misbehaves: a schedule over its write calls, fixed by the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """What happens to one write call."""

    NONE = "none"
    TOO_MANY = "429 with Retry-After"  # and so for a moment to everybody
    UNAVAILABLE = "503"  # and so for a moment to everybody
    LOCKED = "200 with an error inside"  # nothing was done; later it works
    SILENT = "accepted, then silence"  # done, but no answer before the caller's deadline
    LATE = "landed after the caller gave up"
    RESET = "accepted, then connection reset"


HOW_OFTEN: Final[Mapping[Fault, int]] = {
    Fault.TOO_MANY: 3,
    Fault.UNAVAILABLE: 3,
    Fault.LOCKED: 12,
    Fault.SILENT: 4,
    Fault.LATE: 4,
    Fault.RESET: 10,
}
FIRST_CALL: Final = 10
LAST_CALL: Final = 1200  # every fault has happened by then


def schedule(seed: int) -> Mapping[int, Fault]:
    """The write calls, counted from 1 over all restarts, that go wrong."""
    dice = random.Random(f"erp {seed}")
    faults = [fault for fault, count in HOW_OFTEN.items() for _ in range(count)]
    return dict(zip(dice.sample(range(FIRST_CALL, LAST_CALL), len(faults)), faults, strict=True))
