"""A number with its unit or currency, read from plain values: the same two texts give the same object, made once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

from state.model.errors import BrokenRuleError
from state.model.scalars import INTEGER_DIGITS, REMEMBERED

_LIMIT = 10**INTEGER_DIGITS


def remembered_pairs(kind: Callable[..., object], number: str, unit: str) -> Callable[[object], object]:
    """A reading that comes before pydantic's: `{number: "12", unit: "EA"}` becomes `Quantity(value="12", unit="EA")`.

    Everything else, and what `kind` refuses, is handed on as it came: pydantic reads it in full and names what is wrong.
    What is remembered has two texts as its key, and only `str` itself is one: as keys 1, 1.0, 1.00 and True would be one, and
    so would a text and a word of an enum. A decimal is known by its digits.
    """

    @lru_cache(maxsize=REMEMBERED)
    def known(first: str, second: str) -> object:
        return kind(**{number: first, unit: second})

    def read(value: object) -> object:
        if type(value) is not dict or len(value) != 2:
            return value
        first, second = value.get(number), value.get(unit)
        if type(first) is not str:
            first = _written(first)
        if type(first) is not str or type(second) is not str:
            return value
        try:
            return known(first, second)
        except BrokenRuleError:
            return value

    return read


def _written(number: object) -> str | None:
    """The digits of a decimal or whole number, which read as the same decimal with the same places."""
    if type(number) is Decimal or (type(number) is int and -_LIMIT < number < _LIMIT):
        return str(number)
    return None
