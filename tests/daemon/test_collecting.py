"""Tiers share a frame by weight; none starves, and no room is wasted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.sync.collecting import shares

WEIGHTS = {1: 8, 2: 3, 3: 1}
OWED = st.dictionaries(st.sampled_from([1, 2, 3]), st.integers(0, 5_000))


def test_tiers_share_by_weight() -> None:
    assert shares({1: 9_000, 2: 9_000, 3: 9_000}, WEIGHTS, 1_200) == {1: 800, 2: 300, 3: 100}


def test_what_one_leaves_the_others_take() -> None:
    assert shares({1: 5, 3: 9_000}, WEIGHTS, 1_000) == {1: 5, 3: 995}
    assert shares({1: 0, 2: 0}, WEIGHTS, 1_000) == {}


@given(OWED, st.integers(0, 1_000))
def test_the_room_is_filled_and_never_more(owed: dict[int, int], room: int) -> None:
    taken = shares(owed, WEIGHTS, room)
    assert sum(taken.values()) == min(room, sum(owed.values()))
    assert all(count <= owed[tier] for tier, count in taken.items())


@given(OWED, st.integers(3, 1_000))
def test_whoever_owes_has_a_share(owed: dict[int, int], room: int) -> None:
    assert set(shares(owed, WEIGHTS, room)) == {tier for tier, count in owed.items() if count}
