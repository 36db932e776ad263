"""What the http sink says when the partner misbehaves; the partner's ledger is the judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.base import Found, NotFound, Outcome
from connectors.hostile import (
    Behaviour,
    HostilePartner,
    accepts_but_answers,
    accepts_then_says_nothing,
    answers,
    closes_unread,
    endless_body,
    endless_head,
    gzip_bomb,
    hang_up,
    is_half_open,
    lands_late,
    promises,
    refuses,
    reset,
    response,
    sends_then_closes,
    sends_then_resets,
    silence,
    trickles,
)
from connectors.http.settings import HttpSinkSettings
from connectors.http.sink import HttpSink
from connectors.testing import deliver, make_parcel, surroundings
from state.model.delivery import Doubt, OutcomeKind, TargetMemory, Verdict, denial_counts, judge
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)

DEADLINE = timedelta(seconds=2)  # ample: a success must not depend on how busy the machine is
SHORT = timedelta(milliseconds=300)  # for calls that end by it
PO = make_parcel("PO-1")


@pytest.fixture
async def partner() -> AsyncIterator[HostilePartner]:
    async with HostilePartner() as running:
        yield running


def sink_on(
    partner: HostilePartner, *, deadline: timedelta = DEADLINE, home: Path = Path(), **settings_: Any
) -> HttpSink:
    wanted = {"base_url": partner.url, "path": "/orders", "probe": {"path": "/by-key/{key}"}, **settings_}
    return HttpSink(HttpSinkSettings.model_validate(wanted), surroundings(home, deadline=deadline))


async def meets(partner: HostilePartner, behaviour: Behaviour, **settings_: Any) -> Outcome | DistctlError:
    """What the sink says of one delivery that meets the behaviour."""
    partner.script("POST", behaviour)
    sink = sink_on(partner, **settings_)
    try:
        [answer] = await deliver(sink, PO)
        return answer
    finally:
        await sink.close()


WHOLE = response(201, {"id": "PO-1"})
LOSSES = {
    "silence": silence,
    "a reset": reset,
    "an orderly close": hang_up,
    "a reset inside the head": sends_then_resets(WHOLE[:20]),
    "a reset inside the body": sends_then_resets(WHOLE[:-4]),
    "a close inside the head": sends_then_closes(WHOLE[:20]),
    "a body shorter than its length": sends_then_closes(WHOLE[:-4]),
    "a head that trickles": trickles(WHOLE),
    "a body that trickles": trickles(response(200, b" " * 500), every=0.01),
    "a body without end": endless_body,
    "a head without end": endless_head,
    "a gzip bomb": gzip_bomb(64 * 1024 * 1024),
    "broken compression": answers(200, b"\x1f\x8b\x08nonsense", content_encoding="gzip"),
    "compression cut short": answers(200, b"\x1f\x8b\x08\x00\x00\x00\x00\x00", content_encoding="gzip"),
    "compression nobody asked for": answers(200, b"{}", content_encoding="br"),
    "no HTTP at all": sends_then_closes(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "raw bytes": sends_then_closes(bytes(range(256))),
    "two lengths": sends_then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "a negative length": sends_then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n"),
    "chunks without end mark": sends_then_closes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "an answer over the limit": answers(200, b" " * 5000),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lands", [True, False], ids=["landed", "not landed"])
async def test_a_call_without_a_whole_answer_is_in_doubt(partner: HostilePartner, loss: str, lands: bool) -> None:
    behaviour = Behaviour(name=loss, lands_after=0.0 if lands else None, reply=LOSSES[loss])
    started = time.monotonic()
    answer = await meets(partner, behaviour, byte_limit=4096, deadline=SHORT)
    assert isinstance(answer, InDoubtError), answer
    assert time.monotonic() - started < 2
    assert partner.effects(PO.idempotency_key) == lands


async def test_a_connection_closed_before_the_request_was_read_is_in_doubt(partner: HostilePartner) -> None:
    assert isinstance(await meets(partner, closes_unread()), InDoubtError)


async def test_a_stale_connection_that_the_server_resets_is_in_doubt_and_not_sent_twice(
    partner: HostilePartner,
) -> None:
    sink = sink_on(partner)
    await deliver(sink, make_parcel("PO-0"))
    partner.script("POST", Behaviour(name="takes it and resets", reply=reset))
    [answer] = await deliver(sink, PO)
    assert isinstance(answer, InDoubtError)
    assert [request.method for request in partner.requests] == ["POST", "POST"]
    await sink.close()


async def test_a_bomb_never_takes_the_memory_it_asks_for(partner: HostilePartner) -> None:
    """The limit holds while a piece inflates, not only after it."""
    import tracemalloc

    partner.script("POST", Behaviour(name="bomb", reply=gzip_bomb(256 * 1024 * 1024)))
    sink = sink_on(partner, byte_limit=65_536, deadline=timedelta(seconds=5))
    tracemalloc.start()
    await deliver(sink, PO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 1024 * 1024
    await sink.close()


async def test_a_slow_partner_holds_up_nobody_else(partner: HostilePartner) -> None:
    async with HostilePartner() as good:
        slow, quick = sink_on(partner, deadline=timedelta(seconds=1)), sink_on(good)
        partner.script("POST", *(is_half_open() for _ in range(8)))
        hanging = [asyncio.create_task(deliver(slow, make_parcel(f"PO-{number}"))) for number in range(8)]
        [answer] = await deliver(quick, PO)
        assert isinstance(answer, Outcome)
        assert not any(task.done() for task in hanging)
        await asyncio.gather(*hanging)
        await slow.close()
        await quick.close()


# --- nothing was sent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:9", "http://no-such-host.invalid", "http://[::1]:9", "https://127.0.0.1:9"],
    ids=["refused", "no name", "refused on IPv6", "refused for TLS"],
)
async def test_a_host_that_cannot_be_reached_is_not_connected(partner: HostilePartner, base_url: str) -> None:
    answer = await meets(partner, is_half_open(), base_url=base_url, deadline=timedelta(seconds=3))
    assert isinstance(answer, NotConnectedError)
    assert answer.code == "unreachable"
    assert partner.requests == []


async def test_a_server_without_tls_behind_https_is_not_connected(partner: HostilePartner) -> None:
    url = partner.url.replace("http:", "https:")
    assert isinstance(await meets(partner, is_half_open(), base_url=url, deadline=SHORT), NotConnectedError)
    assert partner.ledger == []


async def test_after_an_unreachable_first_nothing_more_is_tried(partner: HostilePartner) -> None:
    sink = sink_on(partner)
    await partner.stop()
    started = time.monotonic()
    answers_ = await deliver(sink, *(make_parcel(f"PO-{number}") for number in range(100)))
    assert {type(answer) for answer in answers_} == {NotConnectedError}
    assert time.monotonic() - started < 1
    await sink.close()


async def test_a_partner_that_comes_back_is_served_again_by_the_same_sink(partner: HostilePartner) -> None:
    sink = sink_on(partner)
    await deliver(sink, make_parcel("PO-0"))
    await partner.stop()
    [refused] = await deliver(sink, PO)
    await partner.start()
    [taken] = await deliver(sink, PO)
    assert isinstance(refused, NotConnectedError | InDoubtError)
    assert isinstance(taken, Outcome)
    assert partner.effects(PO.idempotency_key) == 1
    await sink.close()


# --- status codes -----------------------------------------------------------------------------------------------------

CLASSES: dict[type, tuple[int, ...]] = {
    RejectedError: (400, 402, 404, 405, 406, 410, 411, 412, 413, 414, 415, 417, 422, 428, 451),
    NotConnectedError: (301, 307, 308, 401, 403, 407, 408, 425, 429, 503),
    TransientError: (421, 423, 424),
    InDoubtError: (207, 300, 302, 303, 304, 500, 501, 502, 504, 505, 507, 520, 599, 666, 999),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, many in CLASSES.items() for status in many])
async def test_each_status_has_its_class(partner: HostilePartner, kind: type, status: int) -> None:
    answer = await meets(partner, refuses(status))
    assert type(answer) is kind


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_a_plain_success_is_accepted(partner: HostilePartner, status: int) -> None:
    answer = await meets(partner, accepts_but_answers(status, b"" if status == 204 else {"id": "4711"}))
    assert isinstance(answer, Outcome)
    assert answer.kind is OutcomeKind.ACCEPTED
    assert answer.reference == ("" if status == 204 else "4711")


async def test_a_server_error_after_acceptance_is_in_doubt_and_the_resend_has_one_effect(
    partner: HostilePartner,
) -> None:
    partner.script("POST", accepts_but_answers(500))
    sink = sink_on(partner)
    [first] = await deliver(sink, PO)
    [second] = await deliver(sink, make_parcel("PO-1", is_resend=True))
    assert isinstance(first, InDoubtError)
    assert isinstance(second, Outcome)
    assert second.duplicate, "the partner said that it replays its answer"
    assert partner.effects(PO.idempotency_key) == 1
    await sink.close()


async def test_a_target_without_memory_doubles_a_blind_resend_which_is_why_it_is_asked_first() -> None:
    async with HostilePartner(remembers_keys=False) as forgetful:
        sink = sink_on(forgetful)
        await deliver(sink, PO)
        await deliver(sink, make_parcel("PO-1", is_resend=True))
        assert forgetful.doubled() == [PO.idempotency_key]
        await sink.close()


async def test_server_errors_are_transient_where_the_settings_vouch_for_it(partner: HostilePartner) -> None:
    answer = await meets(partner, refuses(502), server_errors="transient")
    assert isinstance(answer, TransientError)


NOW = datetime.now(UTC)
PAUSES = {
    "seconds": ("7", timedelta(seconds=7), timedelta(seconds=7)),
    "zero": ("0", timedelta(0), timedelta(0)),
    "negative": ("-5", timedelta(0), timedelta(0)),
    "absurd": ("1000000000", timedelta(hours=1), timedelta(hours=1)),
    "beyond all numbers": ("9" * 6000, timedelta(hours=1), timedelta(hours=1)),
    "a date": (format_datetime(NOW + timedelta(minutes=50), usegmt=True), timedelta(minutes=20), timedelta(minutes=50)),
    "a date gone by": ("Sun, 06 Nov 1994 08:49:37 GMT", timedelta(0), timedelta(0)),
    "a date in 9999": ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(hours=1), timedelta(hours=1)),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wish", PAUSES)
async def test_a_pause_that_the_server_asks_for_is_honoured_up_to_an_hour(
    partner: HostilePartner, status: int, wish: str
) -> None:
    header, least, most = PAUSES[wish]
    answer = await meets(partner, refuses(status, retry_after=header))
    assert isinstance(answer, NotConnectedError)
    assert answer.retry_after is not None
    assert least <= answer.retry_after <= most


@pytest.mark.parametrize("wish", ["", "soon", "1.5.2", "٣", "Mon, 99 Foo 2026"])
async def test_a_pause_that_says_nothing_readable_is_none(partner: HostilePartner, wish: str) -> None:
    raw = response(429, b"").replace(b"content-type:", b"retry-after: " + wish.encode() + b"\r\ncontent-type:")
    answer = await meets(partner, Behaviour(name="odd", lands_after=None, reply=sends_then_closes(raw)))
    assert isinstance(answer, NotConnectedError)
    assert answer.retry_after is None


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "unix:/run/docker.sock", "//evil", ""]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_wherever_it_leads(partner: HostilePartner, status: int, location: str) -> None:
    answer = await meets(partner, refuses(status, location=location))
    assert isinstance(answer, NotConnectedError | InDoubtError)
    assert len(partner.requests) == 1


async def test_wrong_credentials_park_nothing_and_say_what_to_correct(partner: HostilePartner) -> None:
    answer = await meets(partner, refuses(401, {"detail": "token expired"}))
    assert isinstance(answer, NotConnectedError)
    assert "token expired" in answer.message
    assert "auth" in answer.hint


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_a_conflict_that_names_our_key_is_a_duplicate(partner: HostilePartner) -> None:
    answer = await meets(partner, accepts_but_answers(409, {"key": PO.idempotency_key, "id": "PO-7"}))
    assert isinstance(answer, DuplicateError)
    assert answer.reference == "PO-7"


async def test_a_conflict_that_names_no_key_is_a_duplicate_where_the_target_has_it(partner: HostilePartner) -> None:
    assert isinstance(await meets(partner, accepts_but_answers(409)), DuplicateError)


async def test_a_conflict_with_somebody_elses_order_is_rejected_and_never_settled(partner: HostilePartner) -> None:
    answer = await meets(partner, refuses(409, {"detail": "PO-1 exists with other lines"}))
    assert isinstance(answer, RejectedError)
    assert "other lines" in answer.shown


async def test_a_conflict_where_only_the_business_key_can_be_asked_for_is_never_settled_by_it(
    partner: HostilePartner,
) -> None:
    """Another version, or another's order of that number, would look like ours."""
    by_subject = {"path": "/orders?subject={subject}", "records": "/items", "match": {"/order/subject": "{subject}"}}
    sink = sink_on(partner, probe=by_subject)
    await deliver(sink, make_parcel("PO-1", version=7))
    partner.script("POST", refuses(409), refuses(409))
    [first] = await deliver(sink, PO)
    [second] = await deliver(sink, make_parcel("PO-1", is_resend=True))
    assert (type(first), type(second)) == (RejectedError, InDoubtError)
    await sink.close()


