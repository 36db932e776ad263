"""What two agents say to each other, and what an older or a newer one makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sync.frames import Frame, Segment, decode, encode
from agent.sync.needs import Fence, Needs, Reason, Standing, compute_needs
from agent.sync.wire import (
    LONGEST_PAUSE,
    OLDEST,
    REFUSAL_BYTES,
    VERSION,
    Head,
    Hello,
    Pull,
    PullReply,
    Push,
    PushReply,
    Refusal,
    Welcome,
    agree,
    read,
)
from state.model.errors import (
    DeniedError,
    DistctlError,
    FencedError,
    NotConnectedError,
    RejectedError,
    StoreError,
    TransientError,
)
from state.model.event import Event
from state.model.ids import EstateHash
from state.model.stream import BEGINNING, Mark, Nonce
from tests.model.test_event import EVENT

ESTATE = EstateHash("e" * 32)
NONCE = Nonce(17, "9f2c")
SITE = Standing(
    site="dc-north",
    epoch=2,
    sent={1: Mark(7, b"\1" * 32), 3: Mark(90, b"\2" * 32)},
    acknowledged={1: Mark(5, b"\3" * 32)},
    peer_epoch=4,
    received={2: Mark(11, b"\4" * 32)},
)
HUB = Standing(site="hq", epoch=4, sent={2: Mark(11, b"\4" * 32)}, peer_epoch=2, received={1: Mark(7, b"\1" * 32)})

HELLO = Hello.of(
    SITE,
    version=VERSION,
    software="0.1.0",
    estate=ESTATE,
    nonce=NONCE,
    health={"disk": {"free": 1}, "clock": None, "queues": [1.5]},
)
WELCOME = Welcome.of(HUB, version=VERSION, time=datetime(2026, 3, 2, 12, tzinfo=UTC), nonce=NONCE, begin_epoch=3)
HEADS: list[Head] = [
    HELLO,
    WELCOME,
    Push(version=VERSION, epoch=2, peer_epoch=4, nonce=NONCE),
    PushReply(version=VERSION, epoch=4, peer_epoch=2, received={1: BEGINNING}, wanted=[ESTATE]),
    Pull(
        version=VERSION, epoch=2, nonce=NONCE, attempt="a1", received={3: BEGINNING}, wanted=[ESTATE], wait_seconds=9.5
    ),
    PullReply(version=VERSION, epoch=4, nonce=Nonce(18, "aa"), received={1: BEGINNING}),
]
each_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)

marks = st.builds(Mark, st.integers(0, 10**18 - 1), st.binary(min_size=32, max_size=32))
by_tier = st.dictionaries(st.integers(1, 3), marks)
standings = st.builds(
    Standing,
    site=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?", fullmatch=True),
    epoch=st.integers(1, 2**63 - 1),
    sent=by_tier,
    acknowledged=by_tier,
    peer_epoch=st.integers(0, 2**63 - 1),
    received=by_tier,
)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


def travelled(head: Mapping[str, Any]) -> Mapping[str, Any]:
    """The head as the other side has it."""
    return decode(encode(Frame(head=head))).head


def refusal_to_read(kind: type[Head], head: Mapping[str, Any]) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        read(kind, head)
    assert caught.value.hint
    return caught.value


# --- there and back -----------------------------------------------------------------------------------------------


@each_head
def test_a_head_comes_back_as_it_went(head: Head) -> None:
    assert read(type(head), travelled(head.to_head())) == head


@given(standing=standings, health=st.dictionaries(st.text(st.characters(codec="utf-8")), json, max_size=3))
def test_a_standing_comes_back_as_it_went(standing: Standing, health: dict[str, Any]) -> None:
    hello = read(Hello, travelled(Hello.of(standing, version=VERSION, health=health).to_head()))
    welcome = read(Welcome, travelled(Welcome.of(standing, version=VERSION, time=WELCOME.time).to_head()))
    assert hello.standing() == welcome.standing() == standing
    assert hello.health == health


def test_what_was_said_is_enough_to_know_what_is_needed() -> None:
    hub = read(Welcome, travelled(WELCOME.to_head())).standing()
    site = read(Hello, travelled(HELLO.to_head())).standing()
    needs = compute_needs(site, hub, {1: b"\1" * 32})
    assert needs == Needs(after={1: Mark(7, b"\1" * 32), 3: BEGINNING}, is_resupply=False)


# --- an older and a newer agent -----------------------------------------------------------------------------------


def test_both_speak_the_lower_of_their_versions() -> None:
    assert agree(VERSION) == VERSION
    assert agree(VERSION + 1) == VERSION
    assert agree(1, ours=2, oldest=1) == 1
    assert agree(2, ours=1, oldest=1) == 1


def test_the_version_before_the_current_is_spoken_and_none_that_is_older() -> None:
    assert VERSION - 1 <= OLDEST <= VERSION
    with pytest.raises(RejectedError, match=r"version 1 of the exchange, and this one 2 to 3") as caught:
        agree(1, ours=3, oldest=2)
    assert "version 2 or later" in caught.value.hint


def test_an_agent_that_is_too_old_is_told_which_version_is_needed_before_anything_is_made_of_its_head() -> None:
    error = refusal_to_read(Hello, {"version": OLDEST - 1, "who": "dc-north"})
    refusal = Refusal.of_answer(426, Refusal.of(error).to_json())
    assert (refusal.code, refusal.status, refusal.needs_version) == ("version", 426, OLDEST)
    assert f"version {OLDEST} or later" in refusal.hint


@each_head
def test_what_a_newer_agent_says_beside_is_kept_and_passed_on(head: Head) -> None:
    newer = {**head.to_head(), "version": VERSION + 1, "shards": {"1": [None, True]}, "mood": None}
    heard = read(type(head), travelled(newer))
    assert heard.to_head() == newer
    assert agree(heard.version) == VERSION


def test_health_of_a_newer_agent_is_passed_on_as_it_came() -> None:
    health = {"power": {"watts": 41.5, "since": None}, "": [], "disk": {"free": {"bytes": 2**63}}}
    assert read(Hello, travelled({**HELLO.to_head(), "health": health})).to_head()["health"] == health


def test_the_events_of_a_newer_agent_keep_what_it_says_of_them() -> None:
    newer = replace(EVENT, extensions={"seal": "c0ffee", "rank": 3, "urgent": True, "size": 0})
    head = Push(version=VERSION + 1, epoch=2, nonce=NONCE).to_head() | {"shards": 2}
    frame = decode(encode(Frame(head=head, segments=[Segment(tier=1, after=BEGINNING, events=[newer])])))
    assert read(Push, frame.head).nonce == NONCE
    [event] = frame.segments[0].events
    assert isinstance(event, Event)
    onward = decode(encode(Frame(head={}, segments=[Segment(tier=2, after=BEGINNING, events=[event])])))
    [again] = onward.segments[0].events
    assert isinstance(again, Event)
    assert again.attributes() == newer.attributes()


@each_head
def test_what_an_older_agent_leaves_out_has_its_default(head: Head) -> None:
    optional = {name: field for name, field in type(head).model_fields.items() if not field.is_required()}
    assert optional
    older = {name: value for name, value in head.to_head().items() if name not in optional}
    heard = read(type(head), travelled(older))
    assert {name: getattr(heard, name) for name in optional} == {
        name: field.get_default(call_default_factory=True) for name, field in optional.items()
    }


# --- malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", None),
        ("version", "1"),
        ("version", True),
        ("version", 1.5),
        ("epoch", 0),
        ("epoch", True),
        ("epoch", 1.0),
        ("epoch", 2**63),
        ("peer_epoch", -1),
        ("site", ""),
        ("site", "dc north"),
        ("site", "../hq"),
        ("site", 7),
        ("software", "x" * 201),
        ("sent", []),
        ("sent", {"0": "1." + "0" * 64}),
        ("sent", {"4": "1." + "0" * 64}),
        ("sent", {"one": "1." + "0" * 64}),
        ("received", {"1": "1." + "0" * 63}),
        ("received", {"1": "-1." + "0" * 64}),
        ("received", {"1": {"seq": 1}}),
        ("acknowledged", {"1": None}),
        ("estate", "E" * 32),
        ("nonce", "17"),
        ("nonce", "x.y"),
        ("nonce", "1." + "a" * 65),
        ("nonce", "1.a\n"),
        ("nonce", "9" * 5_000 + ".a"),
        ("nonce", ["1.a"]),
        ("receipt", {"epoch": 1, "of": 0, "mark": "a" * 32}),
        ("receipt", {"epoch": 1, "of": 1, "received": {}, "mark": "A" * 32}),
        ("health", [1]),
        ("health", orjson.loads(b'{"a":' * 300 + b"1" + b"}" * 300)),
    ],
)
def test_a_malformed_hello_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    error = refusal_to_read(Hello, {**HELLO.to_head(), field: value})
    assert error.code == "malformed"
    assert error.place.startswith(field) or "nests too deeply" in error.message
    assert Refusal.of(error).status == 400


@each_head
def test_a_required_field_that_is_missing_is_named(head: Head) -> None:
    for name, field in type(head).model_fields.items():
        if field.is_required():
            said = {other: value for other, value in head.to_head().items() if other != name}
            assert refusal_to_read(type(head), said).place == name


@pytest.mark.parametrize("wait", [-1, 3601, "soon", None])
def test_nobody_makes_the_hub_wait_for_ever(wait: object) -> None:
    assert refusal_to_read(Pull, {**HEADS[4].to_head(), "wait_seconds": wait}).place == "wait_seconds"


def test_what_a_head_says_obeys_no_terminal() -> None:
    error = refusal_to_read(Hello, {**HELLO.to_head(), "sent": {"\x1b[2J" * 99: "\x1b]0;x\7"}})
    assert all(text.isprintable() for text in (error.message, error.place, error.shown))
    assert len(error.message) < 400


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_a_fence_comes_back_as_it_went(reason: Reason) -> None:
    fence = Fence("dc-north", reason, "it has 9 events of tier 1, and it knows of 7")
    refusal = Refusal.of_answer(409, Refusal.of_fence(fence, hint="`distctl agents adopt dc-north`").to_json())
    assert refusal.fence == fence
    assert refusal.status == 409
    error = refusal.error()
    assert isinstance(error, FencedError)
    assert error.code == f"fenced:{reason}"
    assert error.hint == "`distctl agents adopt dc-north`"


def test_a_fence_of_a_newer_agent_is_a_fence_without_a_reason_that_is_known_here() -> None:
    refusal = Refusal(title="t", status=409, detail="its seal is broken", code="fenced:unsealed")
    assert refusal.fence is None
    assert isinstance(refusal.error(), FencedError)


@pytest.mark.parametrize(
    ("error", "status", "comes_back"),
    [
        (DeniedError("its certificate was withdrawn", hint="ask the hub", code="denied"), 403, DeniedError),
        (RejectedError("the frame is malformed", code="malformed"), 400, RejectedError),
        (RejectedError("the frame is too large", code="too-large"), 413, RejectedError),
        (RejectedError("version 1 is spoken no more", code="version"), 426, RejectedError),
        (TransientError("200 sites come at once", retry_after=timedelta(seconds=7)), 503, TransientError),
        (StoreError("the disk is full", code="disk-full"), 503, TransientError),
    ],
)
def test_an_error_means_the_same_at_the_other_side(
    error: DistctlError, status: int, comes_back: type[DistctlError]
) -> None:
    refusal = Refusal.of(error)
    assert refusal.status == status
    again = Refusal.of_answer(status, refusal.to_json()).error()
    assert type(again) is comes_back
    assert (again.message, again.hint, again.code) == (error.message, error.hint, error.code)


def test_a_pause_that_is_asked_for_is_kept_and_never_longer_than_an_hour() -> None:
    for asked, kept in ((7.5, timedelta(seconds=7.5)), (10**9, LONGEST_PAUSE), (float("inf"), LONGEST_PAUSE)):
        error = Refusal(title="busy", status=503, detail="later", code="busy", retry_after=asked).error()
        assert isinstance(error, TransientError)
        assert error.retry_after == kept


@pytest.mark.parametrize(
    ("error", "code", "comes_back"),
    [
        (DeniedError("it expired", code="certificate-expired"), "denied:certificate-expired", DeniedError),
        (FencedError("a later epoch began", code="epoch"), "fenced:epoch", FencedError),
        (RejectedError("the nonce cannot be read", code="nonce"), "malformed:nonce", RejectedError),
    ],
)
def test_an_error_with_a_code_of_its_own_keeps_it_behind_what_is_to_be_made_of_it(
    error: DistctlError, code: str, comes_back: type[DistctlError]
) -> None:
    refusal = Refusal.of(error)
    assert refusal.code == code
    assert type(refusal.error()) is comes_back


def test_a_hub_that_is_not_there_yet_says_when_to_try_again() -> None:
    refusal = Refusal.of(NotConnectedError("it starts", retry_after=timedelta(minutes=2)))
    assert refusal.retry_after == 120


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><h1>502 Bad Gateway</h1></html>",
        b"{}",
        b"[]",
        b"\xff",
        b'{"title":"t","status":1e400,"detail":"d","code":"c"}',
        b'{"title":"t","status":500,"detail":"d","code":"c","retry_after":-1}',
        b'{"title":"t","status":500,"detail":"d","code":"c","retry_after":NaN}',
        b"[" * 100_000,
        b'{"title":"' + b"x" * REFUSAL_BYTES + b'","status":500,"detail":"d","code":"c"}',
    ],
)
def test_an_answer_that_explains_nothing_may_go_over(body: bytes) -> None:
    refusal = Refusal.of_answer(502, body)
    assert "502" in refusal.detail
    assert isinstance(refusal.error(), TransientError)


def test_what_a_refusal_says_obeys_no_terminal() -> None:
    refusal = Refusal(title="t", status=503, detail="\x1b[2J" * 999, code="\x1b]0;x", hint="\u202e")
    error = refusal.error()
    assert str(error).isprintable()
    assert error.code.isprintable()
    assert len(str(error)) < 1_100


def test_a_newer_refusal_keeps_what_it_says_beside() -> None:
    body = orjson.dumps({"title": "t", "status": 403, "detail": "d", "code": "denied", "until": "2026-03-02"})
    assert orjson.loads(Refusal.of_answer(403, body).to_json())["until"] == "2026-03-02"
