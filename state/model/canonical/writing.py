"""An entity as canonical JSON: the same entity always gives the same bytes, and `parse` gives the entity back."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel

from state.model.canonical.entity import Entity

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def to_json_bytes(entity: Entity) -> bytes:
    """Compact UTF-8 JSON: keys sorted, decimals as text without exponent, days and instants as ISO 8601, no absent fields."""
    return orjson.dumps(entity, default=_plain, option=_OPTIONS)


def to_record(entity: Entity) -> dict[str, Any]:
    """The same as plain values (text, whole numbers, lists, objects), for expressions and mappings."""
    record: dict[str, Any] = orjson.loads(to_json_bytes(entity))
    return record


def _plain(value: Any) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, BaseModel):
        return {name: one for name, one in value.__dict__.items() if one is not None and (name != "ext" or one)}
    kind: Any = type(value)
    return {name: one for name in _names(kind) if (one := getattr(value, name)) is not None}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
