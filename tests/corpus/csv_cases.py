"""CSV: encodings, line ends, quotes that do not close, rows that do not fit, headers, spreadsheet formulas, cut files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import get_args

from connectors.formats.records import JSONValue
from connectors.formats.settings import CsvSettings, Encoding
from tests.corpus.case import Case, cuts, positions, put

HEADER = "po;sku;qty;city"
ROWS = 12
SEMICOLON = CsvSettings(delimiter=";", required=("po", "qty"))


def csv_cases(rng: Random) -> Iterator[Case]:
    """All CSV cases of one seed."""
    for cases in (_readable, _encodings, _quotes, _rows, _headers, _values, _large, _cut):
        yield from cases(rng)


def _case(
    name: str,
    raw: bytes | str,
    good: int,
    *,
    settings: CsvSettings = SEMICOLON,
    bad: tuple[str, ...] = (),
    reject: str = "",
    fields: Sequence[Mapping[str, JSONValue]] = (),
) -> Case:
    data = raw.encode() if isinstance(raw, str) else raw
    return Case(
        family="csv", name=name, settings=settings, raw=data, good=good, bad=bad, reject=reject, fields=tuple(fields)
    )


def _rows_of(rng: Random, count: int = ROWS) -> list[str]:
    cities = ("LYON", "Łódź", "Zürich", "Évry", "Köln", "Oslo")
    return [f"PO-{rng.randrange(10_000)};SKU{at};{rng.randrange(1, 999)};{rng.choice(cities)}" for at in range(count)]


def _western(rng: Random) -> list[str]:
    return [row.replace("Łódź", "Genève") for row in _rows_of(rng)]


def _sheet(rows: list[str], end: str = "\n") -> str:
    return end.join((HEADER, *rows)) + end


def _readable(rng: Random) -> Iterator[Case]:
    for encoding in get_args(Encoding):
        for end_name, end in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")):
            rows = _western(rng)
            settings = SEMICOLON.model_copy(update={"encoding": encoding})
            fields = tuple(dict(zip(HEADER.split(";"), row.split(";"), strict=True)) for row in rows)
            yield _case(
                f"{encoding}-{end_name}", _sheet(rows, end).encode(encoding), ROWS, settings=settings, fields=fields
            )
    for encoding, mark in (("utf-8", "\ufeff"), ("utf-16-le", "\ufeff"), ("utf-16-be", "\ufeff")):
        settings = SEMICOLON.model_copy(update={"encoding": encoding})
        yield _case(f"mark-{encoding}", (mark + _sheet(_western(rng))).encode(encoding), ROWS, settings=settings)
        if encoding != "utf-8":
            any_order = SEMICOLON.model_copy(update={"encoding": "utf-16"})
            yield _case(
                f"utf-16-is-{encoding}", (mark + _sheet(_western(rng))).encode(encoding), ROWS, settings=any_order
            )
    for number in range(12):
        mixed = "".join(row + rng.choice(("\n", "\r\n", "\r", "\n\n", "\r\n\r\n")) for row in (HEADER, *_rows_of(rng)))
        yield _case(f"mixed-ends-{number}", mixed, ROWS)
    for mark in (",", ";", "\t", "|"):
        for quoted in (False, True):
            rows = [
                row.replace(";", f'"{mark}"') if quoted else row.replace(";", mark) for row in (HEADER, *_rows_of(rng))
            ]
            text = "\n".join(f'"{row}"' if quoted else row for row in rows)
            settings = CsvSettings(delimiter=mark, required=("po", "qty"))
            yield _case(f"delimiter-{ord(mark)}-quoted-{quoted}", text, ROWS, settings=settings)


def _encodings(rng: Random) -> Iterator[Case]:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        yield _case(f"undeclared-{encoding}", _sheet(_rows_of(rng)).encode(encoding), 0, reject="encoding")
    for declared in ("cp1252", "iso-8859-1", "utf-16", "utf-16-le"):
        settings = SEMICOLON.model_copy(update={"encoding": declared})
        yield _case(
            f"utf-8-declared-{declared}",
            _sheet(_rows_of(rng)).encode("utf-8-sig"),
            0,
            settings=settings,
            reject="encoding",
        )
    for encoding in ("cp1252", "iso-8859-1", "cp850", "mac-roman"):
        rows = [row.replace("Łódź", "Åbo") for row in _rows_of(rng)]
        wrong = sum(not row.isascii() for row in rows)
        yield _case(f"undeclared-{encoding}", _sheet(rows).encode(encoding), ROWS - wrong, bad=("encoding",) * wrong)
    wrong_bytes = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80")
    for data in wrong_bytes:
        for where, at in positions(ROWS):
            lines = [row.encode() for row in _rows_of(rng)]
            lines[at] += data
            raw = b"\n".join((HEADER.encode(), *lines))
            yield _case(f"wrong-byte-{data.hex()}-{where}", raw, ROWS - 1, bad=("encoding",))
    yield _case("wrong-byte-in-header", b"po;qty;ci\xe9\n1;2;3\n", 0, reject="encoding")
    half = ("\ufeff" + _sheet(_rows_of(rng))).encode("utf-16-le")[:-1]
    yield _case(
        "half-a-unit", half, ROWS - 1, settings=SEMICOLON.model_copy(update={"encoding": "utf-16"}), reject="encoding"
    )


def _quotes(rng: Random) -> Iterator[Case]:
    for count in (ROWS, 500, 10_001):
        for where, at in positions(count):
            rows = _rows_of(rng, count)
            rows[at] = rows[at].replace(";", ';"', 1)
            yield _case(f"unterminated-{where}-of-{count}", _sheet(rows), count - 1, bad=("csv-unterminated-quote",))
    for where, at in positions(ROWS):
        rows = ['"' + row.replace(";", '";"') + '"' for row in _rows_of(rng)]
        rows[at] = rows[at][:-1]
        yield _case(f"unterminated-among-enclosed-{where}", _sheet(rows), ROWS - 1, bad=("csv-unterminated-quote",))
        for name, row, code in (
            ("text-after", 'PO-1;"SKU"1;5;LYON', "csv-text-after-quote"),
            ("space-after", 'PO-1;"SKU" ;5;LYON', "csv-text-after-quote"),
            ("inches", 'PO-1;3/4" valve;5;LYON', "csv-bare-quote"),
            ("space-before", 'PO-1; "SKU";5;LYON', "csv-bare-quote"),
            ("odd-quotes", 'PO-1;"""SKU;5;LYON', "csv-unterminated-quote"),
        ):
            yield _case(f"{name}-{where}", _sheet(put(_rows_of(rng), at, row)), ROWS, bad=(code,))
        text = "".join(rng.choice(('""', "\n", "\r\n", ";", "x", "é")) for _ in range(60))
        yield _case(f"enclosed-lines-{where}", _sheet(put(_rows_of(rng), at, f'PO-1;"{text}";5;LYON')), ROWS + 1)
        inner = 'PO-1;"note\nPO-666;SKU;9;HACK\nend";5'
        yield _case(f"rows-inside-a-field-{where}", _sheet(put(_rows_of(rng), at, inner)), ROWS, bad=("csv-ragged",))
    keep = SEMICOLON.model_copy(update={"bare_quotes": "keep"})
    inches = [row.replace("SKU", '3/4" SKU') for row in _rows_of(rng)]
    yield _case("inches-kept", _sheet(inches), ROWS, settings=keep)
    every = [row.replace(";", ';"', 1) for row in _rows_of(rng)]
    yield _case("each-row-unterminated", _sheet(every), 0, bad=("csv-unterminated-quote",) * ROWS)


