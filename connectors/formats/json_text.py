"""One JSON text -> one value, strictly (RFC 8259, I-JSON of RFC 7493 for names), fast when it is good and exact when it is not.

The standard library's scanner reads with hooks that refuse what it would let pass: a name twice, NaN, huge numbers, floats. It
cannot say where, so a refused text is read once more, slowly, by `find_flaw`, which knows line, column and field. A record in
which nothing needs such care is read by `plain_json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from connectors.formats.characters import offset_place
from connectors.formats.plain_json import read_plain
from connectors.formats.records import Flaw, FlawError, JSONValue, show
from connectors.formats.settings import JsonLinesSettings, JsonSettings

_LARGEST_INTEGER = 2**63 - 1
_SAFE_DIGITS = 18  # an integer of so many digits always fits 64 bits
_SPACE = re.compile(r"[ \t\n\r]*+")
STRING = re.compile(r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"')
# What a text that was cut short may end with, from where it is no longer a value.
UNFINISHED = re.compile(
    r'(?:"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+(?:\\(?:u[0-9a-fA-F]{0,3})?)?'
    r"|-|[.eE][+-]?|t|tr|tru|f|fa|fal|fals|n|nu|nul|)\Z"
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][+-]?[0-9]++)?")
_LITERAL = re.compile(r"true|false|null")
_NOT_FINITE = re.compile(r"-?(?:NaN|Infinity)")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN_AROUND = 20
_EXPONENT_LENGTH = 6  # sign and digits; beyond it no limit admits the number


class RefusedError(ValueError):
    """A hook refused the text; `find_flaw` says why and where."""


class JsonText:
    """Reads JSON texts under the limits of the settings."""

    def __init__(self, settings: JsonSettings | JsonLinesSettings) -> None:
        self._settings = settings
        self._needs_care = False
        self._scan = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=self._integer, parse_float=self._decimal, parse_constant=_refuse
        ).raw_decode

    def first(self, text: str, at: int) -> tuple[JSONValue, int]:
        """The value that begins at `at` and where it ends. Raises `RefusedError` for one that is wrong, cut or beyond a limit."""
        try:
            value, end = self._scan(text, at)
        except (ValueError, RecursionError) as error:
            raise RefusedError from error
        limit = self._settings.max_depth
        if text.count("{", at, end) + text.count("[", at, end) > limit or _SURROGATE_ESCAPE.search(text, at, end):
            _inspect(value, limit)
        return value, end

    def whole(self, text: str, *, line: int, column: int = 1) -> JSONValue:
        """The one value of `text`, which begins at that place. Raises `FlawError`."""
        try:
            value, end = self.first(text, space_end(text, 0))
        except RefusedError:
            raise FlawError(self.flaw(text, line=line, column=column)) from None
        if space_end(text, end) != len(text):
            raise FlawError(self.flaw(text, line=line, column=column))
        return value

    def record(self, text: str, *, line: int, column: int = 1) -> dict[str, JSONValue]:
        """The one object of `text`, which begins at that place. Raises `FlawError`."""
        if not self._needs_care:
            plain = read_plain(text, self._settings)
            if plain is not None:
                return plain
            self._needs_care = True  # what one record has, such as a price with a point, the next ones have too
        value = self.whole(text, line=line, column=column)
        if isinstance(value, dict):
            return value
        raise FlawError(
            Flaw(
                code="json-not-object",
                rule="the record is no object",
                hint="Have the sender write each record as {...}, or point at the array that holds the objects",
                shown=show(text),
                line=line,
                column=column,
            )
        )

    def flaw(self, text: str, *, line: int, column: int = 1) -> Flaw:
        """Why `text`, which begins at that place, was refused."""
        flaw = find_flaw(text, self._settings)
        below, beside = offset_place(text, flaw.column, line, column)
        return Flaw(
            code=flaw.code,
            rule=flaw.rule,
            hint=flaw.hint,
            shown=flaw.shown,
            field=flaw.field,
            line=below,
            column=beside,
        )

    def _object(self, pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
        members = dict(pairs)
        if len(members) != len(pairs) or len(pairs) > self._settings.max_keys:
            raise RefusedError
        return members

    def _integer(self, digits: str) -> int | Decimal:
        if len(digits) <= _SAFE_DIGITS:
            return int(digits)
        return self._large(digits)

    def _large(self, digits: str) -> int | Decimal:
        if not _fits(digits, self._settings.max_digits):
            raise RefusedError
        number = int(digits)
        return number if -_LARGEST_INTEGER - 1 <= number <= _LARGEST_INTEGER else Decimal(digits)

    def _decimal(self, digits: str) -> Decimal:
        if not _fits(digits, self._settings.max_digits):
            raise RefusedError
        return Decimal(digits)


def find_flaw(text: str, settings: JsonSettings | JsonLinesSettings) -> Flaw:
    """The first flaw of a refused text; its `column` is the offset in `text`, counted from 0."""
    try:
        _Checker(text, settings).check()
    except FlawError as error:
        return error.flaw
    return Flaw(code="json-syntax", rule="not a JSON value", hint=_SYNTAX_HINT, shown=show(text))


def space_end(text: str, at: int) -> int:
    """Where the white space that begins at `at` ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def is_complete_string(text: str) -> bool:
    """Whether a matched JSON string stands for text: none of its escapes is half of a surrogate pair."""
    return not _SURROGATE_ESCAPE.search(text) or not _has_surrogate(json.loads(text))


_SYNTAX_HINT = "Have the sender write it with a JSON library (RFC 8259)"


