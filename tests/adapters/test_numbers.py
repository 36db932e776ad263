"""Numbers are read as declared: what could be two numbers is none."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.numbers import parse_decimal
from state.model.errors import RejectedError


@pytest.mark.parametrize(
    ("text", "mark", "grouping", "number"),
    [
        ("12", ".", "", "12"),
        (" -12.50 ", ".", "", "-12.50"),
        ("+.5", ".", "", "0.5"),
        ("007", ".", "", "7"),
        ("1.234,56", ",", ".", "1234.56"),
        ("1234,5", ",", ".", "1234.5"),
        ("1,234,567", ".", ",", "1234567"),
        ("1'234.50", ".", "'", "1234.50"),
        ("1\u202f234,5", ",", "\u202f", "1234.5"),
    ],
)
def test_a_number_is_read_by_the_marks_declared(text: str, mark: str, grouping: str, number: str) -> None:
    assert str(parse_decimal(text, decimal_mark=mark, grouping=grouping)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        ".",
        "5.",
        "1_000",
        "١٢",
        "\uff11\uff12",
        "1.234,56",
        "1,234",
        "1e3",
        "0x10",
        "NaN",
        "inf",
        "--1",
        "1 2",
        "²",
        "\t1",
        "12-",
    ],
)
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_decimal(text)
    assert caught.value.code == "number"


@pytest.mark.parametrize("text", ["1,23", "12,34,567", "1234,567", ",123", "1,234,", "1,,234"])
def test_wrong_groups_are_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        parse_decimal(text, grouping=",")


def test_a_number_of_too_many_digits_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        parse_decimal("9" * 39)
    assert caught.value.code == "number-range"


def test_marks_that_cannot_be_told_apart_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="told apart"):
        parse_decimal("1", decimal_mark=",", grouping=",")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_every_plain_decimal_reads_back(number: Decimal) -> None:
    assert str(parse_decimal(f"{number:f}")) == f"{number:f}"
    assert parse_decimal(f"{number:,f}".translate(str.maketrans(",.", ".,")), decimal_mark=",", grouping=".") == number
