"""Numbers as people and systems write them, read exactly as declared and never guessed."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from connectors.formats.records import Flaw, show

_MARKS = frozenset(".,")
_GROUPINGS = frozenset(("", ".", ",", " ", "'", "’", "\u00a0", "\u202f"))  # noqa: RUF001  the Swiss apostrophe


def parse_decimal(text: str, *, decimal_mark: str = ".", grouping: str = "", max_digits: int = 38) -> Decimal:
    """Read a plain decimal number: an optional sign, ASCII digits, groups of three if declared, an optional fraction.

    Spaces around it are dropped. No exponent, no `1_000`, no `١٢`, and no `1.234,56` unless both marks are declared: what
    could be read in two ways is refused. Raises `RejectedError` (`number`, `number-range`), and `ValueError` for marks that
    cannot be told apart.
    """
    number = _pattern(decimal_mark, grouping).fullmatch(text.strip(" "))
    if number is None:
        raise Flaw(
            code="number",
            rule=f"not a number written with decimal mark {decimal_mark!r} and {_named(grouping)}",
            hint="Correct the value, or declare the marks that the sender uses",
            shown=show(text),
        ).spoils_file()
    digits = number["whole"].replace(grouping, "") if grouping else number["whole"]
    fraction = number["fraction"] or ""
    if len(digits) + len(fraction) > max_digits:
        raise Flaw(
            code="number-range",
            rule=f"the number has more than {max_digits} digits",
            hint="Correct the value; an identifier belongs into a text field",
            shown=show(text),
        ).spoils_file()
    return Decimal(f"{number['sign']}{digits}.{fraction}" if fraction else f"{number['sign']}{digits}")


@lru_cache(maxsize=64)
def _pattern(decimal_mark: str, grouping: str) -> re.Pattern[str]:
    if decimal_mark not in _MARKS or grouping not in _GROUPINGS or decimal_mark == grouping:
        raise ValueError(
            f"decimal mark {decimal_mark!r} and grouping {grouping!r} are not two marks that can be told apart"
        )
    grouped = rf"[0-9]{{1,3}}(?:{re.escape(grouping)}[0-9]{{3}})++|" if grouping else ""
    return re.compile(
        rf"(?P<sign>[+-]?)(?P<whole>{grouped}[0-9]*+)(?:{re.escape(decimal_mark)}(?P<fraction>[0-9]++))?(?<=[0-9])"
    )


def _named(grouping: str) -> str:
    return f"grouping {grouping!r}" if grouping else "no grouping"
