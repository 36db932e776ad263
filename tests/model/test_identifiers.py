"""Identifiers and their check digits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.errors import BrokenRuleError
from state.model.identifiers import (
    SCHEMES,
    Identifier,
    check_digit,
    duns,
    gln,
    gtin,
    gtin14,
    interchange_id,
    scac,
    sscc,
)

gtin_bodies = st.sampled_from([7, 11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n))


@pytest.mark.parametrize(
    ("body", "digit"),
    [("629104150021", 3), ("37610425002123456", 9), ("400638133393", 1), ("9638507", 4), ("03600029145", 2)],
)
def test_published_check_digits(body: str, digit: int) -> None:
    assert check_digit(body) == digit


@given(gtin_bodies)
def test_exactly_one_last_digit_is_right_and_the_error_names_it(body: str) -> None:
    right = check_digit(body)
    assert gtin(f"{body}{right}") == f"{body}{right}"
    for wrong in set(range(10)) - {right}:
        with pytest.raises(BrokenRuleError, match=f"the check digit of this GTIN must be {right}"):
            gtin(f"{body}{wrong}")


@given(gtin_bodies, st.data())
def test_one_mistyped_digit_is_always_found(body: str, data: st.DataObject) -> None:
    good = f"{body}{check_digit(body)}"
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != good[place]]))
    with pytest.raises(BrokenRuleError):
        gtin(good[:place] + other + good[place + 1 :])


@given(gtin_bodies)
def test_filling_up_to_fourteen_digits_keeps_the_check_digit_right(body: str) -> None:
    assert gtin(gtin14(f"{body}{check_digit(body)}")).endswith(body + str(check_digit(body)))


@pytest.mark.parametrize(
    "value", [4006381333931, "40063813339", "4006381333931 ", "\u0664006381333931", "", None, "4006-381333931"]
)
def test_what_is_not_text_of_ascii_digits_is_no_gtin(value: object) -> None:
    with pytest.raises(BrokenRuleError, match="8, 12, 13 or 14 digits"):
        gtin(value)


def test_other_gs1_keys() -> None:
    assert gln("6291041500213") == "6291041500213"
    assert sscc("376104250021234569") == "376104250021234569"
    with pytest.raises(BrokenRuleError, match="check digit of this SSCC must be 9"):
        sscc("376104250021234568")


@pytest.mark.parametrize(
    ("read", "bad"),
    [
        (duns, "12-3456789"),
        (duns, "12345678"),
        (scac, "fdeg"),
        (scac, "ABCDE"),
        (interchange_id, "ZZ:"),
        (interchange_id, "ACME"),
        (interchange_id, "ZZ:ACME "),
    ],
)
def test_bad_numbers_are_refused(read: Callable[[object], str], bad: str) -> None:
    with pytest.raises(BrokenRuleError):
        read(bad)


def test_an_identifier_is_held_to_its_scheme() -> None:
    assert Identifier(scheme="isa", value="ZZ:ACMEWEST").value == "ZZ:ACMEWEST"
    with pytest.raises(BrokenRuleError, match="GTIN-13 must be 1") as caught:
        Identifier(scheme="gtin-13", value="4006381333932")
    assert caught.value.place == "value"
    with pytest.raises(BrokenRuleError, match="GTIN-14 of 14 digits"):
        Identifier(scheme="gtin-14", value="4006381333931")
    with pytest.raises(BrokenRuleError, match="known scheme"):
        Identifier(scheme="ean", value="4006381333931")  # type: ignore[arg-type]  # that is the point
    assert len(SCHEMES) == 12
