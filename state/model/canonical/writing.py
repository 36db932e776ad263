"""An entity as canonical JSON: the same entity always gives the same bytes, and `parse` gives the entity back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import orjson
from pydantic import BaseModel

from state.model.canonical.entity import Entity
from state.model.identifiers import Identifier
from state.model.money import Money, UnitPrice
from state.model.quantity import Quantity

_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def to_json_bytes(entity: Entity) -> bytes:
    """Compact UTF-8 JSON: keys sorted, decimals as text without exponent, days and instants as ISO 8601, no absent fields."""
    return orjson.dumps(entity, default=_plain, option=_OPTIONS)


def to_record(entity: Entity) -> dict[str, Any]:
    """The same as plain values (text, whole numbers, lists, objects), for expressions and mappings."""
    record: dict[str, Any] = orjson.loads(to_json_bytes(entity))
    return record


def _plain(value: Any) -> object:
    form: Callable[[Any], object] = _FORMS.get(type(value), _part)
    return form(value)


def _part(record: BaseModel) -> dict[str, Any]:
    known = {name: one for name, one in record.__dict__.items() if one is not None}
    if not known.get("ext", True):
        del known["ext"]
    return known


def _digits(number: Decimal) -> str:
    short = str(number)  # faster than a format, and the same but for very small numbers
    return f"{number:f}" if "E" in short else short


def _quantity(quantity: Quantity) -> dict[str, str]:
    known = {"value": _digits(quantity.value), "unit": quantity.unit}
    if quantity.base_value is not None and quantity.base_unit is not None:
        known |= {"base_value": _digits(quantity.base_value), "base_unit": quantity.base_unit}
    if quantity.pack_factor is not None:
        known["pack_factor"] = _digits(quantity.pack_factor)
    return known


def _money(money: Money) -> dict[str, str]:
    return {"amount": _digits(money.amount), "currency": money.currency}


def _price(price: UnitPrice) -> dict[str, str]:
    known = {"amount": _digits(price.amount), "currency": price.currency, "per": _digits(price.per)}
    if price.unit is not None:
        known["unit"] = price.unit
    return known


def _identifier(identifier: Identifier) -> dict[str, str]:
    known = {"scheme": identifier.scheme, "value": identifier.value}
    if identifier.issuer is not None:
        known["issuer"] = identifier.issuer
    return known


_FORMS: Final[dict[type, Callable[[Any], object]]] = {
    Decimal: _digits,
    Quantity: _quantity,
    Money: _money,
    UnitPrice: _price,
    Identifier: _identifier,
}
