"""Replenishment recommendation: what planning proposes to buy or to move (frePPLe purchase and distribution orders)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import Entity, Record, Several, Stock, Wanted, refuse, require, require_order
from state.model.money import UnitPrice
from state.model.quantity import Quantity
from state.model.scalars import Code, Exact, Instant, NotNegative, PlainDate, Text, Whole, broken

RecommendationType = Literal["buy", "transfer"]
RecommendationStatus = Literal["proposed", "approved", "confirmed", "completed", "closed"]


class PolicyInputs(Record):
    """What the planner looked at when it decided. On hand and available may be negative where a system says so."""

    on_hand: Quantity | None = None
    on_order: Stock | None = None
    demand: Stock | None = None
    safety_stock: Stock | None = None
    reorder_point: Stock | None = None
    reorder_quantity: Stock | None = None
    service_level_percent: NotNegative | None = None


class ReplenishmentRecommendation(Entity):
    """A proposal by its `reco_id`: a `buy` from `supplier`, or a `transfer` from `from_loc`, to `to_loc`."""

    entity: ClassVar[str] = "replenishment-recommendation"
    version: ClassVar[int] = 1

    reco_id: Code
    revision: Whole = 0
    type: RecommendationType
    status: RecommendationStatus
    sku: Code
    supplier: Code | None = None
    from_loc: Code | None = None
    to_loc: Code
    quantity: Wanted
    unit_cost: UnitPrice | None = None
    order_date: PlainDate
    need_date: PlainDate
    policy: PolicyInputs | None = None
    reason: Text | None = None
    criticality: NotNegative | None = None
    days_of_cover: Exact | None = None
    forecast_version: Code | None = None
    constraints: Several[Code] = ()
    expires_at: Instant | None = None

    @property
    def business_key(self) -> str:
        """The recommendation's id."""
        return self.reco_id

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        require_order(self.order_date, self.need_date, names=("order_date", "need_date"))
        if self.type == "buy":
            require(
                self.supplier, "a buy names its supplier", place="supplier", hint="Fill it from the item's supplier"
            )
            refuse(
                self.from_loc, "a buy has no from_loc", place="from_loc", hint="Set type to transfer, or leave it out"
            )
        else:
            require(
                self.from_loc,
                "a transfer names where it comes from",
                place="from_loc",
                hint="Fill it, or set type to buy",
            )
            refuse(
                self.supplier, "a transfer has no supplier", place="supplier", hint="Set type to buy, or leave it out"
            )
            _require_two_places(self)
        return self


def _require_two_places(move: ReplenishmentRecommendation) -> None:
    if move.from_loc == move.to_loc:
        hint = "One of the two locations is wrong"
        raise broken(
            "a transfer goes to another location", move.to_loc, hint=hint, code="same-location", place="to_loc"
        )