def _rows(rng: Random) -> Iterator[Case]:
    for number in range(24):
        where = rng.randrange(ROWS)
        rows = _rows_of(rng)
        parts = rows[where].split(";")
        wrong = parts[: rng.randrange(1, 4)] if number % 2 else parts + ["x"] * rng.randrange(1, 40)
        rows[where] = ";".join(wrong)
        yield _case(f"ragged-{number}-{len(wrong)}-at-{where}", _sheet(rows), ROWS - 1, bad=("csv-ragged",))
    for number in range(12):
        rows = _rows_of(rng)
        where, at = rng.randrange(ROWS), rng.randrange(4)
        rows[where] = rows[where][:at] + "\0" + rows[where][at:]
        yield _case(f"nul-{number}-at-{where}", _sheet(rows), ROWS - 1, bad=("csv-nul",))
    narrow = SEMICOLON.model_copy(update={"max_fields": 4})
    yield _case("too-many-enclosed", _sheet([";".join(['"x"'] * 9)]), 0, settings=narrow, bad=("csv-too-many-fields",))
    yield _case("only-header", HEADER, 0)
    yield _case("empty-fields", f"{HEADER}\n;;;\n", 1)


def _headers(rng: Random) -> Iterator[Case]:
    rows = "\n".join(_rows_of(rng))
    for name, raw in (
        ("none", rows),
        ("empty-file", ""),
        ("blank-lines", "\n\r\n\n"),
        ("mark-only", "\ufeff"),
        ("comma", HEADER.replace(";", ",") + "\n" + rows),
        ("near-miss", HEADER.replace("qty", "qyt") + "\n" + rows),
        ("upper-case", HEADER.upper() + "\n" + rows),
    ):
        yield _case(f"header-{name}", raw, 0, reject="csv-header-missing")
    for name in HEADER.split(";"):
        yield _case(f"header-{name}-twice", f"{HEADER};{name}\n{rows}", 0, reject="csv-header-duplicate")
        yield _case(f"header-{name}-twice-padded", f"{HEADER}; {name} \n{rows}", 0, reject="csv-header-duplicate")
        without = HEADER.replace(name, "", 1)
        yield _case(f"header-without-{name}", f"{without}\n{rows}", 0, reject="csv-header-empty")
    yield _case("header-delimiter-at-end", f"{HEADER};\n{rows}", 0, reject="csv-header-empty")
    yield _case("header-unterminated", f'"{HEADER}\n{rows}', 0, reject="csv-unterminated-quote")
    yield _case("header-nul", f"{HEADER}\0\n{rows}", 0, reject="csv-nul")
    yield _case("header-wide", ";".join(f"f{at}" for at in range(5_000)), 0, reject="csv-too-many-fields")
    named = SEMICOLON.model_copy(update={"columns": tuple(HEADER.split(";"))})
    yield _case("columns", rows, ROWS, settings=named)
    yield _case("columns-empty-file", "", 0, settings=named)


