"""Product: what is bought, kept and sold, with its packs (X12 832, PRICAT, GTIN)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import (
    Entity,
    Record,
    Several,
    Wanted,
    require,
    require_order,
    require_unique,
)
from state.model.identifiers import Gtin, Identifier
from state.model.money import UnitPrice
from state.model.quantity import UNITS, Dimension, Quantity, UnitCode
from state.model.scalars import Code, Flag, PlainDate, Positive, Text, Whole, broken

ProductStatus = Literal["planned", "active", "blocked", "discontinued"]
PackLevel = Literal["each", "inner", "case", "pallet"]

_LEVELS: tuple[PackLevel, ...] = ("each", "inner", "case", "pallet")


class Pack(Record):
    """One level of the pack hierarchy: `factor` base units in one `unit`, with its own GTIN, weight and outer dimensions."""

    level: PackLevel
    unit: UnitCode
    factor: Positive
    gtin: Gtin | None = None
    gross_weight: Wanted | None = None
    length: Wanted | None = None
    width: Wanted | None = None
    height: Wanted | None = None

    @model_validator(mode="after")
    def _measures_fit(self) -> Self:
        _require_dimension(self.gross_weight, "mass", "gross_weight")
        for name in ("length", "width", "height"):
            _require_dimension(getattr(self, name), "length", name)
        return self


class Product(Entity):
    """A product by its `sku`; quantities of it count in `base_unit`."""

    entity: ClassVar[str] = "product"
    version: ClassVar[int] = 1

    sku: Code
    description: Text
    status: ProductStatus
    base_unit: UnitCode
    packs: Several[Pack] = ()
    gtin: Gtin | None = None
    identifiers: Several[Identifier] = ()
    lot_tracked: Flag = False
    serial_tracked: Flag = False
    expiry_tracked: Flag = False
    shelf_life_days: Whole | None = None
    category: Code | None = None
    standard_cost: UnitPrice | None = None
    hazard_class: Code | None = None
    temperature_class: Code | None = None
    valid_from: PlainDate | None = None
    valid_to: PlainDate | None = None

    @property
    def business_key(self) -> str:
        """The sku."""
        return self.sku

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        require_order(self.valid_from, self.valid_to, names=("valid_from", "valid_to"))
        require_unique([pack.level for pack in self.packs], place="packs", name="level")
        _require_rising(self.packs)
        if self.expiry_tracked:
            hint = "Ask the supplier for the shelf life, or do not track the expiry"
            require(
                self.shelf_life_days,
                "a product whose expiry is tracked needs its shelf life",
                place="shelf_life_days",
                hint=hint,
            )
        return self


def _require_dimension(quantity: Quantity | None, dimension: Dimension, place: str) -> None:
    if quantity is not None and UNITS[quantity.unit].dimension != dimension:
        raise broken(
            f"{place} must be in a unit of {dimension}",
            quantity.unit,
            hint="KGM for weights, MTR or MMT for lengths",
            code="unit-mismatch",
            place=f"{place}.unit",
        )


def _require_rising(packs: tuple[Pack, ...]) -> None:
    ordered = sorted(enumerate(packs), key=lambda one: _LEVELS.index(one[1].level))
    for (_, smaller), (index, larger) in pairwise(ordered):
        if larger.factor < smaller.factor:
            raise broken(
                f"a {larger.level} must hold at least what a {smaller.level} holds ({smaller.factor:f})",
                f"{larger.factor:f}",
                hint="Factors count base units: a case of 4 inners of 6 has factor 24",
                code="pack-order",
                place=f"packs.{index}.factor",
            )
