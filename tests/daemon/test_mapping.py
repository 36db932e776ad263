"""Records become documents: field by field, with lines, and grouped out of flat rows."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import mapping as mapping_module
from agent.mapping import CompiledMapping, Document, Problem, Refused, compile_mapping, documents, render
from agent.record_reader import RecordReader
from agent.shapes import of_entity, of_fields
from connectors.base import SourceRecord, UnreadableRecord
from state.model.canonical.purchase_order import PurchaseOrder
from state.model.errors import RejectedError
from state.model.estate import FieldSpec, MappingSpec

FIELDS = {
    "po": FieldSpec.model_validate("string"),
    "supplier": FieldSpec.model_validate("string"),
    "sku": FieldSpec.model_validate("string"),
    "qty": FieldSpec.model_validate("decimal"),
    "note": FieldSpec.model_validate({"type": "string", "required": False}),
}
READER = RecordReader(FIELDS)


def compiled(**spec: Any) -> CompiledMapping:
    problems: list[Problem] = []
    made = compile_mapping(MappingSpec.model_validate(spec), {"record": of_fields(FIELDS)}, problems)
    assert problems == []
    return made


def row(line: int, po: str, sku: str, qty: str, supplier: str = "S", **more: str) -> SourceRecord:
    fields = {"po": po, "supplier": supplier, "sku": sku, "qty": qty, **more}
    return SourceRecord(position=str(line), place=f"line {line}", fields=fields, raw=b"")


def unreadable(line: int) -> UnreadableRecord:
    return UnreadableRecord(
        position=str(line),
        place=f"line {line}",
        rule="a quote is open",
        shown="",
        message="",
        hint="",
        code="",
        raw=b"",
    )


GROUPED = compiled(
    group_by=["record.po"],
    fields={"po_no": "record.po", "supplier": "record.supplier"},
    lines={"line_no": "line_number", "sku": "record.sku", "quantity": {"value": "record.qty", "unit": "'EA'"}},
)


def grouped(rows: Iterable[SourceRecord | UnreadableRecord]) -> list[Document | Refused]:
    return list(documents(rows, READER, GROUPED))


def test_null_fields_and_tables_without_content_are_left_out() -> None:
    made = compiled(
        fields={"a": "record.po", "b": "record.note", "c": {"d": "record.note"}, "e": [1, "record.note"], "f": 7}
    )
    values = READER.read(row(1, "P", "x", "1").fields)
    assert made.apply({"record": values}) == {"a": "P", "e": [1], "f": 7}


def test_rows_of_one_document_need_not_stand_together() -> None:
    made = grouped([row(2, "P1", "a", "1"), row(3, "P2", "b", "2"), row(4, "P1", "c", "3")])
    assert all(isinstance(one, Document) for one in made)
    assert [
        (one.data["po_no"], [line["sku"] for line in one.data["lines"]]) for one in made if isinstance(one, Document)
    ] == [
        ("P1", ["a", "c"]),
        ("P2", ["b"]),
    ]
    assert [[source.place for source in one.rows] for one in made] == [["line 2", "line 4"], ["line 3"]]


def test_lines_are_counted_from_one() -> None:
    [made] = grouped([row(2, "P1", "a", "1"), row(3, "P1", "b", "2.50")])
    assert isinstance(made, Document)
    assert made.data["lines"][1] == {"line_no": 2, "sku": "b", "quantity": {"value": Decimal("2.50"), "unit": "EA"}}


def test_header_fields_that_disagree_name_both_rows() -> None:
    made = grouped([row(2, "P1", "a", "1"), row(3, "P2", "b", "1"), row(7, "P1", "c", "1", supplier="T")])
    assert isinstance(made[0], Refused)
    assert made[0].error.message == "line 2 and line 7 are one document but disagree in supplier: 'S' and 'T'"
    assert [source.place for source in made[0].rows] == ["line 2", "line 7"]
    assert isinstance(made[1], Document)


def test_a_bad_row_refuses_its_whole_document_and_no_other() -> None:
    made = grouped([row(2, "P1", "a", "1"), row(3, "P1", "b", "many"), row(4, "P2", "c", "1")])
    assert isinstance(made[0], Refused)
    assert made[0].error.place == "field qty"
    assert made[0].error.message.startswith("line 3: field qty must be a decimal")
    assert len(made[0].rows) == 2
    assert isinstance(made[1], Document)


def test_every_wrong_row_of_a_document_is_named_and_the_rest_is_counted() -> None:
    rows = [row(number, "P1", "a", "4" if number == 4 else "many") for number in range(2, 11)]
    [made] = grouped(rows)
    assert isinstance(made, Refused)
    told = made.error.message.split("; ")
    assert [one.partition(":")[0] for one in told[:-1]] == ["line 2", "line 3", "line 5", "line 6", "line 7"]
    assert told[-1] == "and 3 more"


def test_a_row_without_a_key_may_belong_to_its_neighbours() -> None:
    rows: list[SourceRecord | UnreadableRecord] = [
        row(2, "P1", "a", "1"),
        row(3, "P2", "b", "1"),
        unreadable(4),
        row(5, "P3", "c", "1"),
        row(6, "P4", "d", "1"),
    ]
    made = grouped(rows)
    refused = [one.rows[0].place for one in made if isinstance(one, Refused)]
    assert refused == ["line 3", "line 5"]
    assert all("line 4" in one.error.message for one in made if isinstance(one, Refused))


def test_a_row_whose_key_is_empty_is_refused_alone_with_its_neighbours() -> None:
    made = grouped([row(2, "P1", "a", "1"), row(3, " ", "b", "1"), row(4, "P2", "c", "1"), row(5, "P3", "d", "1")])
    assert sorted(one.rows[0].place for one in made if isinstance(one, Refused)) == ["line 2", "line 3", "line 4"]


def test_a_grouped_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_module, "GROUPED_ROWS_LIMIT", 2)
    with pytest.raises(RejectedError, match="more than 2 rows"):
        grouped([row(number, "P", "a", "1") for number in range(3)])


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(1, 9)), max_size=30))
def test_grouping_keeps_every_row_once_and_in_order(pairs: list[tuple[str, int]]) -> None:
    made = grouped(row(number, po, f"s{number}", str(qty)) for number, (po, qty) in enumerate(pairs, 1))
    kept = [(one.data["po_no"], line["sku"]) for one in made if isinstance(one, Document) for line in one.data["lines"]]
    expected = [(po, f"s{number}") for number, (po, _) in enumerate(pairs, 1)]
    assert sorted(kept) == sorted(expected)
    for key in "ABCD":
        assert [sku for po, sku in kept if po == key] == [sku for po, sku in expected if po == key]


def test_one_bad_record_stops_no_other() -> None:
    plain = compiled(fields={"id": "record.po", "qty": "record.qty"})
    made = list(documents([row(2, "P1", "a", "x"), unreadable(3), row(4, "P2", "b", "1")], READER, plain))
    assert [type(one).__name__ for one in made] == ["Refused", "Document"]
    assert isinstance(made[0], Refused)
    assert made[0].error.place == "field qty"


def test_lines_of_a_nested_record_are_mapped_one_by_one() -> None:
    problems: list[Problem] = []
    spec = MappingSpec(
        fields={"no": "record.po_no", "net": "record.total.amount"},
        lines={"pos": "line_number * 10", "art": "line.sku", "menge": "line.quantity.value", "po": "record.po_no"},
        lines_field="positionen",
    )
    made = compile_mapping(spec, {"record": of_entity(PurchaseOrder)}, problems)
    order = {
        "po_no": "P1",
        "total": {"amount": "7.50", "currency": "EUR"},
        "lines": [
            {"sku": "a", "quantity": {"value": "2.50", "unit": "EA"}},
            {"sku": "b", "quantity": {"value": "1", "unit": "EA"}},
        ],
    }
    assert problems == []
    assert render(made.apply({"record": order})) == (
        b'{"no":"P1","net":7.50,"positionen":[{"pos":10,"art":"a","menge":2.50,"po":"P1"},'
        b'{"pos":20,"art":"b","menge":1,"po":"P1"}]}'
    )


@pytest.mark.parametrize("item", ["x", 1, None, True, [], [{"no": 1}]])
def test_a_line_that_is_no_object_has_no_fields_and_stops_nothing(item: object) -> None:
    problems: list[Problem] = []
    lines = {"pos": "line_number", "no": "line.no", "deep": "line.a.b"}
    spec = MappingSpec(fields={"kind": "'order'"}, lines_from="record.items", lines=lines)
    specs = {"items": FieldSpec.model_validate("list")}
    made = compile_mapping(spec, {"record": of_fields(specs)}, problems)
    rows = [SourceRecord(position="1", place="line 1", fields={"items": [item, {"no": 7}]}, raw=b"")]
    (document,) = documents(rows, RecordReader(specs), made)
    assert isinstance(document, Document)
    assert document.data == {"kind": "order", "lines": [{"pos": 1}, {"pos": 2, "no": 7}]}


def test_a_misspelt_line_field_is_a_problem_with_its_path() -> None:
    problems: list[Problem] = []
    spec = MappingSpec(fields={"no": "record.po_no"}, lines={"art": "line.skuu"})
    compile_mapping(spec, {"record": of_entity(PurchaseOrder)}, problems)
    assert [(one.path, one.error.column, one.error.hint) for one in problems] == [
        (("lines", "art"), 6, "did you mean sku?")
    ]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**14), max_value=10**14))
def test_decimals_are_written_as_numbers_digit_for_digit(value: Decimal) -> None:
    written = render({"x": value}).decode()
    assert "e" not in written.lower()
    assert Decimal(written.removeprefix('{"x":').removesuffix("}")) == value


def test_texts_that_look_like_numbers_stay_texts() -> None:
    assert orjson.loads(render({"sku": "0012", "qty": Decimal("1.0")})) == {"sku": "0012", "qty": 1.0}