async def test_a_conflict_with_our_own_call_that_still_runs_is_in_doubt(partner: HostilePartner) -> None:
    partner.script("POST", refuses(409, {"detail": "a request with this key is being processed"}))
    sink = sink_on(partner)
    [answer] = await deliver(sink, make_parcel("PO-1", is_resend=True))
    assert isinstance(answer, InDoubtError)
    await sink.close()


async def test_a_conflict_is_in_doubt_where_the_target_cannot_be_asked_now(partner: HostilePartner) -> None:
    partner.script("GET", refuses(500))
    assert isinstance(await meets(partner, refuses(409)), InDoubtError)


@pytest.mark.parametrize(
    ("is_resend", "kind"), [(True, DuplicateError), (False, RejectedError)], ids=["resend", "first sending"]
)
async def test_a_conflict_at_a_target_that_cannot_be_asked_is_ours_only_when_sent_before(
    partner: HostilePartner, is_resend: bool, kind: type
) -> None:
    partner.script("POST", refuses(409))
    sink = sink_on(partner, probe=None)
    [answer] = await deliver(sink, make_parcel("PO-1", is_resend=is_resend))
    assert isinstance(answer, kind)
    await sink.close()


@pytest.mark.parametrize(
    ("conflict", "kind"), [("duplicate", DuplicateError), ("rejected", RejectedError), ("in_doubt", InDoubtError)]
)
async def test_the_settings_say_what_a_conflict_is(partner: HostilePartner, conflict: str, kind: type) -> None:
    assert isinstance(await meets(partner, refuses(409), conflict=conflict), kind)


