"""The real demand behind the demo: order lines of one year, and what they add up to by week."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Final

FIRST_WEEK: Final = 12
"""The week of the data in which the demo begins; the weeks before are the first forecast's history."""

WEEKS: Final = 12
"""How long the demo lasts: planning runs, and weeks that the warehouse counts."""

_DATA: Final = files("connectors.simulators.demand")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLine:
    """One line of a shop's order; `quantity` in pieces."""

    ordered_on: date
    sku: str
    shop: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BikeModel:
    """What is sold: `category` says what it is for (Trail, Triathalon), `material` what its frame is made of."""

    sku: str
    name: str
    category: str
    material: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyDemand:
    """Pieces ordered by sku and week. Every sku has one number a week, zeros included; weeks begin on Mondays."""

    first_monday: date
    pieces: Mapping[str, Sequence[int]]

    def monday(self, week: int) -> date:
        """The first day of week number `week`, which counts from 0."""
        return self.first_monday + timedelta(weeks=week)


@cache
def order_lines() -> tuple[OrderLine, ...]:
    """Every order line, oldest first."""
    return tuple(
        OrderLine(
            ordered_on=date.fromisoformat(row["order_date"]),
            sku=row["sku"],
            shop=row["shop"],
            quantity=int(row["quantity"]),
        )
        for row in _rows("bike_orders.csv")
    )


@cache
def bike_models() -> tuple[BikeModel, ...]:
    """Every model, by sku."""
    return tuple(
        BikeModel(sku=row["sku"], name=row["model"], category=row["category"], material=row["material"])
        for row in _rows("models.csv")
    )


def weekly_demand(lines: Sequence[OrderLine]) -> WeeklyDemand:
    """The lines in weekly buckets, from the first line's week to the last line's."""
    first = _monday(min(line.ordered_on for line in lines))
    weeks = (_monday(max(line.ordered_on for line in lines)) - first).days // 7 + 1
    pieces: dict[str, list[int]] = defaultdict(lambda: [0] * weeks)
    for line in lines:
        pieces[line.sku][(line.ordered_on - first).days // 7] += line.quantity
    return WeeklyDemand(first_monday=first, pieces=dict(pieces))


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _rows(name: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(_DATA.joinpath(name).read_text(encoding="utf-8").splitlines())
