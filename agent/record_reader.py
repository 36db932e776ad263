"""From raw fields to declared ones: texts of a file become exact numbers, dates and instants, or an error that names them.

A reader looks at declared fields only; further columns of the data are left alone. Nothing is guessed: digits are ASCII, marks
are the declared ones, a date is one of the calendar, an instant has its offset. What it gives is fit for JSON, but decimals
are `Decimal`: dates and instants are ISO 8601 texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from cel_expr_python import cel

from connectors.formats.numbers import parse_decimal
from state.model.errors import ConfigError, RejectedError
from state.model.estate import FieldSpec, FieldType
from state.model.scalars import exact, instant, plain_date
from state.model.visible import shown

Convert: TypeAlias = Callable[[Any], Any]

PATTERN_TEXT_LIMIT: Final = 10_000
TOLD_LIMIT: Final = 5
"""Mistakes that one refusal spells out; it says how many more there are."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_INT64: Final = 2**63
_FLAGS: Final = {
    **dict.fromkeys(("true", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "no", "n", "0"), False),
}


class RecordReader:
    """Reads raw records as the fields of one source declare them. Raises `ConfigError` for a pattern that is none."""

    def __init__(self, specs: Mapping[str, FieldSpec]) -> None:
        self._fields = tuple((name, spec.required, _converter(name, spec)) for name, spec in specs.items())

    def read(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Every declared field, null where an optional one is absent.

        Raises `RejectedError` with the first wrong field as `place` and all of them in the message.
        """
        values: dict[str, Any] = {}
        for name, is_required, convert in self._fields:
            value = raw.get(name)
            if value is None or value == "" or (isinstance(value, str) and not value.strip()):
                if is_required:
                    raise self._all_wrong(raw)
                values[name] = None
                continue
            try:
                values[name] = convert(value)
            except RejectedError:
                raise self._all_wrong(raw) from None
        return values

    def read_what_is_right(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Every declared field, null where it is wrong or absent: enough to say where a bad row belongs."""
        return {
            name: None if _problem(name, raw, is_required=True, convert=convert) else convert(raw[name])
            for name, _, convert in self._fields
        }

    def _all_wrong(self, raw: Mapping[str, Any]) -> RejectedError:
        """One error for everything that is wrong, so that a record is repaired once."""
        problems = [
            problem
            for name, is_required, convert in self._fields
            if (problem := _problem(name, raw, is_required=is_required, convert=convert)) is not None
        ]
        return together(problems[:TOLD_LIMIT], count=len(problems))


def together(errors: Sequence[RejectedError], *, count: int) -> RejectedError:
    """One error for `count` mistakes of which the first are known: it tells those, and has place and cure of the first."""
    first = errors[0]
    told = "; ".join(error.message for error in errors)
    return RejectedError(
        f"{told}; and {count - len(errors)} more" if count > len(errors) else told,
        place=first.place,
        rule=first.rule,
        shown=first.shown,
        hint=first.hint,
        code=first.code,
    )


def _problem(name: str, raw: Mapping[str, Any], *, is_required: bool, convert: Convert) -> RejectedError | None:
    value = raw.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        if not is_required:
            return None
        if name in raw:
            return _wrong(
                name,
                value,
                "is required and empty",
                "fill it at the source, or declare required: false",
                "empty",
                is_told=False,
            )
        near = f"the record has {', '.join(map(shown, list(raw)[:8]))}" if raw else "the record is empty"
        return _wrong(name, None, "is required and missing", near, "missing-field")
    try:
        convert(value)
    except RejectedError as error:
        return error
    return None


def _wrong(name: str, value: object, rule: str, hint: str, code: str, *, is_told: bool = True) -> RejectedError:
    """`is_told` puts the value into the message."""
    seen = "" if value is None else shown(value)
    message = f"field {name} {rule}" + (f", not {seen}" if seen and is_told else "")
    return RejectedError(message, place=f"field {name}", rule=rule, shown=seen, hint=hint, code=code)


def _converter(name: str, spec: FieldSpec) -> Convert:
    convert = _CONVERTERS[spec.type](name, spec)
    return convert if spec.pattern is None else _matching(name, spec.pattern, convert)


def _matching(name: str, pattern: str, convert: Convert) -> Convert:
    """RE2, so that no text can make a pattern run for ever; the whole text must match."""
    program = cel.NewEnv(variables={"text": cel.Type.STRING}).compile(f"text.matches({_quoted(f'^(?:{pattern})$')})")
    probe = program.eval(data={"text": ""})
    if probe.type() == cel.Type.ERROR:
        reason = str(probe.plain_value()).partition(": ")[2]
        raise ConfigError(f"field {name}: {reason}", hint="patterns are RE2 regular expressions", code="bad-pattern")

    def check(value: Any) -> Any:
        if not isinstance(value, str) or len(value) > PATTERN_TEXT_LIMIT or not _has_match(program, value):
            raise _wrong(name, value, f"must match {pattern}", "correct the value at the source", "pattern")
        return convert(value)

    return check


def _has_match(program: cel.Expression, value: str) -> bool:
    if "\x00" in value:
        return False
    try:
        return program.eval(data={"text": value}).plain_value() is True
    except RuntimeError:  # half a character: CEL takes only whole ones
        return False


def _quoted(text: str) -> str:
    escaped = "".join(f"\\U{ord(one):08x}" if one in "\\'\"" or not one.isprintable() else one for one in text)
    return f"'{escaped}'"


def _string(name: str, _: FieldSpec) -> Convert:
    def convert(value: Any) -> str:
        if isinstance(value, str):
            return value
        raise _wrong(name, value, "must be a text", "declare its type, or have the sender quote it", "not-a-text")

    return convert


def _integer(name: str, _: FieldSpec) -> Convert:
    hint = "give ASCII digits without marks, or declare it a decimal"

    def convert(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
            return value
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip(" ")):
            return int(value)
        raise _wrong(name, value, "must be a whole number", hint, "not-an-integer")

    return convert


def _decimal(name: str, spec: FieldSpec) -> Convert:
    written = f"with {spec.decimal_mark} before its fraction" + (
        f" and {spec.grouping!r} between groups of three" if spec.grouping else " and no grouping"
    )
    rule = f"must be a decimal {written}"
    hint = "correct the value, or declare decimal_mark and grouping as the sender writes them"

    def convert(value: Any) -> Decimal:
        try:
            if isinstance(value, str):
                return exact(parse_decimal(value, decimal_mark=spec.decimal_mark, grouping=spec.grouping))
            return exact(value)
        except RejectedError:
            raise _wrong(name, value, rule, hint, "not-a-decimal") from None

    return convert


def _boolean(name: str, _: FieldSpec) -> Convert:
    hint = "correct the value, or declare it a string and compare it in the mapping: record.x == 'J'"

    def convert(value: Any) -> bool:
        flag = value if isinstance(value, bool) else _FLAGS.get(str(value).strip(" ").lower())
        if flag is None or isinstance(value, Decimal):
            raise _wrong(name, value, "must be true, false, yes, no, y, n, 1 or 0", hint, "not-a-boolean")
        return flag

    return convert


def _date(name: str, spec: FieldSpec) -> Convert:
    form = spec.date_format
    rule = f"must be a date of the calendar, written {form or 'YYYY-MM-DD'}"
    hint = "correct the value, or declare date_format as the sender writes it"

    def convert(value: Any) -> str:
        try:
            text = value.strip(" ")
            return plain_date(_read(text, form).date() if form else text).isoformat()
        except (RejectedError, ValueError, AttributeError):
            raise _wrong(name, value, rule, hint, "not-a-date") from None

    return convert


def _instant(name: str, spec: FieldSpec) -> Convert:
    form = spec.date_format
    rule = f"must be a time with its offset, written {form or '2026-03-02T14:30:00+01:00'}"
    hint = "have the sender add the offset, or declare it a string and map instant(text, format, zone)"

    def convert(value: Any) -> str:
        try:
            text = value.strip(" ")
            return instant(_read(text, form) if form else text).isoformat()
        except (RejectedError, ValueError, AttributeError):
            raise _wrong(name, value, rule, hint, "not-an-instant") from None

    return convert


def _read(text: str, form: str) -> datetime:
    if not text.isascii():
        raise ValueError("digits are ASCII")
    return datetime.strptime(text, form)  # noqa: DTZ007  a plain date has no zone, and an instant is checked for its offset


def _object(name: str, _: FieldSpec) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        raise _wrong(name, value, "must be an object", "compare the record with the declared fields", "not-an-object")

    return convert


def _list(name: str, _: FieldSpec) -> Convert:
    def convert(value: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        raise _wrong(name, value, "must be a list", "compare the record with the declared fields", "not-a-list")

    return convert


_CONVERTERS: Final[Mapping[FieldType, Callable[[str, FieldSpec], Convert]]] = {
    FieldType.STRING: _string,
    FieldType.INTEGER: _integer,
    FieldType.DECIMAL: _decimal,
    FieldType.BOOLEAN: _boolean,
    FieldType.DATE: _date,
    FieldType.INSTANT: _instant,
    FieldType.OBJECT: _object,
    FieldType.LIST: _list,
}