# --- answers with an error inside -------------------------------------------------------------------------------------

TRYTON: list[dict[str, Any]] = [
    {
        "when": {"status": 200, "pointer": "/error/0", "equals": "UserError"},
        "outcome": "rejected",
        "message": "/error/1/0",
        "hint": "correct it in the planner",
    },
    {"when": {"status": 200, "pointer": "/error/0", "matches": "*concurrency*"}, "outcome": "transient"},
    {"when": {"status": 200, "pointer": "/error/0", "equals": "LoginException"}, "outcome": "not_connected"},
    {"when": {"status": 200, "pointer": "/error", "exists": True}, "outcome": "in_doubt"},
    {"when": {"status": 200, "pointer": "/changed", "equals": True}, "outcome": "modified", "message": "/note"},
]
INSIDE: dict[str, tuple[dict[str, Any], type, OutcomeKind | None]] = {
    "a user error": ({"error": ["UserError", ["unknown supplier", ""]]}, RejectedError, None),
    "a concurrency error": ({"error": ["ConcurrencyException", []]}, TransientError, None),
    "a session that ended": ({"error": ["LoginException", []]}, NotConnectedError, None),
    "an error nobody mapped": ({"error": ["KeyError", []]}, InDoubtError, None),
    "a change": ({"changed": True, "note": "rounded up", "id": 5}, Outcome, OutcomeKind.MODIFIED),
    "an error that is null": ({"error": None, "id": 5}, Outcome, OutcomeKind.ACCEPTED),
    "a true that is a 1": ({"changed": 1, "id": 5}, Outcome, OutcomeKind.ACCEPTED),
}


