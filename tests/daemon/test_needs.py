"""What two agents need of each other, and what tells an old store, a second store and a lost reply apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sync.needs import Fence, Needs, Presented, Reason, Standing, compute_needs, fit, judge_nonce
from state.model.errors import RejectedError
from state.model.ids import EventId
from state.model.stream import BEGINNING, Mark, Nonce


def an_event(number: int) -> tuple[EventId, bytes]:
    return EventId(f"{number:032x}"), b'{"n":%d}' % number


def mark(*numbers: int) -> Mark:
    end = BEGINNING
    for number in numbers:
        end = end.after(*an_event(number))
    return end


def site(*sent: int, acknowledged: tuple[int, ...] = (), epoch: int = 1, hub_epoch: int = 1) -> Standing:
    told = {1: mark(*acknowledged)} if acknowledged else {}
    return Standing(site="north", epoch=epoch, sent={1: mark(*sent)}, acknowledged=told, peer_epoch=hub_epoch)


def hub(*received: int, epoch: int = 1, site_epoch: int = 1) -> Standing:
    return Standing(site="hq", epoch=epoch, received={1: mark(*received)}, peer_epoch=site_epoch)


def chains(sent: tuple[int, ...], received: int) -> Mapping[int, bytes]:
    return {1: mark(*sent[:received]).chain} if received else {}


def test_a_stream_goes_on_behind_what_the_other_has() -> None:
    needs = compute_needs(site(1, 2, 3, acknowledged=(1,)), hub(1, 2), chains((1, 2, 3), 2))
    assert needs == Needs(after={1: mark(1, 2)}, is_resupply=False)


def test_two_that_never_met_begin_at_the_beginning() -> None:
    fresh = Standing(site="hq", epoch=7)
    assert compute_needs(site(1, 2, hub_epoch=0), fresh, {}) == Needs(after={1: BEGINNING}, is_resupply=False)
    assert compute_needs(fresh, site(1, 2, hub_epoch=0), {}) == Needs(after={}, is_resupply=False)


@pytest.mark.parametrize("is_asked_by_the_site", [True, False])
def test_a_site_that_has_sent_less_than_arrived_is_an_old_copy(is_asked_by_the_site: bool) -> None:
    sides = (site(1, 2), hub(1, 2, 3))
    mine, theirs = sides if is_asked_by_the_site else reversed(sides)
    found = compute_needs(mine, theirs, {})
    assert isinstance(found, Fence)
    assert (found.site, found.reason) == ("north", Reason.REWOUND)
    assert "hq has 3 events of tier 1 from it, and it knows of 2" in found.detail


@pytest.mark.parametrize("is_asked_by_the_site", [True, False])
def test_a_hub_that_has_less_than_it_acknowledged_is_an_old_copy(is_asked_by_the_site: bool) -> None:
    sides = (site(1, 2, 3, acknowledged=(1, 2, 3)), hub(1))
    mine, theirs = sides if is_asked_by_the_site else reversed(sides)
    found = compute_needs(mine, theirs, {})
    assert isinstance(found, Fence)
    assert (found.site, found.reason) == ("hq", Reason.REWOUND)


def test_a_hub_that_was_restored_is_sent_again_what_it_lost() -> None:
    needs = compute_needs(site(1, 2, 3, acknowledged=(1, 2, 3)), hub(1, epoch=2), chains((1, 2, 3), 1))
    assert needs == Needs(after={1: mark(1)}, is_resupply=True)


def test_a_sequence_used_twice_is_found_at_its_end_and_inside() -> None:
    at_the_end = compute_needs(site(1, 2), hub(1, 9), {})
    inside = compute_needs(site(1, 2, 3), hub(1, 9), chains((1, 2, 3), 2))
    for found in (at_the_end, inside):
        assert isinstance(found, Fence)
        assert (found.site, found.reason) == ("north", Reason.FORKED)


def test_a_life_that_ended_is_refused_from_both_sides() -> None:
    old, knows_better = site(1, 2), hub(5, site_epoch=2)
    for found in (compute_needs(old, knows_better, {}), compute_needs(knows_better, old, {})):
        assert isinstance(found, Fence)
        assert (found.site, found.reason) == ("north", Reason.ENDED)


def test_a_new_life_of_a_site_begins_its_streams_anew() -> None:
    needs = compute_needs(site(7, 8, epoch=2), hub(1, 2, 3, site_epoch=1), {})
    assert needs == Needs(after={1: BEGINNING}, is_resupply=False)


# --- one frame ----------------------------------------------------------------------------------------------------


def items(*numbers: int) -> list[tuple[EventId, bytes]]:
    return [an_event(number) for number in numbers]


def test_a_frame_that_follows_is_new_and_one_sent_again_is_known() -> None:
    assert fit(mark(1, 2), mark(1, 2), items(3, 4)) == 0
    assert fit(mark(1, 2, 3, 4), mark(1, 2), items(3, 4)) == 2
    assert fit(mark(1, 2, 3), mark(1, 2), items(3, 4)) == 1
    assert fit(mark(1, 2), mark(1, 2), []) == 0


def test_a_frame_that_leaves_a_gap_or_tells_another_story_is_refused() -> None:
    assert fit(mark(1), mark(1, 2), items(3)) is Reason.GAP
    assert fit(mark(1, 2, 3, 4), mark(1), items(2)) is Reason.GAP
    assert fit(mark(1, 2, 3), mark(1, 2), items(9, 4)) is Reason.FORKED
    assert fit(mark(1, 9), mark(1, 2), items(3)) is Reason.FORKED
    assert fit(mark(1, 2, 3), mark(1, 2), items(9)) is Reason.FORKED


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_whatever_is_sent_again_is_taken_in_once(received: int, start: int, length: int) -> None:
    story = list(range(1, 30))
    known = fit(mark(*story[:received]), mark(*story[:start]), items(*story[start : start + length]))
    if start <= received <= start + length:
        assert known == received - start
    else:
        assert known is Reason.GAP


# --- the nonce ----------------------------------------------------------------------------------------------------

ISSUED, BEFORE = Nonce(17, "b"), Nonce(16, "a")


@pytest.mark.parametrize(
    ("given_nonce", "attempt", "expected"),
    [
        (ISSUED, "new", Presented.CURRENT),
        (BEFORE, "used", Presented.AGAIN),
        (BEFORE, "other", Presented.FOREIGN),
        (Nonce(15, "z"), "used", Presented.FOREIGN),
        (Nonce(17, "other"), "new", Presented.FOREIGN),
        (Nonce(16, "other"), "used", Presented.FOREIGN),
        (Nonce(18, "c"), "new", Presented.AHEAD),
    ],
)
def test_a_nonce_says_who_comes(given_nonce: Nonce, attempt: str, expected: Presented) -> None:
    assert judge_nonce(given_nonce, attempt, issued=ISSUED, before=BEFORE, attempt_before="used") is expected


class Issuer:
    """The hub's side of the nonces."""

    def __init__(self) -> None:
        self.issued = ISSUED
        self.before: Nonce | None = None
        self.attempt = ""
        self.fenced: list[Presented] = []

    def exchange(self, store: Store) -> Nonce:
        said = judge_nonce(
            store.nonce, store.attempt, issued=self.issued, before=self.before, attempt_before=self.attempt
        )
        if said is Presented.CURRENT:
            self.before, self.attempt, self.issued = (
                store.nonce,
                store.attempt,
                store.nonce.next(f"s{store.nonce.count}"),
            )
        elif said is not Presented.AGAIN:
            self.fenced.append(said)
        return self.issued


