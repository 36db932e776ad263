"""What expressions can call beside CEL's own functions: exact decimals, text, dates, and the makers of canonical values.

Inside CEL a decimal is a `map(bool, string)` of its plain digits: no other value has that type, so the checker tells decimals
from numbers and texts, and `+ - * < <= > >= ==` work on them exactly. Doubles never meet them. A function given null answers
null, so that an absent optional field stays absent; every text that is made is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from itertools import product
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cel_expr_python import cel

TEXT_LIMIT: Final = 65_536
"""Characters of one text that goes into an expression or comes out of a function."""

DIGIT_LIMIT: Final = 38
"""Digits of a decimal that an expression computes; one more is an error, never a rounding."""

_Type: TypeAlias = cel.Type
Digits: TypeAlias = Mapping[bool, str]
"""A decimal as CEL sees it: `{True: "12.5"}`, without trailing zeros, so that equal numbers are equal maps."""

DECIMAL: Final = cel.Type.Map(cel.Type.BOOL, cel.Type.STRING)
_STRING, _INT, _BOOL, _NULL, _DYN = cel.Type.STRING, cel.Type.INT, cel.Type.BOOL, cel.Type.NULL, cel.Type.DYN
_MAP, _LIST, _TIMESTAMP = cel.Type.MAP, cel.Type.LIST, cel.Type.TIMESTAMP
_OBJECT: Final = cel.Type.Map(_STRING, _DYN)

_ARITHMETIC: Final = Context(prec=2 * DIGIT_LIMIT, traps=[InvalidOperation, Overflow, DivisionByZero])
_ROUNDED: Final = Context(
    prec=4 * DIGIT_LIMIT, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow, DivisionByZero]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One way to call a function. `takes` are CEL types by runtime kind; `DYN` is no kind and cannot be taken."""

    takes: tuple[_Type, ...]
    gives: _Type
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the expression language. `is_method` also allows `a.name(b)`; `summary` is its line in the reference."""

    name: str
    summary: str
    overloads: tuple[Overload, ...]
    is_method: bool = False

    def declared(self) -> cel.FunctionDecl:
        """The form that CEL takes."""
        styles = (False, True) if self.is_method else (False,)
        return cel.FunctionDecl(
            self.name,
            [
                cel.Overload(f"{self.name}_{number}_{style}", one.gives, list(one.takes), style, one.call)
                for style in styles
                for number, one in enumerate(self.overloads)
            ],
        )


def to_digits(value: Decimal) -> Digits:
    """The decimal as CEL sees it. Raises ValueError beyond `DIGIT_LIMIT` digits: nothing is rounded in silence."""
    plain = format(value.normalize(_ARITHMETIC), "f")
    if len(plain) > DIGIT_LIMIT + 2 or not value.is_finite():
        raise ValueError(f"a decimal has more than {DIGIT_LIMIT} digits; round it: round(x, 4)")
    return {True: "0" if plain == "-0" else plain}


def from_digits(value: Mapping[Any, Any]) -> Decimal:
    """The decimal of `to_digits`. Raises ValueError for a map that is none."""
    digits = value.get(True)
    if not isinstance(digits, str) or len(value) != 1:
        raise ValueError("an object stands where a decimal is needed")
    return Decimal(digits)


def _operator(name: str, call: Callable[[Decimal, Decimal], Any], gives: _Type) -> Function:
    wrap: Callable[[Any], Any] = to_digits if gives == DECIMAL else bool

    def of_decimals(left: Digits, right: Digits) -> Any:
        return wrap(call(from_digits(left), from_digits(right)))

    def of_left(left: Digits, right: int) -> Any:
        return wrap(call(from_digits(left), Decimal(right)))

    def of_right(left: int, right: Digits) -> Any:
        return wrap(call(Decimal(left), from_digits(right)))

    return Function(
        name=name,
        summary="",
        overloads=(
            Overload(takes=(DECIMAL, DECIMAL), gives=gives, call=of_decimals),
            Overload(takes=(DECIMAL, _INT), gives=gives, call=of_left),
            Overload(takes=(_INT, DECIMAL), gives=gives, call=of_right),
        ),
    )


def _decimal_of(text: str) -> Digits:
    if not (text.isascii() and text.removeprefix("-").replace(".", "", 1).isdigit() and len(text) <= DIGIT_LIMIT):
        raise ValueError("decimal() takes plain ASCII digits with a point, as -1234.50")
    return to_digits(Decimal(text))


def _whole_of(value: Digits) -> int:
    number = from_digits(value)
    if number != number.to_integral_value():
        raise ValueError(f"{number} is no whole number; round it first: int(round(x, 0))")
    return int(number)


def _scale(places: int) -> Decimal:
    if not 0 <= places <= 10:
        raise ValueError("the scale is 0 to 10 places")
    return Decimal(1).scaleb(-places)


def _rounded(value: Digits, places: int) -> Digits:
    return to_digits(_ROUNDED.quantize(from_digits(value), _scale(places)))


def _divided(left: Decimal, right: Decimal, places: int) -> Digits:
    if not right:
        raise ValueError("division by zero")
    return to_digits(_ROUNDED.quantize(_ROUNDED.divide(left, right), _scale(places)))


def _bounded(text: str) -> str:
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"a text grows beyond {TEXT_LIMIT} characters")
    return text


def _replaced(text: str, old: str, new: str) -> str:
    if not old:
        raise ValueError("replace() needs a text to look for")
    if len(text) + text.count(old) * (len(new) - len(old)) > TEXT_LIMIT:
        raise ValueError(f"a text grows beyond {TEXT_LIMIT} characters")
    return text.replace(old, new)


def _split(text: str, separator: str) -> list[str]:
    if not separator:
        raise ValueError("split() needs a separator")
    if text.count(separator) >= 1000:
        raise ValueError("split() makes at most 1000 parts")
    return text.split(separator)


def _joined(parts: Sequence[Any], separator: str) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("join() takes a list of texts")
    if sum(map(len, parts)) + len(separator) * len(parts) > TEXT_LIMIT:
        raise ValueError(f"a text grows beyond {TEXT_LIMIT} characters")
    return separator.join(parts)


def _padded(text: str, width: int, fill: str) -> str:
    if len(fill) != 1 or not 0 <= width <= 1000:
        raise ValueError("padleft() takes a width of 0 to 1000 and one character")
    return text.rjust(width, fill)


def _substring(text: str, start: int, end: int) -> str:
    if not 0 <= start <= end:
        raise ValueError("substring() takes 0 <= start <= end")
    return text[start:end]


def _read_time(text: str, form: str) -> datetime:
    if not text.isascii() or len(text) > 100:
        raise ValueError("a date is written in ASCII characters")
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007  the caller attaches the zone, or takes the day alone
    except ValueError:
        raise ValueError(f"the text does not read as {form}, or there is no such day") from None


def _day_of_text(text: str, form: str) -> str:
    return _read_time(text, form).date().isoformat()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("there is no such time zone; write an IANA name such as Europe/Berlin") from None


def _instant_of_text(text: str, form: str, zone: str) -> datetime:
    """The moment; a local time that a clock change skips or repeats is refused, since nobody can say which it is."""
    local = _read_time(text, form)
    if local.tzinfo is not None:
        return local
    moment = local.replace(tzinfo=_zone(zone))
    if moment.utcoffset() != moment.replace(fold=1).utcoffset():
        raise ValueError("the clock change in that zone skips or repeats this local time")
    return moment


def _day_in_zone(moment: datetime, zone: str) -> str:
    return moment.astimezone(_zone(zone)).date().isoformat()


def _iso_day(text: str) -> date:
    if len(text) != 10 or not text.isascii():
        raise ValueError("a date is written YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such day: {error}") from None


def _days_later(day: str, days: int) -> str:
    try:
        return (_iso_day(day) + timedelta(days=days)).isoformat()
    except OverflowError:
        raise ValueError("the date leaves the calendar") from None


def _days_between(first: str, second: str) -> int:
    return (_iso_day(second) - _iso_day(first)).days


def _default_overloads() -> tuple[Overload, ...]:
    kinds = (_STRING, _INT, _BOOL, _MAP, _LIST, _TIMESTAMP)
    kept = [Overload(takes=pair, gives=_DYN, call=lambda value, _: value) for pair in product(kinds, kinds)]
    given = [Overload(takes=(_NULL, kind), gives=_DYN, call=lambda _, instead: instead) for kind in kinds]
    return (*kept, *given)


def _nullable(takes: tuple[_Type, ...], gives: _Type, call: Callable[..., Any]) -> tuple[Overload, ...]:
    """The function, and its answer null to null."""
    return (
        Overload(takes=takes, gives=gives, call=call),
        Overload(takes=(_NULL, *takes[1:]), gives=_DYN, call=lambda *_: None),
    )


def _text_function(
    name: str, summary: str, takes: tuple[_Type, ...], gives: _Type, call: Callable[..., Any]
) -> Function:
    return Function(name=name, summary=summary, overloads=_nullable(takes, gives, call), is_method=True)


def _function(name: str, summary: str, *overloads: Overload) -> Function:
    return Function(name=name, summary=summary, overloads=overloads)


def _maker(name: str, summary: str, number: str, word: str) -> Function:
    def of_decimal(value: Digits, said: str) -> dict[str, Any]:
        return {number: value, word: said}

    def of_int(value: int, said: str) -> dict[str, Any]:
        return {number: to_digits(Decimal(value)), word: said}

    return Function(
        name=name,
        summary=summary,
        overloads=(
            *_nullable((DECIMAL, _STRING), _OBJECT, of_decimal),
            Overload(takes=(_INT, _STRING), gives=_OBJECT, call=of_int),
        ),
    )


OPERATORS: Final = (
    _operator("_+_", _ARITHMETIC.add, DECIMAL),
    _operator("_-_", _ARITHMETIC.subtract, DECIMAL),
    _operator("_*_", _ARITHMETIC.multiply, DECIMAL),
    _operator("_<_", Decimal.__lt__, _BOOL),
    _operator("_<=_", Decimal.__le__, _BOOL),
    _operator("_>_", Decimal.__gt__, _BOOL),
    _operator("_>=_", Decimal.__ge__, _BOOL),
    _function("-_", "", Overload(takes=(DECIMAL,), gives=DECIMAL, call=lambda a: to_digits(-from_digits(a)))),
    _function("string", "", Overload(takes=(DECIMAL,), gives=_STRING, call=lambda a: format(from_digits(a), "f"))),
    _function("int", "", Overload(takes=(DECIMAL,), gives=_INT, call=_whole_of)),
)
"""What CEL has already, for decimals too."""

BUILT_IN: Final = (
    _function(
        "decimal",
        "`decimal('12.50')`: the exact decimal of a text or a whole number",
        *_nullable((_STRING,), DECIMAL, _decimal_of),
        Overload(takes=(_INT,), gives=DECIMAL, call=lambda a: to_digits(Decimal(a))),
    ),
    _function(
        "div",
        "`div(a, b, 4)`: a divided by b, rounded half up to 4 places",
        Overload(
            takes=(DECIMAL, DECIMAL, _INT),
            gives=DECIMAL,
            call=lambda a, b, n: _divided(from_digits(a), from_digits(b), n),
        ),
        Overload(
            takes=(DECIMAL, _INT, _INT), gives=DECIMAL, call=lambda a, b, n: _divided(from_digits(a), Decimal(b), n)
        ),
        Overload(takes=(_INT, _INT, _INT), gives=DECIMAL, call=lambda a, b, n: _divided(Decimal(a), Decimal(b), n)),
    ),
    _function("round", "`round(a, 2)`: half up to 2 places", *_nullable((DECIMAL, _INT), DECIMAL, _rounded)),
    _text_function("trim", "`trim(text)`: without outer blanks", (_STRING,), _STRING, str.strip),
    _text_function("upper", "`upper(text)`: in capitals", (_STRING,), _STRING, lambda a: _bounded(a.upper())),
    _text_function("lower", "`lower(text)`: in small letters", (_STRING,), _STRING, lambda a: _bounded(a.lower())),
    _text_function(
        "replace",
        "`replace(text, 'old', 'new')`: every occurrence",
        (_STRING, _STRING, _STRING),
        _STRING,
        _replaced,
    ),
    _text_function(
        "split", "`split(text, ',')`: the list of its parts", (_STRING, _STRING), cel.Type.List(_STRING), _split
    ),
    _text_function("join", "`join(parts, ',')`: one text of a list of texts", (_LIST, _STRING), _STRING, _joined),
    _text_function(
        "padleft", "`padleft(text, 8, '0')`: filled up on the left", (_STRING, _INT, _STRING), _STRING, _padded
    ),
    _text_function(
        "substring",
        "`substring(text, 0, 3)`: characters from the first place up to the second, counted from 0",
        (_STRING, _INT, _INT),
        _STRING,
        _substring,
    ),
    _function(
        "date",
        "`date(text, '%d.%m.%Y')`: the plain date, by strptime codes",
        *_nullable((_STRING, _STRING), _STRING, _day_of_text),
    ),
    _function(
        "instant",
        "`instant(text, '%d.%m.%Y %H:%M', 'Europe/Berlin')`: the moment of a local time in a zone",
        *_nullable((_STRING, _STRING, _STRING), _TIMESTAMP, _instant_of_text),
    ),
    _function(
        "day",
        "`day(instant, 'Europe/Berlin')`: the plain date of a moment in a zone",
        *_nullable((_TIMESTAMP, _STRING), _STRING, _day_in_zone),
    ),
    _function(
        "add_days",
        "`add_days(date, 3)`: so many calendar days later",
        *_nullable((_STRING, _INT), _STRING, _days_later),
    ),
    _function(
        "days_between",
        "`days_between(first, second)`: calendar days from the first date to the second",
        Overload(takes=(_STRING, _STRING), gives=_INT, call=_days_between),
    ),
    _function("default", "`default(value, instead)`: the value, or the other where it is null", *_default_overloads()),
    _maker("money", "`money(amount, 'EUR')`: the canonical object of an amount and its currency", "amount", "currency"),
    _maker("quantity", "`quantity(value, 'EA')`: the canonical object of a value and its unit", "value", "unit"),
)
"""Every function that a mapping can call. Master data functions join it as `Expressions(..., functions=...)`."""


def utc_text(moment: datetime) -> str:
    """A moment that CEL computed, as RFC 3339 in UTC: CEL keeps no offset."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