@pytest.mark.parametrize("case", INSIDE)
async def test_a_server_that_answers_200_to_everything_is_read_by_the_outcome_map(
    partner: HostilePartner, case: str
) -> None:
    body, kind, outcome = INSIDE[case]
    lands = kind in (Outcome, InDoubtError)
    behaviour = accepts_but_answers(200, body) if lands else refuses(200, body)
    answer = await meets(partner, behaviour, rules=TRYTON)
    assert type(answer) is kind
    if isinstance(answer, Outcome):
        assert (answer.kind, answer.reference) == (outcome, "5")


async def test_a_mapped_rejection_carries_the_servers_words_and_our_hint(partner: HostilePartner) -> None:
    answer = await meets(partner, refuses(200, INSIDE["a user error"][0]), rules=TRYTON)
    assert isinstance(answer, RejectedError)
    assert (answer.shown, answer.hint) == ("unknown supplier", "correct it in the planner")


@pytest.mark.parametrize("body", [b"", b"{", b"<html>it works</html>", b"\xff\xfe", b"[" * 100_000, b"NaN"])
async def test_a_success_that_the_outcome_map_cannot_read_is_in_doubt(partner: HostilePartner, body: bytes) -> None:
    assert isinstance(await meets(partner, accepts_but_answers(200, body), rules=TRYTON), InDoubtError)


