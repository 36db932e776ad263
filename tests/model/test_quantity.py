"""Quantities, units and conversion."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.errors import BrokenRuleError
from state.model.quantity import UNITS, Quantity, can_convert, convert, unit_code

units = st.sampled_from(sorted(UNITS))
values = st.decimals(-(10**6), 10**6, places=3)
convertible = st.tuples(units, units).filter(lambda pair: can_convert(*pair))


@given(values, convertible)
def test_there_and_back_is_where_it_began(value: Decimal, pair: tuple[str, str]) -> None:
    source, target = pair
    factor = UNITS[source].factor / UNITS[target].factor if UNITS[source].factor else Decimal(1)
    if abs(value * factor) >= 10**15:
        return
    back = convert(convert(value, source, target), target, source)
    assert abs(back - value) <= Decimal("0.0000000001") * max(Decimal(1), 1 / factor)


@given(values, units)
def test_a_unit_converts_to_itself_unchanged(value: Decimal, unit: str) -> None:
    assert convert(value, unit, unit) == value


@given(st.tuples(units, units).filter(lambda pair: not can_convert(*pair)))
def test_units_of_different_kinds_do_not_convert(pair: tuple[str, str]) -> None:
    with pytest.raises(BrokenRuleError, match="must convert to"):
        convert(Decimal(1), *pair)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        ("4", "MTR", "KMT", "0.004"),
        ("1", "FOT", "INH", "12"),
        ("1", "LBR", "ONZ", "16"),
        ("1", "GLL", "OZA", "128"),
        ("1", "BLL", "GLL", "42"),
        ("2", "GRO", "DZN", "24"),
        ("1", "TNE", "GRM", "1000000"),
        ("1", "MTQ", "LTR", "1000"),
        ("1", "MTK", "CMK", "10000"),
        ("1", "SMI", "YRD", "1760"),
        ("1", "LTN", "LBR", "2240"),
        ("1", "GLI", "LTR", "4.54609"),
        ("36", "HUR", "DAY", "1.5"),
    ],
)
def test_known_conversions(value: str, source: str, target: str, expected: str) -> None:
    assert convert(Decimal(value), source, target) == Decimal(expected)


def test_four_metres_cannot_be_received_as_four_kilometres() -> None:
    with pytest.raises(BrokenRuleError, match=r"base_value must be what 4 MTR are: 0.004 KMT, not 4") as caught:
        Quantity(value=Decimal(4), unit="MTR", base_value=Decimal(4), base_unit="KMT")
    assert (caught.value.code, caught.value.place) == ("base-contradicts", "base_value")
    Quantity(value=Decimal(4), unit="MTR", base_value=Decimal("0.004"), base_unit="KMT")


@pytest.mark.parametrize("base", ["0", "0.01", "33", "32.9"])
def test_rounding_does_not_hide_a_wrong_base(base: str) -> None:
    with pytest.raises(BrokenRuleError, match="base_value must be"):
        Quantity(value=Decimal(10), unit="MTR", base_value=Decimal(base), base_unit="FOT")


@pytest.mark.parametrize("base", ["32.81", "32.808", "32.8083989501"])
def test_a_base_may_be_rounded_as_far_as_it_is_written(base: str) -> None:
    assert Quantity(value=Decimal(10), unit="MTR", base_value=Decimal(base), base_unit="FOT").base_value == Decimal(
        base
    )


def test_a_case_needs_the_product_to_say_what_it_holds() -> None:
    assert Quantity.of(3, "CS").packed(12, "EA").to("DZN") == Quantity.of(3, "DZN")
    with pytest.raises(BrokenRuleError, match="CS must convert to EA"):
        Quantity.of(3, "CS").to("EA")


def test_a_pack_factor_must_agree_with_the_base() -> None:
    with pytest.raises(BrokenRuleError, match="base_value must be what 3 CS are: 36 EA, not 35"):
        Quantity(value=Decimal(3), unit="CS", base_value=Decimal(35), base_unit="EA", pack_factor=Decimal(12))


@pytest.mark.parametrize("half", [{"base_value": Decimal(1)}, {"base_unit": "EA"}, {"pack_factor": Decimal(2)}])
def test_half_a_base_is_refused(half: dict[str, object]) -> None:
    with pytest.raises(BrokenRuleError, match="come together"):
        Quantity(value=Decimal(1), unit="CS", **half)  # type: ignore[arg-type]  # one field at a time


@pytest.mark.parametrize(
    ("written", "meant"),
    [("kg", "KGM"), ("KG", "KGM"), ("XBX", "BX"), ("CA", "CS"), ("ea", "EA"), ("PF", "PX"), ("km", "KMT"), ("kilometer", "KMT"),
     ("m", "MTR"), ("MTRS", "MTR"), ("pallet", "PX")],
)  # fmt: skip
def test_an_unknown_unit_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    with pytest.raises(BrokenRuleError) as caught:
        unit_code(written)
    assert caught.value.hint.startswith(f"Did you mean {meant} (")


@pytest.mark.parametrize("unit", [None, 5, "", ["EA"], {"unit": "EA"}, "\x1b[31m", "x" * 10_000])
def test_what_is_no_unit_at_all_gets_an_error_and_not_a_crash(unit: object) -> None:
    with pytest.raises(BrokenRuleError) as caught:
        Quantity(value=Decimal(1), unit=unit)  # type: ignore[arg-type]  # that is the point
    assert (caught.value.place, caught.value.code) == ("unit", "unknown-unit")
    assert len(caught.value.shown) <= 80
