"""What an expression may name: the declared shape of a record, of a canonical entity and of an event's envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from state.model.canonical.entity import Entity
from state.model.estate import FieldSpec, FieldType
from state.model.money import MINOR_DIGITS, Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The type of one value. An object whose `fields` are None may hold anything, and so may a list without `item`."""

    type: FieldType
    nullable: bool = False
    fields: Mapping[str, Shape] | None = None
    item: Shape | None = None
    derive: Callable[[Mapping[str, Any]], Any] | None = None  # computed from the object it belongs to

    def with_null(self) -> Shape:
        """The same, but it may be absent."""
        return Shape(type=self.type, nullable=True, fields=self.fields, item=self.item, derive=self.derive)


def of_fields(specs: Mapping[str, FieldSpec]) -> Shape:
    """A record of declared source fields."""
    return Shape(
        type=FieldType.OBJECT,
        fields={name: Shape(type=spec.type, nullable=not spec.required) for name, spec in specs.items()},
    )


@cache
def of_entity(kind: type[Entity]) -> Shape:
    """A canonical entity as its JSON shows it: absent fields are null, money also shows `minor`."""
    return of_type(kind)


_TEXT: Final = Shape(type=FieldType.STRING)

EVENT: Final = Shape(
    type=FieldType.OBJECT,
    fields={
        **dict.fromkeys(("id", "subject", "op", "flow", "site", "system", "correlationid", "partitionkey"), _TEXT),
        "time": Shape(type=FieldType.INSTANT),
        "sequence": Shape(type=FieldType.INTEGER),
    },
)
"""What an expression sees of the envelope, as `event`."""

ANYTHING: Final = Shape(type=FieldType.OBJECT)
"""An object of unknown fields."""


def of_type(annotation: Any) -> Shape:
    """The shape of a type annotation of a model."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        inner = [one for one in get_args(annotation) if one is not NoneType]
        return of_type(inner[0]).with_null()
    if origin is Literal:
        return of_type(type(get_args(annotation)[0]))
    if origin in (tuple, list):
        return Shape(type=FieldType.LIST, item=of_type(get_args(annotation)[0]))
    if isinstance(annotation, type):
        return _of_class(annotation)
    return Shape(type=FieldType.OBJECT)


def _of_class(kind: type[Any]) -> Shape:
    if issubclass(kind, BaseModel):
        return Shape(type=FieldType.OBJECT, fields=_of_model(kind))
    if is_dataclass(kind):
        return Shape(type=FieldType.OBJECT, fields=_of_dataclass(kind))
    return Shape(type=next((name for known, name in _SCALARS if issubclass(kind, known)), FieldType.OBJECT))


def _of_model(kind: type[BaseModel]) -> dict[str, Shape]:
    shapes = {name: of_type(_plain(info.annotation)) for name, info in kind.model_fields.items()}
    return {name: shape.with_null() if name == "ext" else shape for name, shape in shapes.items()}


def _of_dataclass(kind: type[Any]) -> dict[str, Shape]:
    hints = get_type_hints(kind)
    shapes = {one.name: of_type(hints[one.name]) for one in fields(kind)}
    if kind is Money:
        shapes["minor"] = Shape(type=FieldType.INTEGER, derive=_minor)
    return shapes


def _plain(annotation: Any) -> Any:
    """The annotation without what pydantic hangs on it."""
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_plain(one) for one in get_args(annotation))]  # noqa: UP007  built from parts
    metadata = getattr(annotation, "__metadata__", None)
    return _plain(annotation.__origin__) if metadata else annotation


def _minor(money: Mapping[str, Any]) -> int:
    return int(Decimal(money["amount"]).scaleb(MINOR_DIGITS[money["currency"]]))


_SCALARS: Final = (
    (bool, FieldType.BOOLEAN),
    (int, FieldType.INTEGER),
    (Decimal, FieldType.DECIMAL),
    (datetime, FieldType.INSTANT),
    (date, FieldType.DATE),
    (str, FieldType.STRING),
)
