"""What the planning system recommends, computed from the demand by a method that fits on a page.

Once a week, for each sku:

1. *Forecast*: the mean of the last eight weeks' demand.
2. *Forecast error*: the root mean square of (demand - the forecast made for that week) over the weeks before.
3. *Safety stock*: z(service level) x error x sqrt(lead time + review period), the textbook rule for periodic review.
4. *Order up to*: forecast x (lead time + review period) + safety stock.
5. *Recommended*: order up to - on hand, shared among the sku's suppliers, raised to the supplier's minimum and then to its
   multiple.

Between two runs the real demand of that week leaves the stock. An open recommendation is revised by every run, under one
`reco_id` for sku and supplier, until its lead time is over; then it is received and the next need begins under the same id.
Demand, dates and models are real. Suppliers, lead times, minimums and multiples are assumptions, given in `SUPPLIERS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import NormalDist, fmean
from typing import Final

from connectors.simulators.history import BikeModel, WeeklyDemand

FORECAST_WEEKS: Final = 8
REVIEW_WEEKS: Final = 1
SERVICE_LEVEL: Final = 0.95
SECOND_SOURCE_ABOVE: Final = 26  # pieces a year: what sells faster than one in two weeks has two suppliers


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierTerms:
    """How a supplier delivers; quantities in pieces."""

    supplier: str
    lead_weeks: int
    minimum: int
    multiple: int


SUPPLIERS: Final = {
    "Carbon": SupplierTerms(supplier="SUP-CARBON-WORKS", lead_weeks=5, minimum=2, multiple=1),
    "Aluminum": SupplierTerms(supplier="SUP-ALLOY-FRAMES", lead_weeks=3, minimum=4, multiple=2),
    "second": SupplierTerms(supplier="SUP-NORTHERN-CYCLES", lead_weeks=2, minimum=1, multiple=1),
}
SECOND_SHARE: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One revision of one recommendation: buy `quantity` pieces, to be there on `need_on`, and what that rests on."""

    reco_id: str
    revision: int
    run: str  # the planning run: 2011-W20
    sku: str
    supplier: str
    quantity: int
    order_on: date
    need_on: date
    on_hand: int
    forecast: str  # pieces a week, two decimals
    safety_stock: int


@dataclass(slots=True, kw_only=True)
class _Item:
    """One sku between two runs."""

    sku: str
    demand: Sequence[int]
    sources: Sequence[tuple[SupplierTerms, float]]
    on_hand: int = 0
    open: dict[str, tuple[int, int]] = field(default_factory=dict)  # supplier: (week first recommended, pieces)
    revisions: dict[str, int] = field(default_factory=dict)


def planning_runs(
    demand: WeeklyDemand, models: Sequence[BikeModel], *, first_week: int, runs: int
) -> Iterator[list[Recommendation]]:
    """The recommendations of each weekly run, oldest run first. `first_week` leaves a history for the first forecast."""
    items = [_opening(demand, model, first_week) for model in models]
    for week in range(first_week, first_week + runs):
        yield [recommendation for item in items for recommendation in _plan(item, week, demand.monday(week))]
        for item in items:
            _live(item, week)


def forecast(demand: Sequence[int], week: int) -> float:
    """Pieces a week from `week` on, known at its beginning."""
    return fmean(demand[max(0, week - FORECAST_WEEKS) : week])


def forecast_error(demand: Sequence[int], week: int) -> float:
    """The root mean square of the one-week forecast's errors before `week`, in pieces."""
    errors = [demand[past] - forecast(demand, past) for past in range(min(FORECAST_WEEKS, week - 1), week)]
    return math.sqrt(fmean(error * error for error in errors))


def safety_stock(error: float, *, weeks: int) -> int:
    """Whole pieces that cover `SERVICE_LEVEL` of a demand whose weekly error is `error`, over `weeks`."""
    return math.ceil(NormalDist().inv_cdf(SERVICE_LEVEL) * error * math.sqrt(weeks))


def order_quantity(needed: float, terms: SupplierTerms) -> int:
    """Pieces to order for `needed`: nothing, or at least the minimum, in whole multiples."""
    if needed <= 0:
        return 0
    return math.ceil(max(needed, terms.minimum) / terms.multiple) * terms.multiple


def _opening(demand: WeeklyDemand, model: BikeModel, first_week: int) -> _Item:
    pieces = demand.pieces[model.sku]
    item = _Item(sku=model.sku, demand=pieces, sources=_sources(model, sum(pieces)))
    item.on_hand = math.ceil(forecast(pieces, first_week) * 2)
    return item


def _sources(model: BikeModel, yearly: int) -> Sequence[tuple[SupplierTerms, float]]:
    main = SUPPLIERS[model.material]
    if yearly <= SECOND_SOURCE_ABOVE:
        return ((main, 1.0),)
    return ((main, 1 - SECOND_SHARE), (SUPPLIERS["second"], SECOND_SHARE))


def _plan(item: _Item, week: int, monday: date) -> Iterator[Recommendation]:
    expected = forecast(item.demand, week)
    error = forecast_error(item.demand, week)
    for terms, share in item.sources:
        cover = terms.lead_weeks + REVIEW_WEEKS
        safety = safety_stock(error, weeks=cover)
        quantity = order_quantity((expected * cover + safety - item.on_hand) * share, terms)
        if not quantity:
            item.open.pop(terms.supplier, None)
            continue
        since, _ = item.open.get(terms.supplier, (week, 0))
        item.open[terms.supplier] = (since, quantity)
        item.revisions[terms.supplier] = item.revisions.get(terms.supplier, 0) + 1
        yield Recommendation(
            reco_id=f"RECO-{item.sku}-{terms.supplier.removeprefix('SUP-')}",
            revision=item.revisions[terms.supplier],
            run=f"{monday:%G-W%V}",
            sku=item.sku,
            supplier=terms.supplier,
            quantity=quantity,
            order_on=monday,
            need_on=monday + timedelta(weeks=terms.lead_weeks - (week - since)),
            on_hand=item.on_hand,
            forecast=f"{expected:.2f}",
            safety_stock=safety,
        )


def _live(item: _Item, week: int) -> None:
    """The week passes: demand leaves the stock, what has had its lead time arrives."""
    item.on_hand = max(0, item.on_hand - item.demand[week])
    for terms, _ in item.sources:
        since, quantity = item.open.get(terms.supplier, (week, 0))
        if quantity and week - since >= terms.lead_weeks:
            item.on_hand += quantity
            del item.open[terms.supplier]