@dataclass
class Store:
    """The site's side: what it stored with its last reply."""

    name: str
    nonce: Nonce = ISSUED
    attempt: str = "first"
    replies: int = 0

    def exchange(self, issuer: Issuer, *, is_lost: bool = False) -> None:
        reply = issuer.exchange(self)
        if not is_lost:
            self.replies += 1
            self.nonce, self.attempt = reply, f"{self.name} {self.replies}"


@given(st.lists(st.booleans(), max_size=30))
def test_lost_replies_never_fence(losses: list[bool]) -> None:
    issuer, store = Issuer(), Store("original")
    for is_lost in losses:
        store.exchange(issuer, is_lost=is_lost)
    assert issuer.fenced == []


@given(st.integers(0, 5), st.lists(st.sampled_from([0, 1]), min_size=1, max_size=20))
def test_of_two_stores_with_one_identity_one_is_found(before: int, turns: list[int]) -> None:
    issuer, original = Issuer(), Store("original")
    for _ in range(before):
        original.exchange(issuer)
    stores = (original, replace(original, name="clone"))
    for turn in turns:
        stores[turn].exchange(issuer)
    switches = sum(one != other for one, other in pairwise(turns))
    if switches == 0:
        assert issuer.fenced == []
    if switches >= 3:
        assert issuer.fenced != []


def test_an_idle_clone_is_found_at_its_first_exchange() -> None:
    issuer, original = Issuer(), Store("original")
    clone = replace(original, name="clone")
    original.exchange(issuer)
    original.exchange(issuer)
    clone.exchange(issuer)
    assert issuer.fenced == [Presented.FOREIGN]


@pytest.mark.parametrize("text", ["", "17", "17.", ".a", "x.a", "-1.a", "\u0661.a", "9" * 30 + ".a"])
def test_a_nonce_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match="the nonce cannot be read"):
        Nonce.parse(text)
    assert Nonce.parse(str(ISSUED)) == ISSUED
