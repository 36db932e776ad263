"""Strict readings of single values: decimals, whole numbers, plain dates, instants, texts, codes and free JSON.

Each function takes what a codec or a mapping hands over, returns the canonical value or raises `BrokenRuleError` with rule
and cure. Nothing is guessed or trimmed: what is accepted can be written and read back as the same value. Each has a type of
the same meaning for the fields of an entity (`exact` / `Exact`).

Texts of days come again and again, so what they were read as is remembered; numbers are with their units, in `pairs`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, TypeVar

from pydantic import JsonValue, PlainValidator

from state.model.errors import BrokenRuleError
from state.model.visible import shown, visible

INTEGER_DIGITS: Final = 15
DECIMAL_PLACES: Final = 10
CODE_LENGTH: Final = 64
TEXT_LENGTH: Final = 4000
EXT_DEPTH: Final = 16
EXT_VALUES: Final = 10_000
EXT_TEXT_LENGTH: Final = 65_536
REMEMBERED: Final = 16_384
"""Texts of one kind whose reading is kept, the last used ones."""

_DECIMAL = re.compile(rf"[+-]?[0-9]{{1,{INTEGER_DIGITS}}}(?:\.[0-9]{{1,{DECIMAL_PLACES}}})?")
_WHOLE = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_ONE_MINUTE: Final = timedelta(minutes=1)
_EXACT_LIMIT: Final = 10**INTEGER_DIGITS
_WHOLE_LIMIT: Final = 1_000_000_000
_DAY_RULE: Final = "a plain date YYYY-MM-DD of 1900 to 9999 is needed"
_FIRST_YEAR: Final = 1900
_LAST_YEAR_OF_INSTANTS: Final = 9998
_INT64: Final = 2**63

_Day = TypeVar("_Day", date, datetime)


def broken(rule: str, value: object, *, hint: str, code: str, place: str = "") -> BrokenRuleError:
    """The error of one value against one rule. `place` is the path below the field that is being read."""
    seen = shown(value)
    return BrokenRuleError(f"{rule}, not {seen}", place=place, rule=rule, shown=seen, hint=hint, code=code)


def settle(value: object, field: str, read: Callable[[object], object]) -> None:
    """Read one field of a frozen dataclass in its `__post_init__`; an error names the field."""
    given = getattr(value, field)
    try:
        settled = read(given)
    except BrokenRuleError as error:
        error.place = field
        raise
    if settled is not given:
        object.__setattr__(value, field, settled)


def exact(value: object) -> Decimal:
    """A finite decimal from text, int or Decimal: at most 15 digits before the point and 10 after it, no exponent in text.

    Floats and booleans are refused, so are `1_000`, `1,5` and digits that are not ASCII. Minus zero reads as zero.
    """
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise _not_exact(value)
        number = Decimal(value)
    elif isinstance(value, Decimal):
        number = _bounded(value)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < _EXACT_LIMIT:
        number = Decimal(value)
    else:
        raise _not_exact(value)
    return number or number.copy_abs()


def positive(value: object) -> Decimal:
    """An `exact` decimal above zero."""
    number = exact(value)
    if number > 0:
        return number
    raise broken(
        "a number above zero is needed", value, hint="Leave the field out if there is none", code="not-positive"
    )


def not_negative(value: object) -> Decimal:
    """An `exact` decimal of zero or more."""
    number = exact(value)
    if number >= 0:
        return number
    raise broken("a number of zero or more is needed", value, hint="Correct the sign at the source", code="negative")


def whole(value: object) -> int:
    """A whole number from 0 to 999,999,999, from an int or ASCII digits."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WHOLE_LIMIT:
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise broken(
        "a whole number from 0 to 999999999 is needed",
        value,
        hint="Give digits only, without sign, point or separators",
        code="not-whole",
    )


def plain_date(value: object) -> date:
    """A calendar day from a `date` or `YYYY-MM-DD`, 1900 to 9999. A datetime is refused: nobody can say whose day it is."""
    if isinstance(value, str):
        return _day_of_text(value)
    if isinstance(value, date) and not isinstance(value, datetime) and value.year >= _FIRST_YEAR:
        return value
    raise _not_a_date(value)


