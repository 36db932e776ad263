"""A number with its unit or currency, read from two texts: the same two texts give the same object, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from state.model.errors import BrokenRuleError
from state.model.scalars import REMEMBERED


def remembered_pairs(make: Callable[[str, str], object], number: str, unit: str) -> Callable[[object], object]:
    """A reading that comes before pydantic's: `{number: "12", unit: "EA"}` becomes what `make("12", "EA")` gives.

    Everything else, and what `make` refuses, is handed on as it came: pydantic reads it in full and names what is wrong. Only
    texts that are `str` itself are remembered: as keys 1, 1.0, 1.00 and True are one, and so are a text and a word of an enum.
    """
    known = lru_cache(maxsize=REMEMBERED)(make)

    def read(value: object) -> object:
        if type(value) is dict and len(value) == 2:
            first, second = value.get(number), value.get(unit)
            if type(first) is str and type(second) is str:
                try:
                    return known(first, second)
                except BrokenRuleError:
                    return value
        return value

    return read