@dataclass(slots=True)
class _Open:
    """An object or array that is not closed yet, and where in it the checker is."""

    closer: str
    begun: bool = False
    names: set[str] = field(default_factory=set)
    name: str = ""
    index: int = 0


class _Checker:
    """A strict reader that builds nothing and knows where it is; no recursion."""

    def __init__(self, text: str, settings: JsonSettings | JsonLinesSettings) -> None:
        self._text = text
        self._settings = settings
        self._at = 0
        self._open: list[_Open] = []

    def check(self) -> None:
        """Raise `FlawError` at the first flaw."""
        self._value()
        while self._open:
            inner = self._open[-1]
            mark = self._next()
            if mark == inner.closer:
                self._at += 1
                self._open.pop()
            elif not inner.begun:
                inner.begun = True
                self._member(inner)
            elif mark == ",":
                self._at += 1
                inner.index += 1
                self._member(inner)
            else:
                raise self._wrong(f"expected a comma or {inner.closer}")
        if self._next():
            raise self._wrong("text follows the value")

    def _next(self) -> str:
        self._at = space_end(self._text, self._at)
        return self._text[self._at : self._at + 1]

    def _value(self) -> None:
        mark = self._next()
        if mark in ("{", "["):
            self._begin("}" if mark == "{" else "]")
        elif mark == '"':
            self._string()
        elif found := _LITERAL.match(self._text, self._at):
            self._at = found.end()
        elif _NOT_FINITE.match(self._text, self._at):
            raise self._flaw("json-number", "NaN and Infinity are no JSON numbers", "Send null, or leave the field out")
        elif mark == "-" or mark.isdigit():
            self._number()
        else:
            raise self._wrong("expected a value")

    def _begin(self, closer: str) -> None:
        """Only opens: the loop in `check` reads the members, so that depth costs no recursion."""
        self._open.append(_Open(closer))
        if len(self._open) > self._settings.max_depth:
            rule = f"nested deeper than {self._settings.max_depth} levels"
            raise self._flaw("json-depth", rule, "Flatten the record, or raise max_depth")
        self._at += 1

    def _member(self, inner: _Open) -> None:
        if inner.closer == "}":
            self._name(inner)
        self._value()

    def _name(self, inner: _Open) -> None:
        if self._next() != '"':
            raise self._wrong("expected a name in quotes")
        start = self._at
        name = json.loads(self._string())
        inner.name = name
        if name in inner.names:
            self._at = start
            raise self._flaw("json-duplicate-key", "the object names this field twice", "Send each name once")
        inner.names.add(name)
        if len(inner.names) > self._settings.max_keys:
            rule = f"the object has more than {self._settings.max_keys} keys"
            raise self._flaw("json-too-many-keys", rule, "Send a list, or raise max_keys")
        if self._next() != ":":
            raise self._wrong("expected a colon")
        self._at += 1

    def _string(self) -> str:
        found = STRING.match(self._text, self._at)
        if found is None:
            raise self._wrong("the text is not closed, or holds a control character or a wrong escape")
        if not is_complete_string(found[0]):
            rule = "half of a surrogate pair is no character"
            raise self._flaw("json-surrogate", rule, "Have the sender write UTF-8, or both halves of the pair")
        self._at = found.end()
        return found[0]

    def _number(self) -> None:
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            raise self._wrong("not a number")
        if not _fits(found[0], self._settings.max_digits):
            rule = f"the number has more than {self._settings.max_digits} digits"
            raise self._flaw("json-number-range", rule, "Correct the value; an identifier is sent as text, in quotes")
        self._at = found.end()

    def _wrong(self, expected: str) -> FlawError:
        if UNFINISHED.match(self._text, self._at):
            return self._flaw(
                "json-truncated", "the text ends before the value is complete", "Have it sent again, whole"
            )
        return self._flaw("json-syntax", expected, _SYNTAX_HINT)

    def _flaw(self, code: str, rule: str, hint: str) -> FlawError:
        shown = show(self._text[self._at : self._at + _SHOWN_AROUND])
        return FlawError(Flaw(code=code, rule=rule, hint=hint, shown=shown, column=self._at, field=self._path()))

    def _path(self) -> str:
        steps = [f"[{inner.index}]" if inner.closer == "]" else f".{inner.name}" for inner in self._open]
        return show("".join(steps).lstrip("."))


def _fits(digits: str, limit: int) -> bool:
    """Whether the number, written out without exponent, has at most `limit` digits on either side of its point."""
    mantissa, _, exponent = digits.replace("E", "e").partition("e")
    if not exponent and len(digits) <= limit:
        return True
    if len(exponent) > _EXPONENT_LENGTH:
        return False
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    shift = int(exponent or "0")
    return len(whole) + shift <= limit and len(fraction) - shift <= limit and len(whole) + len(fraction) <= 2 * limit


def _inspect(value: JSONValue, limit: int) -> None:
    """Refuse a value nested deeper than `limit`, and text with half a surrogate pair."""
    level: list[JSONValue] = [value]
    for _ in range(limit):
        if any(isinstance(item, str) and _has_surrogate(item) for item in level):
            raise RefusedError
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    if any(isinstance(item, dict | list) for item in level):
        raise RefusedError
    if any(isinstance(item, str) and _has_surrogate(item) for item in level):
        raise RefusedError


def _inside(value: JSONValue) -> Iterator[JSONValue]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _refuse(name: str) -> JSONValue:
    raise RefusedError(name)