def instant(value: object) -> datetime:
    """A moment with its offset, from an aware `datetime` or RFC 3339 text, 1900 to 9998.

    The offset is kept, as a fixed one in whole minutes: a moment that was read back knows no zone name.
    """
    rule = "an instant with its offset is needed, as 2026-03-02T14:30:00+01:00"
    written = isinstance(value, str) and _INSTANT.fullmatch(value)
    moment = _parsed(datetime.fromisoformat, value, rule) if written and isinstance(value, str) else value
    if not isinstance(moment, datetime):
        hint = "Give day, time and offset; a plain date belongs in a field for dates"
        raise broken(rule, value, hint=hint, code="not-an-instant")
    offset = moment.utcoffset()
    if offset is None:
        hint = "Add the offset of the place where it was recorded, or Z for UTC"
        raise broken(rule, value, hint=hint, code="no-offset")
    if offset % _ONE_MINUTE or not _FIRST_YEAR <= moment.year <= _LAST_YEAR_OF_INSTANTS:
        hint = "Use a year of 1900 to 9998 and an offset in whole minutes"
        raise broken(rule, value, hint=hint, code="not-an-instant")
    return moment.replace(tzinfo=timezone(offset))


def code_text(value: object) -> str:
    """A code that machines compare (sku, order number): 1 to 64 visible characters in Unicode normal form C.

    Outer and double blanks, control, zero-width and look-alike blank characters are refused: no two codes look the same.
    """
    if isinstance(value, str) and 0 < len(value) <= CODE_LENGTH:
        if " " not in value and value.isascii() and value.isprintable():
            return value
        if _is_code(value):
            return value
    raise broken(
        f"a code of 1 to {CODE_LENGTH} visible characters without outer or double blanks is needed",
        value,
        hint="Trim it in the mapping; give text, not a number; remove control and zero-width characters",
        code="bad-code",
    )


def text(value: object) -> str:
    """Words for people: 1 to 4000 characters without control characters, unpaired surrogates or outer blanks."""
    if isinstance(value, str) and 0 < len(value) <= TEXT_LENGTH and value.strip() == value and not _has_controls(value):
        return value
    raise broken(
        f"text of 1 to {TEXT_LENGTH} characters without control characters or outer blanks is needed",
        value,
        hint="Trim it in the mapping and join lines with ' / '; leave an empty field out",
        code="bad-text",
    )


def flag(value: object) -> bool:
    """True or false, and nothing that merely looks like it."""
    if isinstance(value, bool):
        return value
    raise broken(
        "true or false is needed", value, hint="Compare in the mapping: record.active == 'Y'", code="not-a-flag"
    )


def sequence(value: object) -> object:
    """A list or tuple as it is; sets and generators have no order to keep, so they are refused."""
    if isinstance(value, list | tuple):
        return value
    raise broken("a list is needed", value, hint="Put it in brackets, even if there is only one", code="not-a-list")


def free_json(value: object) -> dict[str, JsonValue]:
    """Partner data that the contract does not know: an object, copied, that JSON can write and read back unchanged.

    At most 16 deep, 10,000 values, 65,536 characters a text; whole numbers of 64 bits. Control characters are data here.
    """
    if not isinstance(value, Mapping):
        raise broken("an object is needed", value, hint="Put each unknown value under a name", code="bad-ext")
    return _copied_fields(value, 1, iter(range(EXT_VALUES)))


def _bounded(number: Decimal) -> Decimal:
    exponent = number.as_tuple().exponent
    if isinstance(exponent, str) or exponent < -DECIMAL_PLACES or (number and number.adjusted() >= INTEGER_DIGITS):
        raise _not_exact(number)
    return number if exponent <= 0 else Decimal(int(number))


def _not_exact(value: object) -> BrokenRuleError:
    rule = f"a decimal of at most {INTEGER_DIGITS} digits before the point and {DECIMAL_PLACES} after it is needed"
    if isinstance(value, float):
        hint = "A float has already lost digits: give the number as text, in quotes"
    else:
        hint = "Write ASCII digits with a point, as -1234.50: no blanks, separators, exponent, NaN or infinity"
    return broken(rule, value, hint=hint, code="not-exact")


