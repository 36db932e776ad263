"""One row of the table: two figures from the same run, their ratio, and what to reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """Where a row stands."""

    SHORT = "short"
    REACHED = "reached"
    DREAM = "dream"
    OPEN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What to reach, and what to dream of, in `unit` (a ratio has none)."""

    reach: float
    dream: float
    unit: str = ""
    more_is_better: bool = True

    def standing(self, value: float) -> Standing:
        """How `value` stands to the aim."""
        if self._meets(value, self.dream):
            return Standing.DREAM
        return Standing.REACHED if self._meets(value, self.reach) else Standing.SHORT

    def __str__(self) -> str:
        return f"{self.reach:g} / {self.dream:g}{self.unit}"

    def _meets(self, value: float, mark: float) -> bool:
        return value >= mark if self.more_is_better else value <= mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A median with its unit, and what it is the median of."""

    value: float
    unit: str
    of: str

    def __str__(self) -> str:
        digits = 0 if self.value >= 100 else 2
        return f"{self.value:,.{digits}f} {self.unit} ({self.of})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of the table, under its number in the reference, where it has one.

    The aim is for the ratio, or for `held` where it is given; a measure that only informs has none.
    """

    number: str
    measure: str
    ours: Figure
    beside: Figure
    aim: Aim | None
    held: float | None = None

    @property
    def ratio(self) -> float:
        """Ours to what stands beside it."""
        return self.ours.value / self.beside.value

    @property
    def standing(self) -> Standing:
        """How the row stands to its aim."""
        if self.aim is None:
            return Standing.OPEN
        return self.aim.standing(self.ratio if self.held is None else self.held)