def _values(rng: Random) -> Iterator[Case]:
    """What only looks wrong stays text, letter for letter: the mapping judges it, never the reader."""
    for head in "=+-@\t＝":  # noqa: RUF001  the full-width form is the point
        for body in ("cmd|' /C calc'!A0", "1+1", "SUM(A1)", "HYPERLINK('http://x')"):
            yield _one_value(f"formula-{ord(head)}-{body[:3]}", head + body)
    texts = (
        "1_000",
        "١٢",
        "1.234,56",
        "1,234.56",
        "0x1F",
        "1e999",
        "NaN",
        "31/02/2026",
        "1900-02-29",
        "00042",
        " 5 ",
        "-0",
    )
    for text in (*texts, "9" * 5_000, "\u202eabc", "\u200b", "<script>", "' OR 1=1 --", "{{7*7}}", "[/x]", "\x1b[31m"):
        yield _one_value(f"value-{text[:12]!a}", text)


def _one_value(name: str, value: str) -> Case:
    fields = ({"po": "1", "sku": value, "qty": "5", "city": "x"},)
    return _case(name, f"{HEADER}\n1;{value};5;x\n", 1, fields=fields)


def _large(rng: Random) -> Iterator[Case]:
    rows = _rows_of(rng)
    for name, value in (
        ("bare", "x" * 1_000_000),
        ("enclosed", f'"{"y" * 1_000_000}"'),
        ("lines", f'"{("z" * 50_000 + chr(10)) * 20}"'),
    ):
        yield _case(f"megabyte-{name}", _sheet(put(rows, 3, f"PO-1;{value};5;x")), ROWS + 1)
    for name, value in (("bare", "x" * 4_300_000), ("enclosed", f'"{"y" * 4_300_000}"')):
        yield _case(f"too-large-{name}", _sheet(put(rows, 3, f"PO-1;{value};5;x")), ROWS, bad=("csv-record-too-large",))
    small = SEMICOLON.model_copy(update={"max_record_size": 64})
    for size in (100, 1_000, 300_000):
        for where, at in positions(ROWS):
            sheet = _sheet(put(rows, at, "x" * size))
            yield _case(f"longer-than-64-{size}-{where}", sheet, ROWS, settings=small, bad=("csv-record-too-large",))


def _cut(rng: Random) -> Iterator[Case]:
    """A cut row is bad while fields are missing; one cut inside its last field cannot be told from a whole one."""
    raw = _sheet([row.replace("Łódź", "LODZ") for row in _western(rng)]).encode("ascii", "replace")
    for at, short in cuts(raw, 3, start=len(HEADER)):
        rows = [row for row in short.decode().split("\n")[1:] if row]
        bad = sum(row.count(";") != 3 for row in rows)
        yield _case(f"cut-at-{at}", short, len(rows) - bad, bad=("csv-ragged",) * bad)