@lru_cache(maxsize=REMEMBERED)
def _day_of_text(text: str) -> date:
    if _DATE.fullmatch(text):
        day = _parsed(date.fromisoformat, text, _DAY_RULE)
        if day.year >= _FIRST_YEAR:
            return day
    raise _not_a_date(text)


def _not_a_date(value: object) -> BrokenRuleError:
    hint = "Write the day as YYYY-MM-DD"
    if isinstance(value, datetime) or (isinstance(value, str) and _INSTANT.fullmatch(value)):
        hint = "It is an instant: take its day in the site's zone, on purpose"
    return broken(_DAY_RULE, value, hint=hint, code="not-a-date")


def _parsed(read: Callable[[str], _Day], value: str, rule: str) -> _Day:
    try:
        return read(value)
    except ValueError as error:
        raise broken(rule, value, hint=f"No such day or time: {error}", code="no-such-day") from error


def _is_code(value: str) -> bool:
    if value[0] == " " or value[-1] == " " or "  " in value:
        return False
    if value.isascii():
        return value.isprintable()
    return visible(value) == value and unicodedata.is_normalized("NFC", value)


def _has_controls(value: str) -> bool:
    return not (value.isascii() and value.isprintable()) and _CONTROLS.search(value) is not None


def _copied_fields(fields: Mapping[object, object], depth: int, budget: Iterator[int]) -> dict[str, JsonValue]:
    if depth > EXT_DEPTH:
        raise _not_json("an object", f"no more than {EXT_DEPTH} levels are kept")
    return {_json_text(name): _copied(value, depth, budget) for name, value in fields.items()}


def _copied(value: object, depth: int, budget: Iterator[int]) -> JsonValue:
    if next(budget, None) is None:
        raise _not_json(value, f"no more than {EXT_VALUES} values are kept")
    match value:
        case None | bool():
            return value
        case str():
            return _json_text(value)
        case int() if -_INT64 <= value < _INT64:
            return value
        case float() if math.isfinite(value):
            return value
        case list() if depth < EXT_DEPTH:
            return [_copied(one, depth + 1, budget) for one in value]
        case Mapping():
            return _copied_fields(value, depth + 1, budget)
        case _:
            raise _not_json(value, "JSON has no form for it")


def _json_text(value: object) -> str:
    if isinstance(value, str) and len(value) <= EXT_TEXT_LENGTH and not _SURROGATE.search(value):
        return value
    raise _not_json(
        value, f"names are text, and text has at most {EXT_TEXT_LENGTH} characters and no unpaired surrogates"
    )


def _not_json(value: object, why: str) -> BrokenRuleError:
    rule = "ext takes null, true, false, 64-bit whole numbers, finite numbers, text, lists and objects"
    return broken(
        rule, value, hint=f"{why[0].upper()}{why[1:]}: give it as text, or leave it in the raw record", code="bad-ext"
    )


Exact = Annotated[Decimal, PlainValidator(exact, json_schema_input_type=str)]
Positive = Annotated[Decimal, PlainValidator(positive, json_schema_input_type=str)]
NotNegative = Annotated[Decimal, PlainValidator(not_negative, json_schema_input_type=str)]
Whole = Annotated[int, PlainValidator(whole, json_schema_input_type=int)]
PlainDate = Annotated[date, PlainValidator(plain_date, json_schema_input_type=date)]
Instant = Annotated[datetime, PlainValidator(instant, json_schema_input_type=datetime)]
Code = Annotated[str, PlainValidator(code_text, json_schema_input_type=str)]
Text = Annotated[str, PlainValidator(text, json_schema_input_type=str)]
Flag = Annotated[bool, PlainValidator(flag, json_schema_input_type=bool)]
FreeJson = Annotated[dict[str, JsonValue], PlainValidator(free_json, json_schema_input_type=dict[str, JsonValue])]