async def test_a_plain_text_answer_can_be_mapped_by_a_pattern(partner: HostilePartner) -> None:
    rules = [{"when": {"status": 200, "matches": "err *"}, "outcome": "rejected"}]
    answer = await meets(partner, refuses(200, b"ERR 23 [unknown item]"), rules=rules)
    assert isinstance(answer, RejectedError)
    assert "ERR 23 [unknown item]" in answer.message


async def test_a_pattern_against_an_evil_text_ends_at_once(partner: HostilePartner) -> None:
    rules = [{"when": {"status": 200, "matches": "*a*a*a*a*a*a*a*a*a*b"}, "outcome": "rejected"}]
    started = time.monotonic()
    await meets(partner, accepts_but_answers(200, b"a" * 20_000), rules=rules, deadline=timedelta(seconds=9))
    assert time.monotonic() - started < 1


async def test_a_huge_error_with_control_characters_is_cut_and_made_visible(partner: HostilePartner) -> None:
    evil = "\x1b]0;owned\x07\u202e" + "x" * 100_000
    answer = await meets(partner, refuses(422, {"detail": evil}))
    assert isinstance(answer, RejectedError)
    assert len(str(answer)) < 600
    assert "\x1b" not in str(answer)
    assert "\u202e" not in str(answer)


async def test_the_answer_is_kept_cut_to_a_few_kilobytes(partner: HostilePartner) -> None:
    answer = await meets(partner, accepts_but_answers(200, {"id": "7", "more": "x" * 50_000}))
    assert isinstance(answer, Outcome)
    assert len(answer.document) == 4096
    assert answer.document.startswith(b'{"id"')


