"""Raw fields are read exactly as declared; what is wrong is named with its rule, its value and its cure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record_reader import RecordReader
from state.model.errors import ConfigError, RejectedError
from state.model.estate import FieldSpec


def read(spec: Any, value: object) -> Any:
    return RecordReader({"x": FieldSpec.model_validate(spec)}).read({"x": value})["x"]


GERMAN = {"type": "decimal", "decimal_mark": ",", "grouping": "."}
OPTIONAL = {"type": "string", "required": False}

READ = [
    ("string", "a b", "a b"),
    ("string", "007", "007"),
    (OPTIONAL, "", None),
    (OPTIONAL, "  ", None),
    (OPTIONAL, None, None),
    ({"type": "string", "pattern": "R-[0-9]+"}, "R-17", "R-17"),
    ("integer", "-7", -7),
    ("integer", 7, 7),
    ("decimal", "12.50", Decimal("12.50")),
    ("decimal", 3, Decimal(3)),
    (GERMAN, "1.234,50", Decimal("1234.50")),
    ("boolean", "Y", True),
    ("boolean", "false", False),
    ("boolean", True, True),
    ("date", "2026-02-28", "2026-02-28"),
    ({"type": "date", "date_format": "%d.%m.%Y"}, "28.02.2026", "2026-02-28"),
    ("instant", "2026-03-02T14:30:00+01:00", "2026-03-02T14:30:00+01:00"),
    ({"type": "instant", "date_format": "%d.%m.%Y %H:%M %z"}, "02.03.2026 14:30 +0100", "2026-03-02T14:30:00+01:00"),
    ("object", {"a": 1}, {"a": 1}),
    ("list", [1], [1]),
]


@pytest.mark.parametrize(("spec", "value", "expected"), READ)
def test_a_field_is_read_as_declared(spec: Any, value: object, expected: object) -> None:
    found = read(spec, value)
    assert (found, type(found)) == (expected, type(expected))


WRONG = [
    ("string", 7, "must be a text"),
    ("string", "", "is required and empty"),
    ("string", None, "is required and empty"),
    ({"type": "string", "pattern": "R-[0-9]+"}, "xR-17", "must match R-[0-9]+"),
    ({"type": "string", "pattern": "R-[0-9]+"}, "R-17\n", "must match R-[0-9]+"),
    ({"type": "string", "pattern": "a*"}, "a\x00", "must match"),
    ({"type": "string", "pattern": "."}, "\ud800", "must match"),
    ("integer", "1.0", "whole number"),
    ("integer", "١٢", "whole number"),
    ("integer", "1_000", "whole number"),
    ("integer", True, "whole number"),
    ("integer", 2**63, "whole number"),
    ("decimal", "1,5", "with . before its fraction"),
    ("decimal", "1e3", "decimal"),
    ("decimal", "NaN", "decimal"),
    ("decimal", "1" * 20, "decimal"),
    (GERMAN, "1,234.50", "with , before its fraction and '.' between groups of three"),
    ("boolean", "maybe", "true, false"),
    ("date", "2026-02-30", "calendar"),
    ("date", "28.02.2026", "YYYY-MM-DD"),
    ({"type": "date", "date_format": "%d.%m.%Y"}, "30.02.2026", "%d.%m.%Y"),
    ("date", 20260228, "calendar"),
    ("instant", "2026-03-02T14:30:00", "offset"),
    ("object", "x", "must be an object"),
    ("list", {}, "must be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "value", "rule"), WRONG)
def test_a_wrong_value_is_named_with_its_rule_and_cure(spec: Any, value: object, rule: str) -> None:
    with pytest.raises(RejectedError) as caught:
        read(spec, value)
    assert rule in caught.value.rule
    assert caught.value.place == "field x"
    assert caught.value.hint


def test_all_wrong_fields_of_a_record_are_named_at_once() -> None:
    reader = RecordReader({name: FieldSpec.model_validate("decimal") for name in ("a", "b", "c")})
    with pytest.raises(RejectedError) as caught:
        reader.read({"a": "x", "b": "1"})
    assert "field a" in caught.value.message
    assert "field c is required and missing" in caught.value.message
    assert "field b" not in caught.value.message


def test_columns_that_are_not_declared_are_left_alone() -> None:
    assert RecordReader({"a": FieldSpec.model_validate("string")}).read({"a": "1", "b": "2"}) == {"a": "1"}


def test_a_pattern_that_is_none_is_a_mistake_of_the_estate() -> None:
    with pytest.raises(ConfigError, match="field x: invalid regular expression"):
        RecordReader({"x": FieldSpec.model_validate({"type": "string", "pattern": "("})})


def test_a_pattern_may_hold_quotes_and_backslashes() -> None:
    assert read({"type": "string", "pattern": r"""['"\\]\d"""}, "'5") == "'5"


def test_a_greedy_pattern_cannot_hang_the_reader() -> None:
    with pytest.raises(RejectedError):
        read({"type": "string", "pattern": "(a*)*b"}, "a" * 5000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.sampled_from(["string", "integer", "decimal", "boolean", "date", "instant", "object", "list"]), JSON)
def test_no_value_makes_a_reader_raise_anything_but_a_rejection(kind: str, value: object) -> None:
    try:
        found = read({"type": kind, "required": False}, value)
    except RejectedError:
        return
    assert (
        found is None or kind in ("object", "list") or read(kind, found if kind != "decimal" else str(found)) == found
    )


def test_more_wrong_fields_than_are_told_are_counted() -> None:
    reader = RecordReader({f"x{number}": FieldSpec.model_validate("integer") for number in range(8)})
    with pytest.raises(RejectedError) as caught:
        reader.read({f"x{number}": "many" for number in range(8)})
    assert str(caught.value).count("must be a whole number") == 5
    assert caught.value.message.endswith("; and 3 more")


def test_an_empty_field_is_not_told_as_a_value() -> None:
    with pytest.raises(RejectedError) as caught:
        read("string", "")
    assert caught.value.message == "field x is required and empty"
