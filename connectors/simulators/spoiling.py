"""How the planner spoils rows of its own file, and the exact list of what it spoiled.

A spoiled row was planned, and must end as one dead letter that names file, line, rule and cure; the rows around it go on.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Row: TypeAlias = Mapping[str, str]
_LINE_END: Final = "\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiler:
    """One way to spoil a row. `field` is a word that the complaint must hold, empty where the row as a whole is wrong."""

    kind: str
    field: str
    spoil: Callable[[Row], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRow:
    """One row as it went into the file: its first line (the header is line 1), and who spoiled it."""

    row: Row
    line: int
    spoiler: Spoiler | None


def _with(field: str, value: str) -> Callable[[Row], Sequence[str]]:
    return lambda row: list({**row, field: value}.values())


def _minus(field: str) -> Callable[[Row], Sequence[str]]:
    return lambda row: list({**row, field: f"-{row[field]}"}.values())


SPOILERS: Final = (
    Spoiler(kind="a letter in a number", field="qty", spoil=_with("qty", "1O")),
    Spoiler(kind="a unit that is none", field="unit", spoil=_with("uom", "FURLONG")),
    Spoiler(kind="a column too many", field="", spoil=lambda row: [*row.values(), "urgent"]),
    Spoiler(kind="columns missing", field="", spoil=lambda row: list(row.values())[:5]),
    Spoiler(kind="a day that does not exist", field="need_date", spoil=_with("need_date", "2011-02-31")),
    Spoiler(kind="a negative quantity", field="quantity", spoil=_minus("qty")),
    Spoiler(kind="a byte that is no text", field="", spoil=_with("reason", "d\udce9lai fournisseur")),
    Spoiler(kind="a required value left empty", field="sku", spoil=_with("sku", "")),
    Spoiler(kind="a date of another country", field="order_date", spoil=_with("order_date", "31.05.11")),
    Spoiler(kind="a number that only Python reads", field="qty", spoil=_with("qty", "1_000")),
)
CUT_SHORT: Final = Spoiler(kind="the file ends inside the row", field="", spoil=lambda row: list(row.values())[:4])


def choose(count: int, *, spoilers: Sequence[Spoiler], cut_short: bool, dice: random.Random) -> dict[int, Spoiler]:
    """Which of `count` rows are spoiled, by index; with `cut_short` the file's last row is one of them."""
    chosen = dict(zip(dice.sample(range(count - 1), len(spoilers)), spoilers, strict=True))
    return {**chosen, count - 1: CUT_SHORT} if cut_short else chosen


def write_csv(rows: Sequence[Row], spoiled: Mapping[int, Spoiler]) -> tuple[bytes, list[WrittenRow]]:
    """The file (RFC 4180, UTF-8 but for what is spoiled) and where each row stands in it."""
    lines = [_line(list(rows[0]))]
    written: list[WrittenRow] = []
    for index, row in enumerate(rows):
        spoiler = spoiled.get(index)
        written.append(WrittenRow(row=row, line=1 + sum(text.count("\n") for text in lines), spoiler=spoiler))
        lines.append(_line(spoiler.spoil(row) if spoiler else list(row.values())))
    text = "".join(lines)
    if spoiled.get(len(rows) - 1) is CUT_SHORT:
        text = text.removesuffix(_LINE_END)
    return text.encode("utf-8", "surrogateescape"), written


def _line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=_LINE_END).writerow(cells)
    return buffer.getvalue()
