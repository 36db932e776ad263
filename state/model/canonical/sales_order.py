"""Sales order: what a customer orders from us (inbound X12 850, channel orders)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import (
    Entity,
    Record,
    Several,
    Stock,
    Wanted,
    require,
    require_at_most,
    require_order,
    require_same_unit,
)
from state.model.canonical.order_lines import check_lines
from state.model.money import CurrencyCode, Money, UnitPrice
from state.model.scalars import Code, Flag, Instant, PlainDate, Text, Whole

SalesOrderStatus = Literal["draft", "open", "held", "released", "shipped", "delivered", "closed", "cancelled"]
SubstituteRule = Literal["none", "same_brand", "any_equivalent", "ask"]

_SETTLED = ("shipped", "backordered", "cancelled")
_DATES = ("requested_ship_date", "requested_delivery_date", "promised_ship_date", "promised_delivery_date")


class SalesOrderLine(Record):
    """One item of the order and how far it is. Shipped, backordered and cancelled share out the quantity."""

    line_no: Whole
    sku: Code
    description: Text | None = None
    quantity: Wanted
    price: UnitPrice | None = None
    allocated: Stock | None = None
    shipped: Stock | None = None
    backordered: Stock | None = None
    cancelled: Stock | None = None
    substitute_rule: SubstituteRule = "none"
    minimum_shipment: Stock | None = None
    partial_allowed: Flag = True
    customer_line_no: Whole | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        names = (*_SETTLED, "allocated", "minimum_shipment")
        require_same_unit(("quantity", self.quantity), *((name, getattr(self, name)) for name in names))
        ordered = self.quantity.value
        settled = sum((one.value for name in _SETTLED if (one := getattr(self, name)) is not None), start=Decimal(0))
        rule = f"shipped, backordered and cancelled must not be above the quantity ({ordered:f}) together"
        require_at_most(settled, ordered, rule=rule, place="quantity")
        for name in ("allocated", "minimum_shipment"):
            if (one := getattr(self, name)) is not None:
                require_at_most(
                    one.value, ordered, rule=f"{name} must not be above the quantity ({ordered:f})", place=name
                )
        return self


class SalesOrder(Entity):
    """An order by its `so_no`. A lower `priority` is served first."""

    entity: ClassVar[str] = "sales-order"
    version: ClassVar[int] = 1
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"channel_order_id": "channel-order", "customer_po": "customer-order"}
    )

    so_no: Code
    channel: Code
    channel_order_id: Code | None = None
    customer_po: Code | None = None
    customer: Code
    ship_to: Code
    priority: Whole | None = None
    order_date: PlainDate
    requested_ship_date: PlainDate | None = None
    requested_delivery_date: PlainDate | None = None
    promised_ship_date: PlainDate | None = None
    promised_delivery_date: PlainDate | None = None
    cut_off_at: Instant | None = None
    currency: CurrencyCode
    total: Money | None = None
    status: SalesOrderStatus
    lines: Several[SalesOrderLine]

    @property
    def business_key(self) -> str:
        """The order number."""
        return self.so_no

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        hint = "An order without lines orders nothing; set status to cancelled and keep its lines"
        require(self.lines, "an order has at least one line", place="lines", hint=hint)
        for name in _DATES:
            require_order(self.order_date, getattr(self, name), names=("order_date", name))
        for first, second in (_DATES[:2], _DATES[2:]):
            require_order(getattr(self, first), getattr(self, second), names=(first, second))
        check_lines(self.lines, self.currency, self.total)
        return self
