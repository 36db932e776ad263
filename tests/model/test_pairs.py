"""Pairs that are remembered: whatever came before, a reading is what the constructor makes, or its error."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from state.model.errors import RejectedError
from state.model.money import Money, UnitPrice
from state.model.quantity import Quantity


class Word(StrEnum):
    EACH = "EA"
    TWELVE = "12"


numbers: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["1", "1.0", "1.00", "01", "+1", "-0", "0", "12", "1e3", "1_0", " 1", "", "9" * 15, "9" * 16]),
    st.sampled_from([1, True, 1.0, Decimal(1), Decimal("1.0"), Decimal("1.00"), Word.TWELVE, None, [], "\u0661"]),
    st.sampled_from(
        [10**15 - 1, 10**15, 1 - 10**15, 10**5000, Decimal("1E+3"), Decimal("1E-10"), Decimal("1E-7"), Decimal("-0.0")]
    ),
    st.sampled_from([Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E+999999"), Decimal("1E-11")]),
    st.decimals(allow_nan=True) | st.integers(),
    st.decimals(-(10**6), 10**6, places=2).map(str),
)
codes: st.SearchStrategy[Any] = st.sampled_from(
    ["EA", "KGM", "EUR", "JPY", "ea", "", "EUR ", Word.EACH, None, 1, True, {}]
)
KINDS: list[tuple[type[Any], str, str]] = [
    (Quantity, "value", "unit"),
    (Money, "amount", "currency"),
    (UnitPrice, "amount", "currency"),
]


def outcome(make: Callable[[], object]) -> tuple[str, ...]:
    try:
        return (repr(make()),)
    except ValidationError as error:
        refusal = error.errors()[0]["ctx"]["error"]
    except RejectedError as error:
        refusal = error
    return (refusal.place, refusal.message, refusal.rule, refusal.shown, refusal.hint, refusal.code)


@pytest.mark.parametrize(("kind", "number", "unit"), KINDS)
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(numbers, codes), min_size=1, max_size=4))
def test_a_pair_reads_as_the_constructor_makes_it(
    kind: type[Any], number: str, unit: str, pairs: list[tuple[Any, Any]]
) -> None:
    adapter, make = TypeAdapter(kind), cast("Callable[..., object]", kind)
    for value, code in [*pairs, *pairs]:
        record = {number: value, unit: code}
        assert outcome(partial(adapter.validate_python, record)) == outcome(partial(make, **record))


@pytest.mark.parametrize(("kind", "number", "unit"), KINDS)
def test_the_same_digits_give_the_same_object(kind: type[Any], number: str, unit: str) -> None:
    adapter, code = TypeAdapter(kind), "EA" if kind is Quantity else "EUR"
    assert adapter.validate_python({number: "7", unit: code}) is adapter.validate_python({unit: code, number: "7"})
    assert adapter.validate_python({number: Decimal(7), unit: code}) is adapter.validate_python({number: 7, unit: code})


def test_a_text_is_not_read_as_the_word_of_an_enum_that_came_before() -> None:
    adapter = TypeAdapter(Quantity)
    adapter.validate_python({"value": Word.TWELVE, "unit": Word.EACH})
    assert type(adapter.validate_python({"value": "12", "unit": "EA"}).unit) is str


def test_a_price_without_per_and_unit_stands_for_one_of_what_is_priced() -> None:
    price = TypeAdapter(UnitPrice).validate_python({"amount": "1.255", "currency": "EUR"})
    assert (price.per, price.unit) == (Decimal(1), None)
    assert price.times(Quantity.of(2, "EA")) == Money.of("2.51", "EUR")
