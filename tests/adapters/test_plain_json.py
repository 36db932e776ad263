"""What is read in one go is what the careful reader reads; what it would refuse, or read otherwise, is left to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.json_text import JsonText
from connectors.formats.plain_json import read_plain
from connectors.formats.records import FlawError
from connectors.formats.settings import JsonLinesSettings

NARROW = JsonLinesSettings(max_depth=3, max_keys=4, max_digits=18)

# Names and texts that look like names; blanks wherever they may stand; numbers at the edge of what is exact.
BLANKS = st.sampled_from(["", "", "", " ", "\t", "\r", " \n"])
NAMES = st.sampled_from(['"a"', '"b"', r'"\u0061"', r'"a\""', r'"\":"', '":"', '" :"', '""'])
NUMBERS = st.sampled_from(["0", "-0", "7", "1.0", "1e2", "-1E400", "NaN", "01"]) | st.integers(-(10**19), 10**19).map(
    str
)
LEAVES = NAMES | NUMBERS | st.sampled_from(["true", "null", r'"\ud800"', '"10:30"', '"\x01"', "tru"])


def spaced(parts: list[str], brackets: str) -> st.SearchStrategy[str]:
    inside = st.tuples(*(BLANKS for _ in range(2 * len(parts)))).map(
        lambda blanks: ",".join(blanks[2 * at] + part + blanks[2 * at + 1] for at, part in enumerate(parts))
    )
    return inside.map(lambda text: brackets[0] + text + brackets[1])


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(NAMES, BLANKS, BLANKS, inner).map(lambda one: f"{one[0]}{one[1]}:{one[2]}{one[3]}")
    lists = st.lists(inner, max_size=3).flatmap(lambda parts: spaced(parts, "[]"))
    return lists | st.lists(member, max_size=4).flatmap(lambda parts: spaced(parts, "{}"))


@given(containers(st.recursive(LEAVES, containers, max_leaves=8)))
def test_it_reads_what_the_careful_reader_reads_or_nothing(text: str) -> None:
    plain = read_plain(text, NARROW)
    assert plain is None or repr(plain) == repr(carefully(text))  # 1, 1.0 and Decimal(1) are equal


def carefully(text: str) -> Any:
    try:
        return JsonText(NARROW).whole(text, line=1)
    except FlawError:
        return None


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1,"a" :2}',
        '{"a":1,"a"\t:2}',
        '{"a":1,"a"\r:2}',
        '{"a":1,"a"\n:2}',
        '{"a" :1,"a" :"\\":"}',
        '{"a":1,"\\u0061":2}',
        '{"a":[{"b":1,"b":2}]}',
        '{"a":1.0}',
        '{"a":[[1e2]]}',
        '{"a":1000000000000000000}',
        '{"a":9223372036854775808}',
        '{"a":-99999999999999999999}',
        '{"a":NaN}',
        '{"a":{"b":{"c":[]}}}',
        '{"a":1,"b":2,"c":3,"d":4,"e":5}',
        '{"a":"\\udc00"}',
        '{"a":"\ud800"}',
        '{"a":1',
        "[1]",
        "",
    ],
)
def test_what_needs_care_is_left_alone(text: str) -> None:
    assert read_plain(text, NARROW) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"at": "2026-03-02T14:30:00Z", "of": 999999999999999999}', {"at": "2026-03-02T14:30:00Z", "of": 10**18 - 1}),
        ('{"a" : "x", "b" : [true, null, "é"]}', {"a": "x", "b": [True, None, "é"]}),
        ('{"a":{"b":[-0]}}', {"a": {"b": [0]}}),
        ('{"a":1,"b":2,"c":3,"d":4}', {"a": 1, "b": 2, "c": 3, "d": 4}),
        (" {} ", {}),
    ],
)
def test_what_needs_none_is_read(text: str, value: dict[str, Any]) -> None:
    assert read_plain(text, NARROW) == value == carefully(text)


def test_a_record_that_needs_care_leaves_the_next_ones_as_exact() -> None:
    reader = JsonText(NARROW)
    assert reader.record('{"a":1}', line=1) == {"a": 1}
    assert str(reader.record('{"a":1.10}', line=2)["a"]) == "1.10"
    assert reader.record('{"a":2}', line=3) == {"a": 2}
    with pytest.raises(FlawError, match="twice"):
        reader.record('{"a":1,"a":2}', line=4)
