"""The http source: what it reads once, what it leaves out, and what it never skips."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.base import UnreadableRecord
from connectors.hostile import (
    Behaviour,
    HostilePartner,
    answers,
    endless_body,
    gzip_bomb,
    is_half_open,
    refuses,
    response,
    sends_then_closes,
    sends_then_resets,
)
from connectors.http.cursor import start, write_instant
from connectors.http.pages import link_to_next, with_parameters
from connectors.http.settings import HttpSourceSettings, InstantCursor, InstantStyle
from connectors.http.source import BATCH_SIZE, HttpSource
from connectors.testing import HeldMemory, records_of, surroundings, take_in
from state.model.errors import NotConnectedError, TransientError

ITEMS = {"kind": "json", "pointer": "/items"}
SINCE = {"kind": "instant", "parameter": "since", "field": "/updated_at", "overlap": "5m"}
AFTER = {"kind": "integer", "parameter": "after", "field": "/id", "overlap": 10}
NEXT = {"kind": "next_link", "pointer": "/next"}


@pytest.fixture
async def partner() -> AsyncIterator[HostilePartner]:
    async with HostilePartner() as running:
        yield running


def source_on(
    partner: HostilePartner, memory: HeldMemory, *, deadline: timedelta = timedelta(seconds=2), **settings: Any
) -> HttpSource:
    wanted = {"base_url": partner.url, "path": "/records", "format": ITEMS, **settings}
    return HttpSource(HttpSourceSettings.model_validate(wanted), surroundings(Path(), memory=memory, deadline=deadline))


def row(number: int, minute: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "updated_at": f"2026-03-01T08:{minute:02}:00Z", **fields}


async def ids(source: HttpSource, memory: HeldMemory) -> list[Any]:
    return [record.fields["id"] for record in records_of(await take_in(source, memory))]


# --- cursor and overlap -----------------------------------------------------------------------------------------------


async def test_the_cursor_asks_from_the_latest_change_less_the_overlap(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=SINCE)
    partner.records = [row(1, 0), row(2, 30)]
    await take_in(source, memory)
    await take_in(source, memory)
    assert partner.requests[0].query == {}
    assert partner.requests[1].query == {"since": "2026-03-01T08:25:00.000Z"}
    await source.close()


async def test_a_row_committed_late_under_a_lower_number_is_not_skipped(partner: HostilePartner) -> None:
    """F52: two writers took numbers 7 and 8, and 8 was committed first."""
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=AFTER)
    partner.records = [row(6, 0), row(8, 1)]
    assert await ids(source, memory) == [6, 8]
    partner.records = [row(6, 0), row(7, 1), row(8, 1)]
    assert await ids(source, memory) == [7]
    assert await ids(source, memory) == []
    await source.close()


async def test_a_row_committed_late_under_an_earlier_time_is_not_skipped(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=SINCE)
    partner.records = [row(1, 20)]
    assert await ids(source, memory) == [1]
    partner.records.append(row(2, 16))
    assert await ids(source, memory) == [2]
    await source.close()


async def test_two_changes_of_a_record_in_one_second_stay_two(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=SINCE)
    partner.records = [row(1, 0, qty=5)]
    first = records_of(await take_in(source, memory))
    partner.records = [row(1, 0, qty=6)]
    second = records_of(await take_in(source, memory))
    assert [record.fields["qty"] for record in (*first, *second)] == [5, 6]
    assert first[0].position == second[0].position == "1@2026-03-01T08:00:00Z"
    await source.close()


async def test_a_change_dated_in_the_future_does_not_hide_what_comes_until_then(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=SINCE)
    partner.records = [{"id": 1, "updated_at": "2199-01-01T00:00:00Z"}]
    await take_in(source, memory)
    assert memory.stored is not None
    assert datetime.fromisoformat(memory.stored.decode()) <= datetime.now(UTC)
    await source.close()


async def test_a_record_without_a_change_time_is_taken_and_moves_nothing(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor=SINCE)
    partner.records = [{"id": 1}, {"id": 2, "updated_at": "yesterday"}, {"id": 3, "updated_at": "2026-03-01T08:00:00"}]
    assert await ids(source, memory) == [1, 2, 3]
    assert memory.stored is None
    await source.close()


async def test_a_servers_own_token_is_handed_back_even_when_nothing_was_new(partner: HostilePartner) -> None:
    memory = HeldMemory()
    cursor = {"kind": "token", "parameter": "from", "pointer": "/token", "initial": "start"}
    source = source_on(partner, memory, cursor=cursor)
    partner.script("GET", refuses(200, {"items": [{"id": 1}], "token": "t1"}))
    partner.script("GET", refuses(200, {"items": [], "token": "t2"}), refuses(200, {"items": []}))
    for _ in range(3):
        await take_in(source, memory)
    assert [request.query["from"] for request in partner.requests] == ["start", "t1", "t2"]
    assert memory.stored == b"t2"
    await source.close()


@pytest.mark.parametrize(
    ("style", "written"),
    [
        (InstantStyle.ISO, "2026-10-25T00:30:00.999Z"),
        (InstantStyle.LOCAL, "2026-10-25T02:30:00"),
        (InstantStyle.EPOCH, "1792888200"),
        (InstantStyle.EPOCH_MS, "1792888200999"),
    ],
)
def test_an_instant_is_written_back_in_the_servers_style_rounded_down(style: InstantStyle, written: str) -> None:
    cursor = InstantCursor(kind="instant", parameter="since", field="/at", style=style, timezone="Europe/Berlin")
    assert write_instant(datetime(2026, 10, 25, 0, 30, 0, 999_999, UTC), cursor) == written


def test_a_local_clock_that_runs_through_an_hour_twice_hides_nothing() -> None:
    """At the end of summer time 02:59:59 comes before the second 02:00:00."""
    cursor = InstantCursor(
        kind="instant", parameter="since", field="/at", style=InstantStyle.LOCAL, timezone="Europe/Berlin"
    )
    now = datetime(2026, 10, 25, 12, tzinfo=UTC)
    progress = start(cursor, None, now=now)
    progress.see_record({"at": "2026-10-25T02:59:59"})
    asked = start(cursor, progress.checkpoint(), now=now).parameters()["since"]
    assert asked <= "2026-10-25T02:00:00"


@pytest.mark.parametrize("cursor", [SINCE, AFTER])
async def test_a_checkpoint_of_another_kind_of_cursor_starts_from_the_beginning(
    partner: HostilePartner, cursor: dict[str, Any]
) -> None:
    memory = HeldMemory()
    memory.stored = b"some token"
    partner.records = [row(1, 0)]
    source = source_on(partner, memory, cursor=cursor)
    assert await ids(source, memory) == [1]
    await source.close()


async def test_a_value_that_comes_back_is_a_third_version_and_not_the_first(partner: HostilePartner) -> None:
    """5, 6 and 5 again, in a list without versions: the target must end with 5."""
    memory = HeldMemory()
    source = source_on(partner, memory)
    positions = []
    for quantity in (5, 6, 6, 5):
        partner.records = [{"id": "A", "qty": quantity}, {"id": "B", "qty": 1}]
        positions += [(one.position, one.fields["qty"]) for one in records_of(await take_in(source, memory))]
    assert positions == [("A@1", 5), ("B@1", 1), ("A@2", 6), ("A@3", 5)]
    await source.close()


async def test_a_value_that_comes_back_in_a_feed_is_read_again(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, cursor={"kind": "token", "parameter": "from", "pointer": "/token"})
    for token, quantity in enumerate((5, 6, 5)):
        partner.script("GET", refuses(200, {"items": [{"id": 1, "qty": quantity}], "token": f"t{token}"}))
    read = [records_of(await take_in(source, memory)) for _ in range(3)]
    assert [[one.fields["qty"] for one in part] for part in read] == [[5], [6], [5]]
    assert len({part[0].position for part in read}) == 3
    await source.close()


async def test_a_name_that_stands_in_a_list_twice_is_not_new_at_every_reading(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory)
    partner.records = [{"id": "A", "qty": 1}, {"id": "A", "qty": 2}]
    assert len(records_of(await take_in(source, memory))) == 2
    assert await take_in(source, memory) == []
    await source.close()


async def test_event_ids_do_not_hang_on_the_page_a_record_stands_on(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory)
    partner.records = [{"id": "A"}]
    first = await take_in(source, memory)
    partner.records = [{"id": "A"}, {"id": "B"}]
    second = await take_in(source, memory)
    assert first[0].document.identity == second[0].document.identity
    assert first[0].document.sha256 != second[0].document.sha256
    await source.close()


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_a_reading_that_breaks_off_moves_no_cursor_and_repeats_nothing() -> None:
    async with HostilePartner(page_style="next_link", page_size=2) as partner:
        memory = HeldMemory()
        source = source_on(partner, memory, cursor=SINCE, pagination=NEXT)
        partner.records = [row(number, 50 - number) for number in range(5)]
        partner.script("GET", Behaviour(name="honest"), refuses(500))
        with pytest.raises(TransientError):
            await take_in(source, memory)
        assert await memory.checkpoint() is None
        assert len(memory.items) == 2
        assert await ids(source, memory) == [2, 3, 4]
        assert memory.stored is not None
        await source.close()


async def test_a_record_that_moved_to_the_next_page_while_we_read_comes_once(partner: HostilePartner) -> None:
    memory = HeldMemory()
    partner.script("GET", refuses(200, {"items": [{"id": 1}, {"id": 2}], "next": "/records?p=2"}))
    partner.script("GET", refuses(200, {"items": [{"id": 2}, {"id": 3}]}))
    source = source_on(partner, memory, pagination=NEXT)
    read = [record.fields["id"] async for batch in source.read() for record in records_of([batch])]
    assert read == [1, 2, 3]
    await source.close()


async def test_a_long_page_comes_in_batches_of_which_only_the_last_says_so(partner: HostilePartner) -> None:
    memory = HeldMemory()
    partner.records = [row(number, 0) for number in range(2 * BATCH_SIZE + 1)]
    source = source_on(partner, memory, cursor=SINCE, deadline=timedelta(seconds=5))
    batches = await take_in(source, memory)
    assert [len(batch.records) for batch in batches] == [BATCH_SIZE, BATCH_SIZE, 1]
    assert [batch.last for batch in batches] == [False, False, True]
    assert [batch.checkpoint is not None for batch in batches] == [False, False, True]
    await source.close()


async def test_pages_that_never_end_are_given_up(partner: HostilePartner) -> None:
    partner.script(
        "GET", *(refuses(200, {"items": [{"id": number}], "next": f"/records?p={number}"}) for number in range(9))
    )
    source = source_on(partner, HeldMemory(), pagination=NEXT, max_pages=5)
    with pytest.raises(TransientError, match="more than 5 pages"):
        await take_in(source, HeldMemory())
    await source.close()


async def test_a_page_that_names_itself_as_the_next_is_given_up(partner: HostilePartner) -> None:
    partner.script("GET", refuses(200, {"items": [], "next": "/records"}))
    source = source_on(partner, HeldMemory(), pagination=NEXT)
    with pytest.raises(TransientError, match="names itself"):
        await take_in(source, HeldMemory())
    await source.close()


@pytest.mark.parametrize(
    "link",
    [
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//evil.example/records",
        "http://127.0.0.1:1/records",
        "https://127.0.0.1/records",
        "http://user@127.0.0.1/records",
        "http://[::ffff:127.0.0.1]/records",
        "http://2130706433/records",
        "http://127.0.0.1:99999999/records",
        "/records?a=\r\nX-Evil: 1",
        "javascript:alert(1)",
    ],
)
async def test_a_link_to_anywhere_else_is_not_followed(partner: HostilePartner, link: str) -> None:
    partner.script("GET", refuses(200, {"items": [], "next": link}))
    source = source_on(partner, HeldMemory(), pagination=NEXT)
    with pytest.raises(NotConnectedError) as raised:
        await take_in(source, HeldMemory())
    assert raised.value.code == "foreign-link"
    assert len(partner.requests) == 1
    await source.close()


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a/?page=2>; rel="next"', "https://a/?page=2"),
        ('<https://a/?page=1>; rel="prev", <https://a/?page=3>; rel="next"', "https://a/?page=3"),
        ("<b>; rel=next", "b"),
        ('<b>; title="x"; rel="last next"', "b"),
        ('<b>; rel="nextish"', ""),
        ('<b>; rel="prev"', ""),
        ("garbage", ""),
        ("", ""),
        ("<" * 20_000, ""),
    ],
)
def test_the_next_link_of_a_header_is_found(header: str, target: str) -> None:
    assert link_to_next(header) == target


def test_parameters_replace_those_of_the_same_name() -> None:
    assert with_parameters("http://a/b?x=1&page=1", {"page": "2", "q": "a b&c"}) == "http://a/b?x=1&page=2&q=a+b%26c"


# --- pages that are none ----------------------------------------------------------------------------------------------

PAGE = response(200, {"items": [row(1, 0), row(2, 0)]})
SPOILED: dict[str, Behaviour] = {
    "half a page": Behaviour(name="cut", reply=sends_then_closes(PAGE[:-10])),
    "a reset": Behaviour(name="reset", reply=sends_then_resets(PAGE[:-10])),
    "half a document in whole": refuses(200, PAGE.partition(b"\r\n\r\n")[2][:-10]),
    "an error page": refuses(200, b"<html>down for maintenance</html>"),
    "no page": refuses(200, b""),
    "another shape": refuses(200, {"rows": []}),
    "a server error": refuses(500),
    "silence": is_half_open(),
    "a body without end": Behaviour(name="endless", reply=endless_body),
    "a bomb": Behaviour(name="bomb", reply=gzip_bomb(64 * 1024 * 1024)),
    "wrong credentials": refuses(401),
    "an address that is gone": refuses(404),
    "a pause": refuses(429, retry_after="7"),
    "a redirect": refuses(302, location="file:///etc/passwd"),
}


@pytest.mark.parametrize("case", SPOILED)
async def test_nothing_is_taken_of_a_page_that_is_not_whole(partner: HostilePartner, case: str) -> None:
    memory = HeldMemory()
    deadline = timedelta(milliseconds=400 if case == "silence" else 2000)
    source = source_on(partner, memory, cursor=SINCE, byte_limit=65_536, deadline=deadline)
    partner.script("GET", SPOILED[case])
    with pytest.raises((NotConnectedError, TransientError)) as raised:
        await take_in(source, memory)
    assert raised.value.hint
    assert (memory.stored, memory.items) == (None, set())
    partner.records = [row(1, 0), row(2, 0)]
    assert await ids(source, memory) == [1, 2]
    await source.close()


async def test_a_pause_that_the_server_asks_for_is_handed_on(partner: HostilePartner) -> None:
    partner.script("GET", refuses(503, retry_after="7"))
    source = source_on(partner, HeldMemory())
    with pytest.raises(NotConnectedError) as raised:
        await take_in(source, HeldMemory())
    assert raised.value.retry_after == timedelta(seconds=7)
    await source.close()


async def test_a_record_without_a_name_is_set_aside_with_its_bytes_and_the_rest_goes_on(
    partner: HostilePartner,
) -> None:
    memory = HeldMemory()
    partner.records = [row(1, 0), {"id": {"a": 1}, "x": "\x1b[2J"}, row(3, 0)]
    source = source_on(partner, memory)
    batches = await take_in(source, memory)
    spoiled = [record for batch in batches for record in batch.records if isinstance(record, UnreadableRecord)]
    assert [record.fields["id"] for record in records_of(batches)] == [1, 3]
    assert [one.code for one in spoiled] == ["no-id"]
    assert "record 2" in spoiled[0].place
    assert b'"x"' in spoiled[0].raw
    assert "\x1b" not in spoiled[0].shown + spoiled[0].message
    await source.close()


async def test_without_an_id_the_content_names_a_record(partner: HostilePartner) -> None:
    memory = HeldMemory()
    partner.records = [{"sku": "A"}, {"sku": "B"}, {"sku": "A"}]
    source = source_on(partner, memory, id=None)
    assert [record.fields["sku"] for record in records_of(await take_in(source, memory))] == ["A", "B"]
    await source.close()


async def test_money_and_large_numbers_keep_every_digit(partner: HostilePartner) -> None:
    memory = HeldMemory()
    partner.script(
        "GET", Behaviour(name="raw", reply=answers(200, b'{"items":[{"id":12345678901234567890,"p":0.10}]}'))
    )
    source = source_on(partner, memory)
    [record] = records_of(await take_in(source, memory))
    assert record.position == "12345678901234567890@1"
    assert str(record.fields["p"]) == "0.10"
    await source.close()


async def test_a_compressed_page_is_read(partner: HostilePartner) -> None:
    memory = HeldMemory()
    body = gzip.compress(PAGE.partition(b"\r\n\r\n")[2])
    partner.script("GET", Behaviour(name="gzip", reply=answers(200, body, content_encoding="gzip")))
    source = source_on(partner, memory)
    assert await ids(source, memory) == [1, 2]
    await source.close()


async def test_a_csv_page_is_read_and_its_bad_row_set_aside_once(partner: HostilePartner) -> None:
    memory = HeldMemory()
    page = Behaviour(name="csv", reply=answers(200, b"id,qty\n1,5\n2\n3,7\n"))
    partner.script("GET", page, page)
    source = source_on(partner, memory, format={"kind": "csv"})
    batches = await take_in(source, memory)
    assert [record.fields["id"] for record in records_of(batches)] == ["1", "3"]
    assert sum(len(batch.records) for batch in batches) == 3
    assert await take_in(source, memory) == []
    await source.close()


async def test_cancelling_a_page_that_hangs_frees_the_connection(partner: HostilePartner) -> None:
    memory = HeldMemory()
    source = source_on(partner, memory, deadline=timedelta(seconds=30))
    partner.script("GET", is_half_open())
    reading = asyncio.create_task(take_in(source, memory))
    await asyncio.sleep(0.05)
    assert partner.requests
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    partner.records = [row(1, 0)]
    assert await ids(source, memory) == [1]
    await source.close()
