"""Purchase order: what we order from a supplier (X12 850 and 860, EDIFACT ORDERS and ORDCHG, OAGIS ProcessPurchaseOrder)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Self

from pydantic import PlainValidator, model_validator

from state.model.canonical.entity import (
    Entity,
    Record,
    Several,
    Stock,
    Wanted,
    require,
    require_at_most,
    require_each_order,
    require_order,
    require_same_unit,
)
from state.model.canonical.order_lines import check_lines
from state.model.canonical.party import Incoterm
from state.model.identifiers import Gtin
from state.model.money import CurrencyCode, Money, UnitPrice
from state.model.scalars import Code, Instant, PlainDate, Text, Whole, broken

Purpose = Literal["original", "change", "cancel"]
OrderType = Literal["standard", "blanket", "release", "drop_ship", "consignment", "transfer"]
LineStatus = Literal["open", "confirmed", "shipped", "received", "closed", "cancelled"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _sha256(value: object) -> str:
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value
    hint = "It is the hash of what the approver was shown"
    raise broken("a SHA-256 of 64 lower-case hexadecimal digits is needed", value, hint=hint, code="bad-hash")


class OrderApproval(Record):
    """Who approved it, when, up to which limit, and the hash of what was shown."""

    hash: Annotated[str, PlainValidator(_sha256, json_schema_input_type=str)]
    by: Code
    at: Instant
    limit: Money | None = None


class PurchaseOrderLine(Record):
    """One item of the order; `reco_id` is the recommendation that led to it."""

    line_no: Whole
    sku: Code
    gtin: Gtin | None = None
    vendor_part: Code | None = None
    description: Text | None = None
    quantity: Wanted
    price: UnitPrice | None = None
    need_date: PlainDate | None = None
    allocated_loc: Code | None = None
    open_quantity: Stock | None = None
    status: LineStatus = "open"
    reco_id: Code | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.open_quantity is not None:
            require_same_unit(("quantity", self.quantity), ("open_quantity", self.open_quantity))
            rule = f"open_quantity must not be above quantity ({self.quantity.value:f})"
            require_at_most(self.open_quantity.value, self.quantity.value, rule=rule, place="open_quantity")
        return self


class PurchaseOrder(Entity):
    """An order by its `po_no`. A later `revision` replaces an earlier one."""

    entity: ClassVar[str] = "purchase-order"
    version: ClassVar[int] = 1
    names: ClassVar[Mapping[str, str]] = MappingProxyType({"lines.reco_id": "replenishment-recommendation"})

    po_no: Code
    purpose: Purpose
    type: OrderType = "standard"
    order_date: PlainDate
    revision: Whole = 0
    buyer: Code
    supplier: Code
    ship_to: Code
    bill_to: Code | None = None
    currency: CurrencyCode
    terms: Text | None = None
    incoterm: Incoterm | None = None
    requested_ship_date: PlainDate | None = None
    requested_delivery_date: PlainDate | None = None
    approval: OrderApproval | None = None
    total: Money | None = None
    lines: Several[PurchaseOrderLine] = ()

    @property
    def business_key(self) -> str:
        """The order number."""
        return self.po_no

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.purpose != "cancel":
            hint = "An order without lines orders nothing; to withdraw it, set purpose to cancel"
            require(self.lines, "an order has at least one line", place="lines", hint=hint)
        for name in ("requested_ship_date", "requested_delivery_date"):
            require_order(self.order_date, getattr(self, name), names=("order_date", name))
        needed = [line.need_date for line in self.lines]
        require_each_order(self.order_date, needed, names=("order_date", "need_date"), place="lines")
        check_lines(self.lines, self.currency, self.total)
        _check_approval(self)
        return self


def _check_approval(order: PurchaseOrder) -> None:
    if order.approval is None or order.approval.limit is None:
        return
    limit = order.approval.limit
    if limit.currency != order.currency:
        hint = "A limit is compared with the total, so it is in the currency of the order"
        rule = f"the limit must be in {order.currency}"
        raise broken(rule, limit.currency, hint=hint, code="mixed-currencies", place="approval.limit.currency")
    if order.total is not None and limit < order.total:
        hint = "Ask somebody who may approve this much"
        raise broken(
            f"the limit must cover the total, {order.total}",
            str(limit),
            hint=hint,
            code="over-limit",
            place="approval.limit",
        )
