"""Text made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.visible import shown, visible

anything = st.text(st.characters(codec=None))
nasty = st.text(
    st.sampled_from("a \n\t\x00\x1b\x7f\x85\x9b\u200b\u202e\u2066\ufeff\U000e0041\u2028\ud800\ufe0f\u3164\u00ad")
)


@given(st.one_of(anything, nasty))
def test_nothing_that_acts_or_hides_is_left(text: str) -> None:
    left = visible(text)
    assert all(unicodedata.category(one)[0] != "C" and unicodedata.category(one) not in ("Zl", "Zp") for one in left)
    left.encode()


@given(st.one_of(anything, nasty))
def test_a_second_time_changes_nothing(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert visible(text) is text


@pytest.mark.parametrize(
    ("raw", "symbol"),
    [("\x1b", "␛"), ("\x00", "␀"), ("\n", "␊"), ("\t", "␉"), ("\x7f", "␡"), ("\x9b", "<U+009B>"), ("\u202e", "<U+202E>"),
     ("\u200b", "<U+200B>"), ("\U000e0041", "<U+E0041>"), ("\u3164", "<U+3164>"), ("\ufe0f", "<U+FE0F>"), ("\ud800", "<U+D800>")],
)  # fmt: skip
def test_symbols(raw: str, symbol: str) -> None:
    assert visible(f"a{raw}b") == f"a{symbol}b"


def test_letters_of_all_languages_stay() -> None:
    assert visible("Größe 寸法 μέγεθος حجم") == "Größe 寸法 μέγεθος حجم"


@given(
    st.one_of(anything, nasty, st.integers(), st.floats(), st.binary(), st.none(), st.dates(), st.lists(st.integers()))
)
def test_what_is_shown_is_short_and_safe(value: object) -> None:
    text = shown(value)
    assert len(text) <= 80
    assert visible(text) == text


def test_shown_values_are_recognised() -> None:
    assert shown("a\x1b") == "'a␛'"
    assert shown("x" * 200) == "'" + "x" * 77 + "…'"
    assert shown(12.5) == "12.5"
    assert shown(10**5000) == "a whole number of over 300 digits"
    assert shown([1, 2]) == "a list of 2"
    assert shown({"a": 1}) == "an object of 1 fields"
