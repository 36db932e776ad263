"""What is written reads back the same, what is read stays exact, and memory does not grow with the file."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.formats.codec import decode, encode
from connectors.formats.json_text import find_flaw
from connectors.formats.records import BadRecord, JSONValue, Record
from connectors.formats.settings import CsvSettings, FormatSettings, JsonLinesSettings, JsonSettings, XmlSettings
from state.model.errors import RejectedError

ALL: tuple[FormatSettings, ...] = (
    CsvSettings(),
    CsvSettings(delimiter=";", columns=("a", "b"), bare_quotes="keep", max_record_size=64, max_record_lines=2),
    CsvSettings(encoding="utf-16"),
    JsonSettings(),
    JsonSettings(pointer="/a/b", max_record_size=64),
    JsonLinesSettings(encoding="cp1252"),
    XmlSettings(record="a/b", lists=("c",)),
    XmlSettings(record="a", max_record_size=64, max_depth=2),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
WORD = st.text("abcxyz_-.", min_size=1).map(lambda text: f"n{text}")
NUMBER = st.integers(-(2**70), 2**70) | st.decimals(-(10**9), 10**9, places=4).map(lambda number: number + 0)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
XML_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF) | st.sampled_from("\t\n\r😀"))
XML_VALUE = st.recursive(
    XML_TEXT,
    lambda inner: (
        st.dictionaries(WORD, inner | st.lists(inner, min_size=2, max_size=3), min_size=1, max_size=3)
        | st.dictionaries(WORD.map(lambda name: f"@{name}"), XML_TEXT, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
FRAGMENTS = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"',
            "\\",
            "\\u",
            "d800",
            "0",
            "1.",
            "1e9",
            "-1",
            "true",
            "nul",
            "NaN",
            '{"a":1}',
            "[1,2]",
        ),
        *("a;b", "a,b", "\n", "\r", ";", "'", "<a>", "<b>", "</b>", "</a>", "<b/>", "&amp;", "&x;", " "),
    ]
)


def read(raw: bytes, chosen: FormatSettings) -> list[Record | BadRecord]:
    return list(decode(io.BytesIO(raw), chosen))


def outcome(raw: bytes, chosen: FormatSettings) -> tuple[list[Record | BadRecord], RejectedError | None]:
    records: list[Record | BadRecord] = []
    try:
        records.extend(decode(io.BytesIO(raw), chosen))
    except RejectedError as error:
        return records, error
    return records, None


def fields(raw: bytes, chosen: FormatSettings) -> list[dict[str, JSONValue]]:
    records = read(raw, chosen)
    assert [record for record in records if isinstance(record, BadRecord)] == []
    return [record.fields for record in records if isinstance(record, Record)]


def written(records: Sequence[Mapping[str, JSONValue]], chosen: FormatSettings) -> bytes:
    return b"".join(encode(records, chosen))


@given(
    st.lists(TEXT.map(str.strip).filter(bool), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=4)
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(['"', "'"]),
    st.sampled_from(["utf-8", "utf-16", "utf-16-be"]),
)
def test_csv_reads_back_what_was_written(rows: list[dict[str, str]], delimiter: str, quote: str, encoding: str) -> None:
    chosen = CsvSettings.model_validate(
        {"delimiter": delimiter, "quote": quote, "encoding": encoding, "formulas": "keep", "max_record_lines": 1_000}
    )
    assert fields(written(rows, chosen), chosen) == rows


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4), st.sampled_from(["", "/data/a~1b"]))
def test_json_reads_back_what_was_written(records: list[dict[str, JSONValue]], pointer: str) -> None:
    for chosen in (JsonSettings(pointer=pointer), JsonLinesSettings(), JsonLinesSettings(encoding="utf-16")):
        assert fields(written(records, chosen), chosen) == records


@given(
    st.lists(st.dictionaries(WORD, XML_VALUE, min_size=1, max_size=4), max_size=4),
    st.sampled_from(["utf-8", "utf-16", "utf-16-le"]),
)
def test_xml_reads_back_what_was_written(records: list[dict[str, JSONValue]], encoding: str) -> None:
    chosen = XmlSettings.model_validate({"record": "orders/order", "encoding": encoding})
    assert fields(written(records, chosen), chosen) == records


@given(st.binary(max_size=300) | st.lists(FRAGMENTS, max_size=40).map(lambda parts: " ".join(parts).encode()))
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused_and_nothing_else(raw: bytes) -> None:
    for chosen in ALL:
        records, refused = outcome(raw, chosen)
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert refused is None or (refused.rule and refused.hint)


@given(st.lists(FRAGMENTS.filter(lambda text: text != "\n"), max_size=30).map("".join))
@settings(max_examples=500)
def test_the_fast_json_reader_and_the_exact_one_agree(text: str) -> None:
    limits = JsonLinesSettings(max_depth=3, max_keys=3)
    (record, *others) = read(b'{"v":' + text.encode() + b"}", limits)
    flaw = find_flaw(f'{{"v":{text}}}', limits)
    assert others == []
    assert isinstance(record, BadRecord) == (flaw.rule != "not a JSON value")


def test_numbers_stay_exact_and_are_never_floats() -> None:
    raw = b'[{"m": 0.10, "i": 7, "b": 12345678901234567890, "e": 1.50e2}]'
    (record,) = fields(raw, JsonSettings())
    assert repr(record) == "{'m': Decimal('0.10'), 'i': 7, 'b': Decimal('12345678901234567890'), 'e': Decimal('150')}"
    assert written([record], JsonLinesSettings()) == b'{"m":0.10,"i":7,"b":12345678901234567890,"e":150}\n'


@pytest.mark.parametrize("value", ["=1+1", "+A1", "-cmd", "@SUM(A1)", "\tx", "\rx", "\nx", "＝1"])  # noqa: RUF001
def test_text_that_a_spreadsheet_would_run_is_written_harmless_or_refused(value: str) -> None:
    (row,) = fields(written([{"a": value}], CsvSettings()), CsvSettings())
    assert row == {"a": f"'{value}"}
    with pytest.raises(RejectedError, match="record 1: a spreadsheet would run") as caught:
        written([{"a": value}], CsvSettings(formulas="refuse"))
    assert (caught.value.code, caught.value.place) == ("csv-formula", "field a")
    assert fields(written([{"a": value}], CsvSettings(formulas="keep")), CsvSettings()) == [{"a": value}]


def test_negative_numbers_are_no_formulas() -> None:
    row: dict[str, JSONValue] = {"a": -5, "b": Decimal("-1.50"), "c": "-7", "d": "+1,5", "e": None, "f": True}
    assert written([row], CsvSettings(delimiter=";")) == b"a;b;c;d;e;f\r\n-5;-1.50;-7;+1,5;;true\r\n"


@pytest.mark.parametrize(
    ("record", "chosen", "code"),
    [
        ({"a": ["x"]}, CsvSettings(), "csv-not-flat"),
        ({"a": "x\0"}, CsvSettings(), "csv-nul"),
        ({"b": "x"}, CsvSettings(columns=("a",)), "csv-unknown-field"),
        ({"a": Decimal("NaN")}, CsvSettings(), "csv-number"),
        ({"a": "Łódź"}, CsvSettings(encoding="cp1252"), "encoding"),
        ({"a": "\ud800"}, JsonSettings(), "encoding"),
        ({"a": Decimal("Infinity")}, JsonSettings(), "json-number"),
        ({"a": Decimal("1E+999999")}, JsonLinesSettings(), "json-number"),
        ({"a": 0.5}, JsonLinesSettings(), "json-type"),
        ({"a": {"b": {"c": 1}}}, JsonLinesSettings(max_depth=2), "json-depth"),
        ({"a b": "x"}, XmlSettings(record="o/r"), "xml-name"),
        ({"@xmlns": "x"}, XmlSettings(record="o/r"), "xml-name"),
        ({"a": "\x01"}, XmlSettings(record="o/r"), "xml-character"),
        ({"a": [["x"]]}, XmlSettings(record="o/r"), "xml-type"),
        ({"a": {"b": {"c": "1"}}}, XmlSettings(record="o/r", max_depth=2), "xml-depth"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_its_field(
    record: dict[str, JSONValue], chosen: FormatSettings, code: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        written([record], chosen)
    assert (caught.value.code, "record 1" in caught.value.rule, bool(caught.value.hint)) == (code, True, True)


def test_a_bad_record_says_where_it_is_to_the_column() -> None:
    sheet = read(b'po,qty\nPO-1,5\nPO-2,"5\nPO-3,6\nPO-4\n', CsvSettings())
    assert [bad.place for bad in sheet if isinstance(bad, BadRecord)] == [
        "line 3, column 6, field qty",
        "line 5, field qty",
    ]
    array = read(b'[{"a": 1},\n {"lines": [{"q": 1}, {"q": NaN}]}]', JsonSettings())
    assert [bad.place for bad in array if isinstance(bad, BadRecord)] == ["line 2, column 29, field lines[1].q"]
    document = read(b"<o>\n <r><a><b/></a></r>\n</o>", XmlSettings(record="o/r", max_depth=2))
    assert [bad.place for bad in document if isinstance(bad, BadRecord)] == ["line 2, column 8, field b"]


def test_an_enclosed_field_may_span_the_lines_allowed_and_not_one_more() -> None:
    chosen = CsvSettings(max_record_lines=5)
    assert fields(b'a,b\n1,"x\nx\nx\nx\nx"\n', chosen) == [{"a": "1", "b": "x\nx\nx\nx\nx"}]
    unclosed, *_, last = read(b'a,b\n1,"x\nx\nx\nx\nx\nx"\n2,y\n', chosen)
    assert isinstance(unclosed, BadRecord)
    assert (unclosed.place, unclosed.rule) == ("line 2, column 3, field b", "a quoted field is not closed for 5 lines")
    assert isinstance(last, Record)


def test_a_refused_file_says_where_and_gives_the_records_before_it() -> None:
    records = decode(io.BytesIO(b'[{"a": 1},\n {"a": 2'), JsonSettings())
    assert isinstance(next(records), Record)
    with pytest.raises(RejectedError) as caught:
        next(records)
    assert (caught.value.code, caught.value.place) == ("json-truncated", "line 2, column 2")
    assert str(caught.value).startswith("line 2, column 2: the document ends inside record 2, which begins here. Have ")


def test_xml_records_show_attributes_text_and_lists() -> None:
    raw = b"""<n:o xmlns:n="urn:n"><n:r id="1">t<l><i u="EA">5</i></l><q>1</q><q>2</q><e/></n:r></n:o>"""
    expected = {"@id": "1", "#text": "t", "l": {"i": [{"@u": "EA", "#text": "5"}]}, "q": ["1", "2"], "e": ""}
    assert fields(raw, XmlSettings(record="o/r", lists=("l/i",))) == [expected]


@pytest.mark.parametrize(
    ("raw", "chosen", "kept"),
    [
        (b'a;b\r\n1;"x\r\ny"\r\n2;"un\n3;z', CsvSettings(delimiter=";"), [b'1;"x\r\ny"', b'2;"un', b"3;z"]),
        ("a\n\u20ac".encode("utf-16"), CsvSettings(encoding="utf-16"), ["\u20ac".encode("utf-16-le")]),
        (b' [ {"a" : 1} , tru,\n{"b":"\xff"} ] ', JsonSettings(), [b'{"a" : 1}', b"tru", b'{"b":"\xff"}']),
        (b'{"a":1} \r\n\n{"a"\n', JsonLinesSettings(), [b'{"a":1} ', b'{"a"']),
        (
            b'<o> <r a=">"/><r/><r\n></r ><r><b/></r></o>',
            XmlSettings(record="o/r"),
            [b'<r a=">"/>', b"<r/>", b"<r\n></r >", b"<r><b/></r>"],
        ),
    ],
)
def test_the_bytes_of_each_record_are_kept_good_or_bad(raw: bytes, chosen: FormatSettings, kept: list[bytes]) -> None:
    assert [record.raw for record in read(raw, chosen)] == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "csv", "delimeter": ";"},
        {"kind": "csv", "columns": ["a", "a"]},
        {"kind": "csv", "columns": ["a"], "required": ["b"]},
        {"kind": "json", "pointer": "data"},
        {"kind": "json", "pointer": "/a~2"},
        {"kind": "xml", "record": "/orders/order"},
        {"kind": "xml", "record": "n:orders/order"},
        {"kind": "yaml"},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    adapter: TypeAdapter[FormatSettings] = TypeAdapter(FormatSettings)
    with pytest.raises(ValidationError):
        adapter.validate_python(wrong)


def test_every_setting_is_described() -> None:
    for model in (CsvSettings, JsonSettings, JsonLinesSettings, XmlSettings):
        undescribed = [name for name, info in model.model_fields.items() if name != "kind" and not info.description]
        assert undescribed == []


class Endless:
    """A stream made while it is read: `begin`, then `piece` as often as fills `size` bytes, then `end`."""

    def __init__(self, begin: bytes, piece: bytes, end: bytes, size: int) -> None:
        self.count = size // len(piece)
        self._pieces: Iterator[bytes] = chain((begin,), repeat(piece, self.count), (end,))

    def read(self, _size: int, /) -> bytes:
        return next(self._pieces, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "begin", "piece", "end"),
    [
        (CsvSettings(), b"a,b\n", b"1," + b"x" * 60_000 + b"\n", b""),
        (JsonLinesSettings(), b"", b'{"a":"' + b"x" * 60_000 + b'"}\n', b""),
        (JsonSettings(), b"[{}", b',{"a":"' + b"x" * 60_000 + b'"}', b"]"),
        (XmlSettings(record="o/r"), b"<o>", b"<r><a>" + b"x" * 60_000 + b"</a></r>", b"</o>"),
    ],
)
def test_a_file_of_100_megabytes_is_read_in_flat_memory(
    chosen: FormatSettings, begin: bytes, piece: bytes, end: bytes
) -> None:
    source = Endless(begin, piece, end, 100_000_000)
    tracemalloc.start()
    try:
        good = sum(isinstance(record, Record) for record in decode(source, chosen))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert good - source.count in (0, 1)
    assert peak < 16_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "begin", "piece"),
    [
        (CsvSettings(), b'a,b\n1,"', b"x" * 100_000),
        (CsvSettings(), b"a,b\n1,", b"x" * 100_000),
        (JsonLinesSettings(), b'{"a":"', b"x" * 100_000),
        (JsonSettings(), b'[{"a":"', b"x" * 100_000),
        (JsonSettings(pointer="/b"), b'{"a":"', b"x" * 100_000),
        (XmlSettings(record="o/r"), b"<o><r><a>", b"x" * 100_000),
        (XmlSettings(record="o/r"), b"<o><!--", b"x" * 100_000),
        (XmlSettings(record="o/r"), b"<o><r ", b"x" * 100_000),
    ],
)
def test_a_record_without_end_is_given_up_in_flat_memory(chosen: FormatSettings, begin: bytes, piece: bytes) -> None:
    source = Endless(begin, piece, b"", 100_000_000)
    tracemalloc.start()
    records: list[Record | BadRecord] = []
    with contextlib.suppress(RejectedError):
        records.extend(decode(source, chosen))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record for record in records if isinstance(record, Record)] == []
    assert peak < 64_000_000
