"""CSV rows <-> records (RFC 4180), strict about quotes so that one missing quote spoils one row and not the file.

A row without a quote is split at once. A row with quotes goes through the tokenizer, which may look ahead over a bounded
number of lines; if the field is not closed properly by then, only the line that opened it is bad and reading goes on with the
line after it. A row that is well enclosed but has too few or too many fields is bad as a whole: its inner lines are text
somebody wrote into a field, and never become rows.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from itertools import chain

from connectors.formats.characters import Characters, lines
from connectors.formats.records import BadRecord, ByteSource, Flaw, FlawError, JSONValue, Record, show
from connectors.formats.settings import CsvSettings
from connectors.formats.writing import TextEncoder, plain_number, unwritable

_FORMULA_HEADS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  spreadsheets run the full-width forms too (OWASP)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")


def decode(source: ByteSource, settings: CsvSettings) -> Iterator[Record | BadRecord]:
    """Read rows one by one, in memory bounded by the largest record. Empty lines are skipped.

    Raises `RejectedError` for a wrong encoding and a header that is missing, empty, double or too wide.
    """
    characters = Characters(source, settings.encoding)
    rows = _Rows(characters, settings)
    names = _names(rows, settings)
    rows.names = names
    width = len(names)
    number = 0
    for text in rows:
        body = text.rstrip("\r\n")
        if not body:
            continue
        number += 1
        line = rows.line
        try:
            values = rows.fields(text, body)
            raw = characters.strict(rows.taken, line=line)
            if len(values) != width:
                raise FlawError(_ragged(values, names, line))
        except FlawError as error:
            yield error.flaw.spoils_record(number, characters.raw(rows.taken[: settings.max_record_size]))
        else:
            yield Record(number=number, line=line, fields=dict(zip(names, values, strict=True)), raw=raw)


def encode(records: Iterable[Mapping[str, JSONValue]], settings: CsvSettings) -> Iterator[bytes]:
    """Write rows under `settings.columns`, or under the first record's keys; a key that a record lacks is an empty field.

    A header line is written unless `columns` is set, as it is read. Raises `RejectedError` with record and field for a value
    that a row cannot hold.
    """
    remaining = iter(records)
    first = next(remaining, None)
    if first is None and settings.columns is None:
        return
    names = settings.columns or tuple(first or ())
    writer = _Writer(names, settings)
    encoder = TextEncoder(settings.encoding)
    if settings.columns is None:
        yield encoder.encode(writer.header())
    for number, record in enumerate(chain(() if first is None else (first,), remaining), start=1):
        yield encoder.encode(writer.row(record, number), number)


class _Rows:
    """The lines of a file with look-ahead. Iterating gives the first line of each row; `fields` may take more."""

    def __init__(self, characters: Characters, settings: CsvSettings) -> None:
        self.names: tuple[str, ...] = ()
        self.line = 0
        self.taken = ""
        self._source = lines(characters, limit=settings.max_record_size, newline="")
        self._pending: deque[str] = deque()
        self._settings = settings
        self._delimiter = settings.delimiter
        self._quote = settings.quote
        self._next_line = 1

    def __iter__(self) -> Iterator[str]:
        while (text := self._take()) is not None:
            self.line = self._next_line
            self._next_line += 1
            yield text

    def fields(self, text: str, body: str) -> list[str]:
        """The fields of the row that begins with `text`. Sets `taken` to all of the row without its line end."""
        self.taken = body
        if len(text) > self._settings.max_record_size:
            raise FlawError(self._too_large())
        if "\0" in body:
            raise FlawError(self._nul(body))
        if self._quote in body:
            return self._enclosed(text)
        return body.split(self._delimiter)

    def _take(self) -> str | None:
        return self._pending.popleft() if self._pending else next(self._source, None)

    def _enclosed(self, first: str) -> list[str]:
        ahead: list[str] = []
        try:
            values = self._tokens(first, ahead)
        except FlawError:
            self._pending.extendleft(reversed(ahead))
            raise
        self._next_line += len(ahead)
        self.taken = "".join((first, *ahead)).rstrip("\r\n") if ahead else self.taken
        return values

    def _tokens(self, text: str, ahead: list[str]) -> list[str]:
        values: list[str] = []
        body, at = text.rstrip("\r\n"), 0
        while True:
            if body.startswith(self._quote, at):
                value, text, at = self._closed(text, at, ahead, values)
                body = text.rstrip("\r\n")
            else:
                value, at = self._bare(body, at, values)
            values.append(value)
            if len(values) > self._settings.max_fields:
                raise FlawError(_too_wide(self.line, self._settings.max_fields))
            if at >= len(body):
                return values
            at += 1

    def _closed(self, text: str, start: int, ahead: list[str], values: list[str]) -> tuple[str, str, int]:
        """The enclosed field that opens at `start`: its value, the line it ends on and the place after its quote."""
        parts: list[str] = []
        begin = start + 1
        while (end := self._closing(text, begin)) < 0:
            parts.append(text[begin:])
            text, begin = self._following(ahead, start, values), 0
        parts.append(text[begin:end])
        after = end + 1
        if text[after : after + 1] not in ("", "\r", "\n", self._delimiter):
            if ahead:  # what opened on another line is closed by a quote of a later row, rather than wrongly closed
                until = f"properly: text follows the next quote, on line {self.line + len(ahead)}"
                raise FlawError(self._unterminated(start, values, until))
            raise FlawError(self._text_after_quote(text, after, values))
        return "".join(parts).replace(self._quote * 2, self._quote), text, after

    def _closing(self, text: str, begin: int) -> int:
        """Where the field closes on this line, -1 if it does not; a doubled quote is a character of the field."""
        at = text.find(self._quote, begin)
        while at >= 0 and text.startswith(self._quote, at + 1):
            at = text.find(self._quote, at + 2)
        return at

    def _following(self, ahead: list[str], start: int, values: list[str]) -> str:
        if len(ahead) + 1 >= self._settings.max_record_lines:
            raise FlawError(self._unterminated(start, values, f"for {self._settings.max_record_lines} lines"))
        text = self._take()
        if text is None:
            raise FlawError(self._unterminated(start, values, "before the file ends"))
        ahead.append(text)
        if len(self.taken) + sum(map(len, ahead)) > self._settings.max_record_size:
            raise FlawError(self._unterminated(start, values, f"for {self._settings.max_record_size} characters"))
        if "\0" in text:
            raise FlawError(self._unterminated(start, values, "before a NUL byte"))
        return text

    def _bare(self, body: str, at: int, values: list[str]) -> tuple[str, int]:
        end = body.find(self._delimiter, at)
        end = len(body) if end < 0 else end
        value = body[at:end]
        if self._quote in value and self._settings.bare_quotes == "refuse":
            raise FlawError(
                Flaw(
                    code="csv-bare-quote",
                    rule="a quote stands inside a field that is not enclosed in quotes",
                    hint="Have the sender enclose the field and double its quotes, or set bare_quotes: keep",
                    shown=show(value),
                    line=self.line,
                    column=at + value.index(self._quote) + 1,
                    field=self._name(values),
                )
            )
        return value, end

    def _name(self, values: list[str]) -> str:
        return self.names[len(values)] if len(values) < len(self.names) else f"#{len(values) + 1}"

    def _unterminated(self, start: int, values: list[str], until: str) -> Flaw:
        return Flaw(
            code="csv-unterminated-quote",
            rule=f"a quoted field is not closed {until}",
            hint="Close the quote at the end of the field, and double quotes that belong to the text; the next line was read on",
            shown=show(self.taken[start:]),
            line=self.line,
            column=start + 1,
            field=self._name(values),
        )

    def _text_after_quote(self, text: str, at: int, values: list[str]) -> Flaw:
        return Flaw(
            code="csv-text-after-quote",
            rule="text follows the closing quote of a field",
            hint="Put the delimiter after the quote, and double quotes that belong to the text",
            shown=show(text[max(at - 20, 0) : at + 20].rstrip("\r\n")),
            line=self.line,
            column=at + 1,
            field=self._name(values),
        )

    def _too_large(self) -> Flaw:
        return Flaw(
            code="csv-record-too-large",
            rule=f"the row is longer than {self._settings.max_record_size} characters",
            hint="Split the row, or raise max_record_size",
            shown=show(self.taken[:40]),
            line=self.line,
            column=self._settings.max_record_size + 1,
        )

    def _nul(self, body: str) -> Flaw:
        at = body.index("\0")
        return Flaw(
            code="csv-nul",
            rule="the row holds a NUL byte",
            hint="Have the sender write text without NUL; a file full of them is often UTF-16: declare the encoding",
            shown=show(body[max(at - 20, 0) : at + 20]),
            line=self.line,
            column=at + 1,
            field=self._name(body[:at].split(self._delimiter)[:-1]) if self._quote not in body[:at] else "",
        )


def _names(rows: _Rows, settings: CsvSettings) -> tuple[str, ...]:
    if settings.columns is not None:
        return settings.columns
    for text in rows:
        body = text.rstrip("\r\n")
        if body:
            return _header(rows, text, body, settings)
    raise Flaw(
        code="csv-header-missing",
        rule="the file is empty: it has no header line",
        hint="Have the sender write the header also when there are no rows, or set columns",
        line=1,
    ).spoils_file()


def _header(rows: _Rows, text: str, body: str, settings: CsvSettings) -> tuple[str, ...]:
    try:
        names = tuple(name.strip() for name in rows.fields(text, body))
    except FlawError as error:
        raise error.flaw.spoils_file() from None
    flaw = _header_flaw(names, body, rows.line, settings)
    if flaw is not None:
        raise flaw.spoils_file()
    return names


def _header_flaw(names: tuple[str, ...], body: str, line: int, settings: CsvSettings) -> Flaw | None:
    if len(names) > settings.max_fields:
        return _too_wide(line, settings.max_fields)
    if any("\ud800" <= char <= "\udfff" for name in names for char in name):
        return Flaw(
            code="encoding",
            rule=f"the header is not valid {settings.encoding}",
            hint="Declare the encoding that the sender writes, often cp1252",
            shown=show(body),
            line=line,
        )
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name:
            return Flaw(
                code="csv-header-empty",
                rule=f"field {position} of the header has no name",
                hint="Name it, remove a delimiter at the end of the line, or set columns",
                shown=show(body),
                line=line,
            )
        if first.setdefault(name, position) != position:
            return Flaw(
                code="csv-header-duplicate",
                rule=f"the header names field {position} like field {first[name]}",
                hint="Give each field a name of its own, or set columns",
                shown=show(name),
                line=line,
                field=show(name),
            )
    return _missing_names(names, body, line, settings)


def _missing_names(names: tuple[str, ...], body: str, line: int, settings: CsvSettings) -> Flaw | None:
    missing = [name for name in settings.required if name not in names]
    if not missing:
        return None
    other = next((mark for mark in (";", "\t", ",", "|") if mark != settings.delimiter and mark in body), None)
    near = get_close_matches(missing[0], names, n=1)
    if len(names) == 1 and other is not None:
        hint = f"The line is separated by another mark, set delimiter: {json.dumps(other)}"
    elif near:
        hint = f"The header has {show(near[0])!r}: correct one of the two names"
    else:
        seen = ", ".join(show(name) for name in names[:8])
        hint = f"The header names {seen}: correct one of the two, or set columns if there is no header line"
    return Flaw(
        code="csv-header-missing",
        rule=f"the header does not name {', '.join(missing)}",
        hint=hint,
        shown=show(body),
        line=line,
        field=missing[0],
    )


def _ragged(values: list[str], names: tuple[str, ...], line: int) -> Flaw:
    few = len(values) < len(names)
    return Flaw(
        code="csv-ragged",
        rule=f"the row has {len(values)} fields, the header {len(names)}",
        hint="Add the missing fields"
        if few
        else "Enclose a field that holds the delimiter in quotes, or remove the extra ones",
        shown=show(values[-1] if few else values[len(names)]),
        line=line,
        field=names[len(values)] if few else f"#{len(names) + 1}",
    )


def _too_wide(line: int, limit: int) -> Flaw:
    return Flaw(
        code="csv-too-many-fields",
        rule=f"the row has more than {limit} fields",
        hint="Check the delimiter and the quotes, or raise max_fields",
        line=line,
    )


class _Writer:
    """Values to the text of rows."""

    def __init__(self, names: tuple[str, ...], settings: CsvSettings) -> None:
        self._names = names
        self._known = frozenset(names)
        self._settings = settings
        # Spaces at either end, and what a reader takes for a byte order mark at the start of a file, are kept by quotes.
        self._must_enclose = re.compile(
            f"[{re.escape(settings.delimiter + settings.quote)}\r\n]|^[ \ufeff\ufffeÿþï]| $"
        )

    def header(self) -> str:
        return self._line([self._cell(name, 0, name) for name in self._names])

    def row(self, record: Mapping[str, JSONValue], number: int) -> str:
        for name in record:
            if name not in self._known:
                hint = "Add it to columns, or leave it out of the mapping"
                raise unwritable("csv-unknown-field", "the row has no such field", hint, number=number, field=name)
        return self._line([self._cell(record.get(name), number, name) for name in self._names])

    def _line(self, cells: list[str]) -> str:
        quote = self._settings.quote
        # A lone empty field would be an empty line, which readers skip.
        return (self._settings.delimiter.join(cells) or quote * 2) + self._settings.line_end

    def _cell(self, value: JSONValue, number: int, name: str) -> str:
        text = self._text(value, number, name)
        if isinstance(value, str):
            text = self._harmless(text, number, name)
        quote = self._settings.quote
        return f"{quote}{text.replace(quote, quote * 2)}{quote}" if self._must_enclose.search(text) else text

    def _text(self, value: JSONValue, number: int, name: str) -> str:
        if isinstance(value, str):
            if "\0" in value:
                raise unwritable("csv-nul", "the value holds a NUL character", "Remove it", number=number, field=name)
            return value
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        return self._number(value, number, name)

    def _number(self, value: JSONValue, number: int, name: str) -> str:
        hint = "Map it to one text or number"
        if not isinstance(value, int | Decimal):
            rule = f"a {type(value).__name__} does not fit a field"
            raise unwritable("csv-not-flat", rule, hint, number=number, field=name)
        try:
            return plain_number(value)
        except ValueError:
            raise unwritable("csv-number", "not a plain number", hint, number=number, field=name) from None

    def _harmless(self, text: str, number: int, name: str) -> str:
        if self._settings.formulas == "keep" or not text.startswith(_FORMULA_HEADS) or _NUMBER.fullmatch(text):
            return text
        if self._settings.formulas == "prefix":
            return f"'{text}"
        hint = "Change the value, or set formulas: prefix"
        rule = "a spreadsheet would run the value as a formula"
        raise unwritable("csv-formula", rule, hint, number=number, field=name, text=text)
