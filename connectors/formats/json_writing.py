"""Values to JSON text with every digit kept: the standard library's writer has no `Decimal`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring

from connectors.formats.records import JSONValue
from connectors.formats.writing import plain_number, unwritable


def json_of(record: Mapping[str, JSONValue], number: int, *, max_depth: int) -> str:
    """The record on one line. Raises `RejectedError` with the field for a value that JSON cannot hold, such as NaN."""
    members = (
        f"{encode_basestring(name)}:{_value(value, number, name, max_depth - 1)}" for name, value in record.items()
    )
    return f"{{{','.join(members)}}}"


def _value(value: object, number: int, field: str, depth: int) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return _number(value, number, field)
    if isinstance(value, dict | list):
        return _nested(value, number, field, depth)
    hint = "Map it to text, a number, true, false or null; a fraction is a Decimal"
    raise unwritable("json-type", f"a {type(value).__name__} is no JSON value here", hint, number=number, field=field)


def _nested(value: dict[str, object] | list[object], number: int, field: str, depth: int) -> str:
    if depth <= 0:
        raise unwritable("json-depth", "nested too deep", "Flatten it, or raise max_depth", number=number, field=field)
    if isinstance(value, list):
        items = (_value(item, number, f"{field}[{at}]", depth - 1) for at, item in enumerate(value))
        return f"[{','.join(items)}]"
    members = (
        f"{encode_basestring(name)}:{_value(item, number, f'{field}.{name}', depth - 1)}"
        for name, item in value.items()
    )
    return f"{{{','.join(members)}}}"


def _number(value: int | Decimal, number: int, field: str) -> str:
    try:
        return plain_number(value)
    except ValueError:
        hint = "Map it to a finite number or null"
        raise unwritable("json-number", "not a number that JSON can hold", hint, number=number, field=field) from None
