"""What a file is read into: records that can be read, and records that cannot, each with its place and its bytes.

A codec never stops a file for one record. It yields a `BadRecord` and goes on; only a file that is bad as a whole (wrong
encoding, cut short, a DTD) ends in a `RejectedError`, after the records before it were yielded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from state.model.errors import RejectedError
from state.model.visible import visible

JSONValue: TypeAlias = str | int | Decimal | bool | list["JSONValue"] | dict[str, "JSONValue"] | None
"""What a field holds. Never a float: a number that is not a 64-bit integer is a `Decimal`, digit for digit."""

_SHOWN_LENGTH = 60
_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is no text in the declared encoding, as `Characters` hands it on


class ByteSource(Protocol):
    """The part of a binary stream that codecs use."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One readable record. `number` and `line` count from 1; `raw` is its bytes in the file without the line end."""

    number: int
    line: int
    fields: dict[str, JSONValue]
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """One record that cannot be read. Line and column count from 1, 0 is unknown; `raw` is cut at the record limit.

    `rule` is what was broken, `shown` the offending text made safe, `hint` the cure, `code` a stable word for grouping.
    """

    number: int
    line: int
    column: int
    field: str
    rule: str
    shown: str
    hint: str
    code: str
    raw: bytes

    @property
    def place(self) -> str:
        """`line 14, column 3, field qty`, as far as known."""
        return place(self.line, self.column, self.field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What is wrong and where, before it is known whether it spoils one record or the file."""

    code: str
    rule: str
    hint: str
    shown: str = ""
    line: int = 0
    column: int = 0
    field: str = ""

    def spoils_record(self, number: int, raw: bytes) -> BadRecord:
        """The flaw as one bad record; the file goes on."""
        return BadRecord(
            number=number,
            line=self.line,
            column=self.column,
            field=show(self.field),
            rule=self.rule,
            shown=self.shown,
            hint=self.hint,
            code=self.code,
            raw=raw,
        )

    def spoils_file(self) -> RejectedError:
        """The flaw as the end of the file."""
        where = place(self.line, self.column, show(self.field))
        return RejectedError(
            f"{where}: {self.rule}" if where else self.rule,
            place=where,
            rule=self.rule,
            shown=self.shown,
            hint=self.hint,
            code=self.code,
        )


class FlawError(Exception):
    """Carries a flaw out of a parser; never leaves this package."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.rule)
        self.flaw = flaw


def place(line: int, column: int = 0, field: str = "") -> str:
    """`line 14, column 3, field qty`, as far as known."""
    parts = ((line, f"line {line}"), (column, f"column {column}"), (field, f"field {field}"))
    return ", ".join(text for known, text in parts if known)


def show(text: str) -> str:
    """The text on one short line: what cannot be seen (controls, bidi, zero width, surrogates) becomes an escape."""
    seen = visible(_BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text[:_SHOWN_LENGTH]))
    return seen if len(text) <= _SHOWN_LENGTH else f"{seen}... ({len(text)} characters)"
