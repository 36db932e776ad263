"""Expressions: what they may name, what they give, and what they say when they cannot."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.expressions import Expressions
from agent.functions import BUILT_IN, Function
from agent.shapes import EVENT, Shape, of_entity, of_fields
from state.model.canonical.purchase_order import PurchaseOrder
from state.model.errors import ConfigError, RejectedError
from state.model.estate import FieldSpec, FieldType

RECORD = of_fields(
    {
        "id": FieldSpec(type=FieldType.STRING),
        "qty": FieldSpec(type=FieldType.DECIMAL),
        "pack": FieldSpec(type=FieldType.INTEGER),
        "note": FieldSpec(type=FieldType.STRING, required=False),
        "rate": FieldSpec(type=FieldType.DECIMAL, required=False),
        "due": FieldSpec(type=FieldType.DATE),
        "at": FieldSpec(type=FieldType.INSTANT),
        "ok": FieldSpec(type=FieldType.BOOLEAN),
        "address": FieldSpec(type=FieldType.OBJECT),
        "lines": FieldSpec(type=FieldType.LIST),
        "Need date": FieldSpec(type=FieldType.DATE),
        "@no": FieldSpec(type=FieldType.STRING),
    }
)
VALUES = {
    "id": "R-1",
    "qty": Decimal("12.50"),
    "pack": 6,
    "note": None,
    "rate": None,
    "due": "2026-02-27",
    "at": "2026-03-02T00:30:00+01:00",
    "ok": True,
    "address": {"zip": "01067", "weight": Decimal("1.10")},
    "lines": [{"sku": "a", "qty": Decimal(2)}, {"sku": "b", "qty": Decimal(3)}],
    "Need date": "2026-03-01",
    "@no": "7",
}
EXPRESSIONS = Expressions({"record": RECORD})


def run(source: str, **changes: Any) -> Any:
    return EXPRESSIONS.compile(source, place="field x").evaluate({"record": {**VALUES, **changes}})


GIVES = [
    ("record.id", "R-1"),
    ("record.qty", Decimal("12.50")),
    ("record.address.zip", "01067"),
    ("record.address.nothing", None),
    ('record["Need date"]', "2026-03-01"),
    ("'EA'", "EA"),
    ("12", 12),
    ("1.50", Decimal("1.50")),
    ("true", True),
    ("record.qty * 2", Decimal(25)),
    ("2 * record.qty - 1", Decimal(24)),
    ("-record.qty", Decimal("-12.5")),
    ("record.qty == decimal('12.500')", True),
    ("record.qty < 13 && 12 < record.qty", True),
    ("record.qty > decimal('9')", True),  # as texts, '12.5' would be the smaller
    ("div(record.qty, 3, 4)", Decimal("4.1667")),
    ("round(decimal('2.345'), 2)", Decimal("2.35")),
    ("int(round(record.qty, 0)) + record.pack", 19),
    ("string(record.qty)", "12.5"),
    ("quantity(record.qty, 'EA')", {"value": Decimal("12.5"), "unit": "EA"}),
    ("money(record.pack, 'EUR')", {"amount": Decimal(6), "currency": "EUR"}),
    ("quantity(record.rate, 'EA')", None),
    ("record.lines.map(l, l.qty * 2)", [Decimal(4), Decimal(6)]),
    ("record.lines.filter(l, l.qty > 2).map(l, l.sku)", ["b"]),
    ("record.address.weight + record.qty", Decimal("13.6")),
    ("record.note == null ? 'none' : 'some'", "none"),
    ("default(record.note, 'none')", "none"),
    ("default(record.id, 'none')", "R-1"),
    ("default(record.rate, decimal(1)) * record.pack", Decimal(6)),
    ("upper(record.note)", None),
    ("upper(trim(' a ')) + record[\"@no\"]", "A7"),
    ("' a '.trim().upper()", "A"),
    ("replace(record.id, '-', '/')", "R/1"),
    ("join(split('a,b', ','), ';')", "a;b"),
    ("padleft('7', 3, '0')", "007"),
    ("substring(record.id, 0, 1)", "R"),
    ("record.id.matches('^R-[0-9]+$')", True),
    ("date('28.02.2026', '%d.%m.%Y')", "2026-02-28"),
    ("add_days(record.due, 2)", "2026-03-01"),
    ("days_between(record.due, record[\"Need date\"])", 2),
    ("day(record.at, 'UTC')", "2026-03-01"),
    ("record.at", "2026-03-02T00:30:00+01:00"),
    ("instant('02.03.2026 00:30', '%d.%m.%Y %H:%M', 'Europe/Berlin') == record.at", True),
    ("record.at < timestamp('2026-03-01T23:30:01Z')", True),
    ("record.ok ? 'Y' : 'N'", "Y"),
    ("{'a': [record.pack]}", {"a": [6]}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "value"), GIVES)
def test_an_expression_gives(source: str, value: object) -> None:
    assert run(source) == value


REFUSED = [
    ("record.qyt", "1:8", "no field 'qyt'. did you mean qty?"),
    ("record.id + record.note2", "1:20", "no field 'note2'. did you mean note?"),
    ("record.id +\n  record.idd", "2:10", "no field 'idd'"),
    ("record.id.x", "1:11", "is a string and has no fields"),
    ("record.lines.sku", "1:14", "is a list. write record.lines[0]"),
    ("recrd.id + 'x'", "1:1", "'recrd.id' is not known here. did you mean record?"),
    ("uper(record.id)", "1:1", "no function uper(). did you mean upper?"),
    ("record.id.trimm()", "1:11", "no method .trimm(). did you mean trim?"),
    ("has(record.note)", "1:1", "compare it with null"),
    ("record.qty + 1.5", "1:12", "cannot take (decimal, double)"),
    ("record.qty / 2", "1:12", "div(a, b, 4)"),
    ("record.qty + record.id", "1:12", "cannot take (decimal, string)"),
    ("record.id < record.pack", "1:11", "cannot take (string, int)"),
    ("0.1 + 0.2", "1:1", "gives a double"),
    ("record.id ==", "1:13", "ends too early"),
    ("(" * 60 + "1" + ")" * 60, "1:1", "nested deeper"),
    ("record.note\nrecord.id", "2:1", "mismatched input 'record'"),
]


@pytest.mark.parametrize(("source", "place", "words"), REFUSED)
def test_what_cannot_be_compiled_is_named_at_its_column(source: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EXPRESSIONS.compile(source, place="field x")
    assert f"{caught.value.line}:{caught.value.column}" == place
    assert words in f"{caught.value.message}. {caught.value.hint}"


FAILS = [
    ("record.note + 'x'", {}, "cannot take (null, string)"),
    ("record.pack / 0", {}, "divide by zero"),
    ("div(record.qty, 0, 2)", {}, "division by zero"),
    ("decimal(record.id)", {}, "plain ASCII digits"),
    ("int(record.qty)", {}, "no whole number"),
    ("date(record.id, '%d.%m.%Y')", {"id": "31.02.2026"}, "no such day"),
    ("date(record.id, '%d.%m.%Y')", {"id": "\u0660\u0661.01.2026"}, "ASCII"),
    ("instant(record.id, '%d.%m.%Y %H:%M', 'Europe/Berlin')", {"id": "29.03.2026 02:30"}, "skips or repeats"),
    ("record.address.zap + 'x'", {}, 'Key not found in map : "zap"'),
    ("record.id + 'x'", {"id": "a\x00b"}, "NUL"),
    ("record.id + 'x'", {"id": "a\ud800b"}, "half a character"),
    ("record.id + 'x'", {"id": "x" * 70_000}, "65536 characters"),
    ("replace(record.id, 'x', record.id)", {"id": "x" * 1000}, "grows beyond"),
    ("record.lines.map(l, record.lines.map(m, 1))", {"lines": [1] * 2000}, "Iteration budget exceeded"),
    ("record.lines.size()", {"lines": [0] * 20_000}, "10000 values"),
    ("record.qty * record.qty", {"qty": Decimal(9) / 7 * 10**14}, "digits"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "changes", "words"), FAILS)
def test_what_fails_when_it_runs_is_a_rejection_that_says_why(source: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RejectedError) as caught:
        run(source, **changes)
    assert words in caught.value.rule
    assert caught.value.place == "field x"
    assert caught.value.hint


def test_plain_paths_and_literals_do_not_go_through_cel() -> None:
    plain = ["record.id", 'record["Need date"]', "record.address.zip", "'x'", "-1.5", "false", "record"]
    assert all(EXPRESSIONS.compile(source, place="x").is_plain for source in plain)
    assert not EXPRESSIONS.compile("record.id + ''", place="x").is_plain


def test_canonical_entities_show_decimals_and_money_in_minor_units() -> None:
    expressions = Expressions({"record": of_entity(PurchaseOrder), "event": EVENT})
    order = {
        "po_no": "PO-1",
        "total": {"amount": "7.50", "currency": "EUR"},
        "lines": [
            {"sku": "a", "quantity": {"value": "3.0", "unit": "EA"}, "price": {"amount": "2.5", "currency": "EUR"}}
        ],
    }
    scope = {"record": order, "event": {"subject": "PO-1"}}

    def give(source: str) -> Any:
        return expressions.compile(source, place="x").evaluate(scope)

    assert give("record.total.amount") == Decimal("7.50")
    assert give("record.total.minor") == 750
    assert give("record.total.minor > 500 && record.total.currency == 'EUR'") is True
    assert give("record.lines.map(l, l.quantity.value * l.price.amount)") == [Decimal("7.5")]
    assert give("record.lines")[0]["quantity"] == {"value": Decimal("3.0"), "unit": "EA"}
    assert give("record.approval.by") is None
    assert give("event.subject + '/1'") == "PO-1/1"
    with pytest.raises(ConfigError, match="did you mean supplier"):
        give("record.suplier")


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12),
    st.integers(-999, 999),
)
def test_decimal_arithmetic_is_exact(value: Decimal, factor: int) -> None:
    assert TIMES.evaluate({"record": {**VALUES, "qty": value, "pack": factor}}) == value * factor + value


EXAMPLE_TYPES = {
    **dict.fromkeys(("a", "b", "amount"), FieldType.DECIMAL),
    **dict.fromkeys(("text", "value", "instead"), FieldType.STRING),
    **dict.fromkeys(("first", "second", "date"), FieldType.DATE),
    "parts": FieldType.LIST,
    "instant": FieldType.INSTANT,
}
REFERENCE = (Path(__file__).parents[2] / "docs/estate.md").read_text(encoding="utf-8")
TIMES = EXPRESSIONS.compile("record.qty * record.pack + record.qty", place="x")


@given(st.text(alphabet=st.sampled_from("record.idqty '\"[]()+-*/<>=!?:,&|{}0159\\\n//xé"), max_size=60))
def test_no_text_makes_the_compiler_raise_anything_but_a_config_error(source: str) -> None:
    with suppress(ConfigError):
        EXPRESSIONS.compile(source, place="x")


@pytest.mark.parametrize("function", BUILT_IN, ids=[one.name for one in BUILT_IN])
def test_every_function_stands_in_the_reference_and_its_example_compiles(function: Function) -> None:
    example, _, words = function.summary.partition("`: ")
    assert f"| {example}` | {words} |" in REFERENCE
    types = EXAMPLE_TYPES | ({"value": FieldType.DECIMAL} if function.name == "quantity" else {})
    Expressions({name: Shape(type=one) for name, one in types.items()}).compile(example[1:], place="x")