async def test_our_own_secret_is_blotted_out_of_what_the_server_repeats(
    partner: HostilePartner, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cr3t-t0ken\n")
    auth = {"kind": "bearer", "token": "file:token"}
    refused = await meets(partner, refuses(422, {"detail": "bad s3cr3t-t0ken"}), auth=auth, home=tmp_path)
    taken = await meets(partner, accepts_but_answers(200, {"id": "s3cr3t-t0ken"}), auth=auth, home=tmp_path)
    assert isinstance(refused, RejectedError)
    assert isinstance(taken, Outcome)
    assert partner.requests[0].headers["authorization"] == "Bearer s3cr3t-t0ken"
    assert "s3cr3t" not in f"{refused} {refused.shown} {taken.reference} {taken.document!r}"


# --- delayed, and asked -----------------------------------------------------------------------------------------------


async def test_an_accepted_202_is_delayed_until_the_probe_finds_it(partner: HostilePartner) -> None:
    partner.script("POST", promises(0.15, retry_after="3"))
    sink = sink_on(partner)
    [answer] = await deliver(sink, PO)
    assert isinstance(answer, Outcome)
    assert (answer.kind, answer.ask_again_in) == (OutcomeKind.DELAYED, timedelta(seconds=3))
    assert isinstance(await sink.probe(PO), NotFound)
    await asyncio.sleep(0.25)
    found = await sink.probe(PO)
    assert isinstance(found, Found)
    assert found.outcome.kind is OutcomeKind.ACCEPTED
    await sink.close()


PROBE_RULES = [
    {"when": {"pointer": "/state", "equals": "pending"}, "outcome": "delayed"},
    {"when": {"pointer": "/state", "equals": "refused"}, "outcome": "rejected", "message": "/why"},
    {"when": {"pointer": "/state", "equals": "unknown"}, "outcome": "in_doubt"},
]


@pytest.mark.parametrize(
    ("state", "kind"),
    [("pending", OutcomeKind.DELAYED), ("refused", OutcomeKind.REJECTED), ("ok", OutcomeKind.ACCEPTED)],
)
async def test_what_a_probe_finds_is_read_by_its_own_rules(
    partner: HostilePartner, state: str, kind: OutcomeKind
) -> None:
    partner.script("GET", refuses(200, {"id": "PO-9", "state": state, "why": "no such item"}))
    sink = sink_on(partner, probe={"path": "/by-key/{key}", "rules": PROBE_RULES})
    found = await sink.probe(PO)
    assert isinstance(found, Found)
    assert found.outcome.kind is kind
    await sink.close()


BY_SEARCH = {"path": "/orders?key={key}", "records": "/items", "match": {"/key": "{key}"}}
DENIALS_THAT_ARE_NONE = {
    "a search whose address is wrong": refuses(404),
    "a server error": refuses(500),
    "a refusal of our credentials": refuses(401),
    "a pause": refuses(429),
    "a redirect": refuses(302, location="/login"),
    "a login page": refuses(200, b"<html>log in</html>"),
    "another shape": refuses(200, {"rows": []}),
    "a broken body": Behaviour(name="cut", reply=sends_then_closes(WHOLE[:-4])),
    "silence": is_half_open(),
}


@pytest.mark.parametrize("case", DENIALS_THAT_ARE_NONE)
async def test_only_an_answer_to_the_question_is_a_denial(partner: HostilePartner, case: str) -> None:
    partner.script("GET", DENIALS_THAT_ARE_NONE[case])
    sink = sink_on(partner, probe=BY_SEARCH, deadline=SHORT if case == "silence" else DEADLINE)
    with pytest.raises((NotConnectedError, TransientError)) as raised:
        await sink.probe(PO)
    assert raised.value.hint
    await sink.close()


async def test_a_search_that_returns_everything_finds_only_what_is_ours(partner: HostilePartner) -> None:
    """A server that does not know the parameter leaves it out; without the match all would look found."""
    sink = sink_on(partner, probe={"path": "/orders?nonsense={key}", "records": "/items", "match": {"/key": "{key}"}})
    await deliver(sink, make_parcel("PO-2"))
    assert isinstance(await sink.probe(PO), NotFound)
    await deliver(sink, PO)
    assert isinstance(await sink.probe(PO), Found)
    await sink.close()


async def test_a_probe_that_finds_two_says_so(partner: HostilePartner) -> None:
    partner.remembers_keys = False
    sink = sink_on(partner, probe={"path": "/orders?key={key}", "records": "/items", "match": {"/key": "{key}"}})
    await deliver(sink, PO)
    await deliver(sink, PO)
    found = await sink.probe(PO)
    assert isinstance(found, Found)
    assert "2 records" in found.outcome.detail
    await sink.close()


async def test_a_call_that_lands_after_the_first_probe_is_found_by_the_one_that_counts(
    partner: HostilePartner,
) -> None:
    """The whole way of section 4.5 of the design: timed out, probed too early, waited, asked again, one effect."""
    partner.remembers_keys = False
    partner.script("POST", lands_late(0.5))
    memory = TargetMemory(lands_within=timedelta(milliseconds=700), can_probe=True)
    sink = sink_on(partner, deadline=SHORT)
    sent_at = datetime.now(UTC)
    [answer] = await deliver(sink, PO)
    assert isinstance(answer, InDoubtError)

    asked_at = datetime.now(UTC)
    assert isinstance(await sink.probe(PO), NotFound), "it has not landed yet"
    doubt = Doubt(first_sent_at=sent_at, last_sent_at=asked_at)
    assert not denial_counts(doubt, memory, asked_at=asked_at), "so that this no does not count"
    verdict, due = judge(doubt, memory, now=asked_at, call_deadline=SHORT)
    assert verdict is Verdict.WAIT
    await asyncio.sleep((due - asked_at).total_seconds())
    assert isinstance(await sink.probe(PO), Found)
    assert partner.doubled() == []
    await sink.close()


# --- addresses and order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["a/../../admin", "a b", "%2e%2e", "x?y=1#z", "Ä\x00", "{key}", "a\r\nX-Evil: 1"])
async def test_a_business_key_cannot_leave_its_place_in_the_address(partner: HostilePartner, subject: str) -> None:
    sink = sink_on(partner, path="/po/{subject}", method="PUT")
    [answer] = await deliver(sink, make_parcel(subject))
    assert isinstance(answer, Outcome)
    assert partner.requests[0].path == f"/po/{subject}"
    assert partner.requests[0].target.count("/") == 2
    await sink.close()


@pytest.mark.parametrize("subject", ["", ".", ".."])
async def test_a_business_key_that_is_no_address_is_rejected_before_it_is_sent(
    partner: HostilePartner, subject: str
) -> None:
    sink = sink_on(partner, path="/po/{subject}")
    [answer] = await deliver(sink, make_parcel(subject))
    assert isinstance(answer, RejectedError)
    assert partner.requests == []
    await sink.close()


async def test_after_a_failure_later_ones_of_its_key_wait_and_others_go(partner: HostilePartner) -> None:
    partner.script("POST", refuses(422))
    sink = sink_on(partner)
    parcels = [make_parcel(f"PO-{number}", partition_key="ab"[number % 2]) for number in range(4)]
    kinds = [type(answer) for answer in await deliver(sink, *parcels)]
    assert kinds == [RejectedError, Outcome, NotConnectedError, Outcome]
    assert [entry.body["subject"] for entry in partner.ledger] == ["PO-1", "PO-3"]
    await sink.close()


# --- batches ----------------------------------------------------------------------------------------------------------

MANY = [make_parcel(f"PO-{number}") for number in range(4)]
KEYS = [parcel.idempotency_key for parcel in MANY]
ODD_ANSWERS: dict[str, Any] = {
    "too short": [{"status": 201}] * 3,
    "too long": [{"status": 201}] * 5,
    "no list": {"status": 201},
    "not JSON": b"<html>",
    "no items": [1, 2, 3, 4],
    "no status": [{}] * 4,
    "a status that is none": [{"status": "201"}] * 4,
    "a status out of range": [{"status": 7}] * 4,
    "empty": b"",
}


@pytest.mark.parametrize("case", ODD_ANSWERS)
async def test_a_batch_answer_that_cannot_be_matched_leaves_all_in_doubt(partner: HostilePartner, case: str) -> None:
    partner.script("POST", accepts_but_answers(200, ODD_ANSWERS[case]))
    sink = sink_on(partner, batch={})
    assert [type(answer) for answer in await deliver(sink, *MANY)] == [InDoubtError] * 4
    await sink.close()


async def test_a_batch_answer_by_key_settles_those_it_names_once_and_doubts_the_rest(partner: HostilePartner) -> None:
    items = [
        {"key": KEYS[2], "status": 201, "id": "c"},
        {"key": KEYS[0], "status": 422, "detail": "bad"},
        {"key": KEYS[1], "status": 201},
        {"key": KEYS[1], "status": 422},
        {"key": "another's", "status": 201},
    ]
    partner.script("POST", accepts_but_answers(207, items))
    sink = sink_on(partner, batch={"result_key": "/key"})
    answers_ = await deliver(sink, *MANY)
    assert [type(answer) for answer in answers_] == [RejectedError, InDoubtError, Outcome, InDoubtError]
    await sink.close()


async def test_a_batch_refused_as_a_whole_goes_again_one_by_one(partner: HostilePartner) -> None:
    partner.script("POST", refuses(400), Behaviour(name="honest"), refuses(400), Behaviour(name="honest"))
    sink = sink_on(partner, batch={})
    kinds = [type(answer) for answer in await deliver(sink, *MANY)]
    assert kinds == [Outcome, RejectedError, Outcome, Outcome]
    assert [partner.effects(key) for key in KEYS] == [1, 0, 1, 1]
    await sink.close()


async def test_a_batch_keeps_payloads_digit_for_digit_and_adds_the_key(partner: HostilePartner) -> None:
    from dataclasses import replace

    sink = sink_on(partner, batch={"wrap": "orders", "key_field": "our_key"})
    partner.script("POST", refuses(400))
    await deliver(sink, replace(PO, payload=b'{"qty": 1.10, "price": 0.1000000000000000055511151231257827}'))
    sent = partner.requests[0].body
    assert sent == (
        b'{"orders":[{"our_key":"%s","qty": 1.10, "price": 0.1000000000000000055511151231257827}]}'
        % PO.idempotency_key.encode()
    )
    await sink.close()


async def test_five_hundred_go_in_one_call(partner: HostilePartner) -> None:
    sink = sink_on(partner, batch={}, deadline=timedelta(seconds=5))
    parcels = [make_parcel(f"PO-{number}") for number in range(500)]
    answers_ = await deliver(sink, *parcels)
    assert all(isinstance(answer, Outcome) for answer in answers_)
    assert len(partner.requests) == 1
    assert len({entry.key for entry in partner.ledger}) == 500
    await sink.close()


async def test_a_batch_that_is_cut_off_is_in_doubt_as_a_whole_and_its_resend_has_one_effect_each(
    partner: HostilePartner,
) -> None:
    partner.script("POST", accepts_then_says_nothing())
    sink = sink_on(partner, batch={}, deadline=SHORT)
    assert [type(answer) for answer in await deliver(sink, *MANY)] == [InDoubtError] * 4
    assert all(isinstance(answer, Outcome) for answer in await deliver(sink, *MANY))
    assert [partner.effects(key) for key in KEYS] == [1] * 4
    await sink.close()


# --- the promise as a whole -------------------------------------------------------------------------------------------

LOST_REPLIES = [silence, reset, hang_up, *(LOSSES[name] for name in ("a body shorter than its length", "raw bytes"))]
BEHAVIOURS = [
    *(
        Behaviour(name="a lost answer", lands_after=lands, reply=reply)
        for lands in (None, 0.0, 0.03, 0.15)
        for reply in LOST_REPLIES
    ),
    *(make(status) for status in (500, 502, 504, 302, 303, 207) for make in (refuses, accepts_but_answers)),
    *(refuses(status) for status in (400, 422, 429, 503, 401, 423, 307)),
    Behaviour(name="honest"),
]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(BEHAVIOURS), min_size=2, max_size=6), st.sampled_from([None, 409]), st.booleans())
def test_whatever_the_partner_does_the_sink_never_says_more_than_it_knows(
    script: list[Behaviour], conflict_status: int | None, in_batches: bool
) -> None:
    asyncio.run(_ends_with_one_effect(script, conflict_status, in_batches))


async def _ends_with_one_effect(script: list[Behaviour], conflict_status: int | None, in_batches: bool) -> None:
    """Send until settled, as the agent would inside the key's lifetime, and hold each word against the ledger."""
    async with HostilePartner(conflict_status=conflict_status) as partner:
        partner.script("POST", *script)
        sink = sink_on(
            partner, deadline=timedelta(milliseconds=60), batch={"result_key": "/key"} if in_batches else None
        )
        was_in_doubt = False
        for turn in range(len(script) + 20):
            [answer] = await deliver(sink, make_parcel("PO-1", is_resend=turn > 0))
            has_it = partner.effects(PO.idempotency_key) > 0
            was_in_doubt |= isinstance(answer, InDoubtError)
            match answer:
                case Outcome() | DuplicateError():
                    assert has_it, f"said {answer!r} and the ledger has nothing"
                    break
                case RejectedError() | NotConnectedError() | TransientError():
                    assert not has_it or was_in_doubt, f"said {answer!r} of a call that landed"
        else:
            pytest.fail("never settled")
        await sink.close()
    assert partner.effects(PO.idempotency_key) == 1
