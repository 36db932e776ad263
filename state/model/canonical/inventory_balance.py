"""Inventory balance: what is where, at one instant (X12 846, EDIFACT INVRPT)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import Entity, Stock, joined_key, require_same_unit
from state.model.quantity import Quantity
from state.model.scalars import Code, Flag, Instant, PlainDate, Whole

StockStatus = Literal["available", "reserved", "quality", "blocked", "damaged", "in_transit", "expired"]
"""After the EPCIS dispositions."""

_COUNTED = ("on_hand", "allocated", "on_hold", "damaged", "available_to_promise", "in_transit", "on_order")


class InventoryBalance(Entity):
    """Stock of (sku, location, lot, owner, status) at `as_of`, all quantities in one unit.

    INVRPT codes: on hand 145, allocated 66, on hold 89 and 96, damaged 124, in transit 198. Only the quantity available to
    promise may be negative; a negative count is a matter for the warehouse, not for its neighbours. `is_full_snapshot` says
    that what the snapshot does not name is zero; `snapshot_sequence` rises per source system.
    """

    entity: ClassVar[str] = "inventory-balance"
    version: ClassVar[int] = 1

    sku: Code
    loc: Code
    lot: Code | None = None
    owner: Code
    status: StockStatus
    as_of: Instant
    snapshot_sequence: Whole
    is_full_snapshot: Flag
    source_system: Code
    on_hand: Stock
    allocated: Stock | None = None
    on_hold: Stock | None = None
    damaged: Stock | None = None
    available_to_promise: Quantity | None = None
    in_transit: Stock | None = None
    on_order: Stock | None = None
    expiry_date: PlainDate | None = None

    @property
    def business_key(self) -> str:
        """`sku/loc/lot/owner/status`."""
        return joined_key(self.sku, self.loc, self.lot, self.owner, self.status)

    @model_validator(mode="after")
    def _counts_in_one_unit(self) -> Self:
        require_same_unit(*((name, getattr(self, name)) for name in _COUNTED))
        return self
