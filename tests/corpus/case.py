"""One file of the bad-input corpus and the one line that says what must become of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from connectors.formats.records import JSONValue
from connectors.formats.settings import FormatSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`good` records are read, `bad` are set aside with these codes in this order, then the file ends or is refused."""

    family: str
    name: str
    settings: FormatSettings
    raw: bytes
    good: int
    bad: tuple[str, ...] = ()
    reject: str = ""
    fields: tuple[Mapping[str, JSONValue], ...] = ()

    @property
    def expectation(self) -> str:
        """`12 good, 1 bad (csv-ragged), refused (encoding)`."""
        bad = f", {len(self.bad)} bad ({', '.join(sorted(set(self.bad)))})" if self.bad else ""
        return f"{self.good} good{bad}{f', refused ({self.reject})' if self.reject else ''}"


def positions(count: int) -> tuple[tuple[str, int], ...]:
    """First, middle and last of `count` records."""
    return (("first", 0), ("middle", count // 2), ("last", count - 1))


def put(items: Sequence[str], at: int, item: str) -> list[str]:
    """`items` with `item` in front of number `at`."""
    return [*items[:at], item, *items[at:]]


def cuts(raw: bytes, every: int, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """`raw` cut short at every n-th byte."""
    for at in range(start, len(raw), every):
        yield at, raw[:at]
