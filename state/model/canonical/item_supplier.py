"""Item-supplier: on what terms a party supplies a product to a location (frePPLe item-suppliers)."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import ClassVar, Self

from pydantic import model_validator

from state.model.canonical.entity import (
    Entity,
    Record,
    Several,
    Wanted,
    joined_key,
    require_at_most,
    require_order,
    require_same_unit,
)
from state.model.money import UnitPrice
from state.model.quantity import UnitCode
from state.model.scalars import Code, NotNegative, PlainDate, Whole, broken


class PriceBreak(Record):
    """The price from a quantity on."""

    from_quantity: Wanted
    price: UnitPrice


class ItemSupplier(Entity):
    """Terms for (sku, party, location); without a location they hold everywhere. A lower `priority` is asked first."""

    entity: ClassVar[str] = "item-supplier"
    version: ClassVar[int] = 1

    sku: Code
    party: Code
    loc: Code | None = None
    vendor_part: Code | None = None
    order_unit: UnitCode
    lead_time_days: NotNegative
    lead_time_deviation_days: NotNegative | None = None
    minimum_quantity: Wanted | None = None
    multiple_quantity: Wanted | None = None
    maximum_quantity: Wanted | None = None
    cost: UnitPrice | None = None
    breaks: Several[PriceBreak] = ()
    priority: Whole | None = None
    share_percent: NotNegative | None = None
    release_fence_days: Whole | None = None
    valid_from: PlainDate | None = None
    valid_to: PlainDate | None = None

    @property
    def business_key(self) -> str:
        """`sku/party/loc`."""
        return joined_key(self.sku, self.party, self.loc)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        require_order(self.valid_from, self.valid_to, names=("valid_from", "valid_to"))
        _check_sizes(self)
        _check_breaks(self)
        if self.share_percent is not None:
            require_at_most(
                self.share_percent, Decimal(100), rule="a share is at most 100 percent", place="share_percent"
            )
        return self


def _check_sizes(terms: ItemSupplier) -> None:
    sizes = {
        name: quantity
        for name in ("minimum_quantity", "multiple_quantity", "maximum_quantity")
        if (quantity := getattr(terms, name)) is not None
    }
    for name, quantity in sizes.items():
        if quantity.unit != terms.order_unit:
            hint = "Convert it in the mapping with the factor of the product"
            rule = f"{name} must be in the order unit ({terms.order_unit})"
            raise broken(rule, quantity.unit, hint=hint, code="unit-mismatch", place=f"{name}.unit")
    if terms.maximum_quantity is not None:
        for name in ("minimum_quantity", "multiple_quantity"):
            if name in sizes:
                rule = f"{name} must not be above maximum_quantity ({terms.maximum_quantity.value:f})"
                require_at_most(sizes[name].value, terms.maximum_quantity.value, rule=rule, place=name)


def _check_breaks(terms: ItemSupplier) -> None:
    for index, (lower, upper) in enumerate(pairwise(terms.breaks), start=1):
        place = f"breaks.{index}."
        require_same_unit(("from_quantity", lower.from_quantity), ("from_quantity", upper.from_quantity), within=place)
        if upper.from_quantity.value <= lower.from_quantity.value:
            hint = "Sort the breaks and give each quantity once"
            shown = f"{upper.from_quantity.value:f}"
            raise broken("breaks must rise", shown, hint=hint, code="break-order", place=place + "from_quantity")
    currencies = [price.currency for price in (terms.cost, *(one.price for one in terms.breaks)) if price is not None]
    if len(set(currencies)) > 1:
        hint = "One set of terms is in one currency; write another for the other"
        raise broken(
            "cost and breaks must be in one currency",
            currencies[-1],
            hint=hint,
            code="mixed-currencies",
            place="breaks",
        )
