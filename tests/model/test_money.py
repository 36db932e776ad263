"""Money and prices."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.errors import BrokenRuleError, RejectedError
from state.model.money import MINOR_DIGITS, Money, UnitPrice, currency_code, total_of
from state.model.quantity import Quantity

currencies = st.sampled_from(sorted(MINOR_DIGITS))
minors = st.integers(-(10**14), 10**14)


@given(minors, currencies)
def test_minor_units_and_amount_say_the_same(minor: int, currency: str) -> None:
    money = Money.of_minor(minor, currency)
    assert money.minor == minor
    assert Money.of(str(money.amount), currency) == money
    assert -money.amount.as_tuple().exponent == MINOR_DIGITS[currency]  # type: ignore[operator]  # finite by rule


@given(st.lists(minors, max_size=8), currencies)
def test_sums_are_exact_and_do_not_depend_on_the_order(parts: list[int], currency: str) -> None:
    amounts = [Money.of_minor(minor, currency) for minor in parts]
    assert total_of(amounts, currency).minor == sum(parts)
    assert total_of(amounts[::-1], currency) == total_of(amounts, currency)


@given(minors, minors, currencies)
def test_what_was_added_can_be_taken_away(one: int, other: int, currency: str) -> None:
    first, second = Money.of_minor(one, currency), Money.of_minor(other, currency)
    assert first + second - second == first
    assert (first < second) == (one < other)
    assert first + (-first) == Money.of(0, first.currency)


def test_currencies_never_mix() -> None:
    euro, dollar = Money.of(1, "EUR"), Money.of(1, "USD")
    for combine in (Money.__add__, Money.__sub__, Money.__lt__, Money.__le__):
        with pytest.raises(RejectedError, match="EUR and USD cannot be combined"):
            combine(euro, dollar)
    assert euro != dollar


@pytest.mark.parametrize(
    ("amount", "currency"), [("1.005", "EUR"), ("1.5", "JPY"), ("0.0001", "KWD"), ("1.00001", "CLF")]
)
def test_money_finer_than_its_minor_unit_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(BrokenRuleError, match=f"an amount of {currency} has at most") as caught:
        Money.of(amount, currency)
    assert caught.value.code == "too-many-digits"


def test_zeros_beyond_the_minor_unit_do_no_harm() -> None:
    assert str(Money.of("12.5000", "EUR").amount) == "12.50"
    assert str(Money.of("100.00", "JPY").amount) == "100"


@pytest.mark.parametrize(
    "amount", [12.5, True, "NaN", "Infinity", "1_000", "١٢", "1,50", " 1", "1e3", "", None, "9" * 16]
)
def test_what_is_not_an_exact_number_is_no_money(amount: object) -> None:
    with pytest.raises(BrokenRuleError):
        Money.of(amount, "EUR")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("eur", "EUR"),
        ("EUU", "EUR"),
        ("XAU", "cannot be paid"),
        ("HRK", "replaced by EUR"),
        ("QQQ", "three capitals"),
        (978, "as text"),
    ],
)
def test_a_currency_that_is_not_active_is_refused_with_a_hint(code: object, hint: str) -> None:
    with pytest.raises(BrokenRuleError) as caught:
        currency_code(code)
    assert hint in caught.value.hint


def test_the_digits_of_well_known_currencies() -> None:
    assert [MINOR_DIGITS[code] for code in ("EUR", "JPY", "KWD", "CLF", "UGX")] == [2, 0, 3, 4, 0]
    assert len(MINOR_DIGITS) == 165


def test_a_price_has_more_digits_than_money_and_rounds_once() -> None:
    price = UnitPrice.of("1.2345", "EUR", per=100, unit="EA")
    assert price.times(Quantity.of(1000, "EA")) == Money.of("12.35", "EUR")
    assert price.times(Quantity.of(2, "CS").packed(500, "EA")) == Money.of("12.35", "EUR")


def test_a_price_per_kilogram_reaches_a_quantity_in_grams() -> None:
    assert UnitPrice.of("8.40", "EUR", unit="KGM").times(Quantity.of(250, "GRM")) == Money.of("2.10", "EUR")


def test_a_price_per_each_does_not_reach_a_case_of_unknown_content() -> None:
    with pytest.raises(BrokenRuleError, match="CS must convert to EA"):
        UnitPrice.of("1", "EUR", unit="EA").times(Quantity.of(1, "CS"))


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(BrokenRuleError, match="zero or more"):
        UnitPrice.of("-1", "EUR")


@given(st.decimals(0, 10**6, places=4), st.integers(1, 1000), currencies)
def test_a_line_amount_is_within_half_a_minor_unit_of_the_product(amount: Decimal, count: int, currency: str) -> None:
    paid = UnitPrice.of(amount, currency).times(Quantity.of(count, "EA"))
    assert abs(paid.amount - amount * count) * 2 <= Decimal(1).scaleb(-MINOR_DIGITS[currency])


def test_money_that_outgrows_its_bounds_is_refused_not_wrapped() -> None:
    with pytest.raises(BrokenRuleError, match="at most 15 digits"):
        Money.of("999999999999999", "EUR") + Money.of(1, "EUR")
