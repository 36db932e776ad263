"""Output: the only writer of stdout. stdout is data, stderr is talk.

Nothing from outside reaches a terminal as it came: tables and CSV pass `visible()`, JSON and YAML are written in ASCII with
escapes. Without a terminal no escape byte is written. A reader that goes away (`| head`) ends the command quietly; a stdout that
takes nothing (closed, a full disk) is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TextIO

from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from pydantic import BaseModel

    from console.presenters import Column, Listing
    from state.model.errors import DistctlError


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    CSV = "csv"


_GAP: Final = "  "
_FORMULA_HEADS: Final = ("=", "+", "-", "@", "\t", "\r")
_BOLD, _PLAIN, _HOME = "\x1b[1m", "\x1b[0m", "\x1b[H\x1b[2J"


@dataclass(slots=True, kw_only=True)
class Output:
    """Where a command says what it found. `format` None: the command's own choice, a table for people."""

    format: Format | None = None
    is_plain: bool = False
    data: TextIO
    talk: TextIO
    _heading: tuple[str, ...] = field(default=(), init=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads stdout as it comes."""
        return self.data.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def is_for_people(self) -> bool:
        """Whether tables and sentences are wanted."""
        return self.format in {None, Format.TABLE}

    def say(self, text: str) -> None:
        """One line of talk on stderr."""
        from state.model.visible import visible

        with suppress(OSError):  # where nobody can be told, the exit code still tells
            self.talk.write("\n".join(visible(line) for line in text.splitlines()) + "\n")
            self.talk.flush()

    def rows(self, rows: Sequence[BaseModel], listing: Listing) -> None:
        """A list. An empty one is `[]`, or nothing at all with a sentence on stderr."""
        if self.is_for_people:
            self._table(rows, listing)
        else:
            self.plain_rows([row.model_dump(mode="json") for row in rows], type(rows[0]).model_fields if rows else ())

    def plain_rows(self, rows: Sequence[Mapping[str, Any]], fields: Iterable[str] = ()) -> None:
        """A list of records as data."""
        match self.format:
            case Format.JSONL:
                for row in rows:
                    self._write_json(row)
            case Format.CSV:
                self._csv(rows, list(fields) or (list(rows[0]) if rows else []))
            case Format.YAML:
                self._yaml(list(rows))
            case _:
                self._write_json(list(rows), indent=2)

    def record(self, record: BaseModel | Mapping[str, Any]) -> None:
        """One thing as data; people get it as YAML-like lines, `name: value`."""
        from collections.abc import Mapping as MappingType

        plain = record if isinstance(record, MappingType) else record.model_dump(mode="json")
        match self.format:
            case Format.JSONL:
                self._write_json(plain)
            case Format.JSON:
                self._write_json(plain, indent=2)
            case Format.CSV:
                self._csv([plain], list(plain))
            case Format.YAML:
                self._yaml(plain)
            case _:
                self.facts(plain)

    def facts(self, facts: Mapping[str, object]) -> None:
        """`name: value` lines for people, one fact a line; what is unknown is left out."""
        from console.presenters import words

        known = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
        width = max(map(len, known), default=0)
        for name, value in known.items():
            self.line(f"{name.replace('_', ' '):<{width}}  {words(value)}")

    def line(self, text: str) -> None:
        """One line for people on stdout."""
        from state.model.visible import visible

        self._write(visible(text) + "\n")

    def text(self, text: str) -> None:
        """Text that is ours and goes out as it stands: a shell script, a schema."""
        self._write(text)

    def clear(self) -> None:
        """Begin the screen again, on a terminal only."""
        if self.is_terminal:
            self._write(_HOME)

    def _table(self, rows: Sequence[BaseModel], listing: Listing) -> None:
        if not rows:
            self.say(listing.empty)
            return
        cells = [[_cell(column, row) for column in listing.columns] for row in rows]
        shown = [at for at in range(len(listing.columns)) if any(row[at] != "-" for row in cells)]
        columns = [listing.columns[at] for at in shown]
        cells = [[row[at] for at in shown] for row in cells]
        widths = [
            max(_width(text) for text in texts) for texts in zip([one.title for one in columns], *cells, strict=True)
        ]
        heading = self._fit(_row([one.title for one in columns], columns, widths))
        self._write(f"{_BOLD}{heading}{_PLAIN}\n" if self._has_style else f"{heading}\n")
        for row in cells:
            self._write(self._fit(_row(row, columns, widths)) + "\n")

    @property
    def _has_style(self) -> bool:
        return self.is_terminal and not self.is_plain and "NO_COLOR" not in os.environ

    def _fit(self, text: str) -> str:
        """On a terminal a row is one line; in a pipe it is whole."""
        if not self.is_terminal:
            return text
        room = os.get_terminal_size(self.data.fileno()).columns or 80
        return text if _width(text) <= room else _cut(text, room)

    def _write_json(self, value: object, *, indent: int | None = None) -> None:
        import json

        self._write(json.dumps(value, indent=indent) + "\n")

    def _yaml(self, value: object) -> None:
        from io import StringIO

        from ruamel.yaml import YAML

        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.allow_unicode = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel says None and means bool
        text = StringIO()
        yaml.dump(value, text)
        self._write(text.getvalue())

    def _csv(self, rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
        import csv
        from io import StringIO

        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if fields and tuple(fields) != self._heading:  # once, however often the same is looked at again
            writer.writerow(fields)
            self._heading = tuple(fields)
        writer.writerows([_csv_cell(row.get(field)) for field in fields] for row in rows)
        self._write(text.getvalue())

    def _write(self, text: str) -> None:
        try:
            self.data.write(text)
            self.data.flush()
        except BrokenPipeError:
            _send_nowhere(self.data)
            raise SystemExit(ExitCode.DONE) from None  # the reader has what it wanted
        except OSError as error:
            raise self._lost(error) from error

    def end(self) -> None:
        """Write what Python still holds back. Raises `DistctlError` where stdout takes nothing."""
        self._write("")

    def _lost(self, error: OSError) -> DistctlError:
        from state.model.errors import DistctlError

        _send_nowhere(self.data)
        return DistctlError(f"stdout cannot be written: {error.strerror}", code="stdout")


def standard_output(*, format: Format | None = None, is_plain: bool = False) -> Output:  # noqa: A002 - the option's own name
    """The process's own streams."""
    return Output(format=format, is_plain=is_plain, data=sys.stdout, talk=sys.stderr)


def _cell(column: Column, row: BaseModel) -> str:
    from console.presenters import words
    from state.model.visible import visible

    return visible(words(column.value(row)))


def _row(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = (
        " " * (width - _width(text)) + text if column.is_number else text + " " * (width - _width(text))
        for text, column, width in zip(texts, columns, widths, strict=True)
    )
    return _GAP.join(padded).rstrip()


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, room: int) -> str:
    text = text[:room]
    while _width(text) > room - 1:
        text = text[:-1]
    return text + "…"


def _csv_cell(value: object) -> str:
    import json

    from state.model.visible import visible

    match value:
        case None:
            return ""
        case str():
            # A spreadsheet would run it as a formula.
            return visible(f"'{value}" if value.startswith(_FORMULA_HEADS) else value)
        case _:
            return json.dumps(value)


def _send_nowhere(stream: TextIO) -> None:
    """What Python still holds back for a stream that takes nothing would fail once more at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
