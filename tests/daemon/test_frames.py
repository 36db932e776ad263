"""Frames: what is encoded comes back byte for byte, one bad event spoils no other, what is no frame is refused."""

from __future__ import annotations

import random
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.sync.frames import (
    ATTRIBUTES_BYTES,
    BODY_BYTES,
    FRAME_BYTES,
    FRAME_EVENTS,
    HEAD_BYTES,
    Frame,
    Malformed,
    Segment,
    decode,
    encode,
    mark_text,
    parse_mark,
    size_of,
)
from state import estates, inbox
from state.engine import connect_writer
from state.inbox import Arrival
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.errors import RejectedError
from state.model.estate import Estate, EstateSettings
from state.model.event import Environment, Event
from state.model.ids import EstateHash, EventId
from state.model.stream import BEGINNING, Mark
from state.testing import NOON
from tests.model.test_event import EVENT, events, ids

WRONG = RejectedError("it is wrong")
FLIPS = 1_000

marks = st.builds(Mark, st.integers(0, 10**18 - 1), st.binary(min_size=32, max_size=32))
malformed = st.builds(
    Malformed,
    id=ids,
    attributes=st.binary(max_size=20).map(b"!".__add__),
    data=st.binary(max_size=20),
    error=st.just(WRONG),
)
segments = st.builds(Segment, tier=st.integers(1, 3), after=marks, events=st.lists(events | malformed, max_size=4))
heads = st.dictionaries(
    st.sampled_from(["version", "nonce", "received", "priority"]),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"))
    | st.just({"1": [None]}),
)
frames = st.builds(
    Frame,
    head=heads,
    segments=st.lists(segments, max_size=3),
    estates=st.dictionaries(ids.map(EstateHash), st.binary(max_size=30), max_size=2),
)


def an_event(number: int, **changed: Any) -> Event:
    return replace(EVENT, id=EventId(f"{number:032x}"), data=b'{"n":%d}' % number, **changed)


def a_frame(*sent: Event | Malformed) -> Frame:
    return Frame(head={"version": 1}, segments=[Segment(tier=1, after=BEGINNING, events=sent)])


SMALL = Frame(
    head={"version": 1, "nonce": "1.a"},
    segments=[
        Segment(tier=1, after=BEGINNING, events=[an_event(1, extensions={"urgent": True, "size": 3}), an_event(2)]),
        Segment(tier=3, after=Mark(7, b"\7" * 32), events=[an_event(3)]),
    ],
    estates={EstateHash("5" * 32): b'{"settings":{}}'},
)


def plain(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


def packed(whole: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(whole)


def written(head: object, *parts: bytes) -> bytes:
    """A frame of any head, followed by whatever parts."""
    raw = head if isinstance(head, bytes) else orjson.dumps(head)
    return packed(b"".join((struct.pack(">I", len(raw)), raw, *parts)))


def with_attributes(attributes: bytes, data: bytes = b"{}", *, identity: str = EVENT.id) -> Event | Malformed:
    """The event that comes of a frame with such attributes."""
    line = {"id": identity, "attributes": len(attributes), "data": len(data)}
    head = {"segments": [{"tier": 1, "after": mark_text(BEGINNING), "events": [line]}]}
    [segment] = decode(written(head, attributes, data)).segments
    return segment.events[0]


def refusal(raw: bytes) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        decode(raw)
    assert caught.value.rule
    assert caught.value.hint
    return caught.value


@given(frame=frames)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    again = decode(encode(frame))
    assert again == frame
    for before, after in zip(frame.segments, again.segments, strict=True):
        assert [extension_types(one) for one in before.events] == [extension_types(one) for one in after.events]


def extension_types(event: Event | Malformed) -> Mapping[str, type]:
    """True equals 1, so the types are compared too."""
    return {name: type(value) for name, value in event.extensions.items()} if isinstance(event, Event) else {}


@given(mark=marks)
def test_a_mark_comes_back_as_it_went(mark: Mark) -> None:
    assert parse_mark(mark_text(mark)) == mark


@given(event=events)
def test_the_data_of_an_event_is_not_written_anew(event: Event) -> None:
    spaced = replace(event, data=b" " + event.data + b" ")
    [segment] = decode(encode(a_frame(spaced))).segments
    assert segment.events[0].data == spaced.data


def test_an_event_takes_the_bytes_that_are_said_of_it() -> None:
    event = an_event(1)
    line = {"id": event.id, "attributes": size_of(event) - len(event.data), "data": len(event.data)}
    grown = len(plain(encode(a_frame(event)))) - len(plain(encode(a_frame())))
    assert grown == size_of(event) + len(orjson.dumps(line))


# --- what another version says ------------------------------------------------------------------------------------


def test_what_a_newer_agent_says_beside_is_passed_over() -> None:
    whole = plain(encode(SMALL))
    [size] = struct.unpack_from(">I", whole)
    head, rest = orjson.loads(whole[4 : 4 + size]), whole[4 + size :]
    head["estates"][0]["signed"] = {"by": "hq"}
    head["segments"][0]["lane"] = None
    head["segments"][0]["events"][0]["seal"] = "c0ffee"
    assert decode(written(head, rest)) == SMALL


def test_a_head_alone_is_a_frame() -> None:
    assert decode(written({"version": 1})) == Frame(head={"version": 1}, segments=[])


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    yield connection
    connection.close()


def test_what_a_frame_brings_stands_in_the_store_as_it_came(connection: sqlite3.Connection) -> None:
    settings = EstateSettings(name="acme", environment=Environment.TEST, currency="EUR")
    estate = Estate(settings=settings, sites={}, flows={})
    estates.adopt(connection, estate, now=0)
    extensions = {"urgent": True, "calm": False, "priority": -(2**31), "one": 1, "note": "", "size": "x", "op2": "1"}
    sent = [
        an_event(1, estate=estate.hash, extensions=extensions),
        an_event(2, estate=estate.hash, causationid=EventId("1" * 32), correlationid="2" * 32, traceparent="00-1-2-01"),
    ]
    [segment] = decode(encode(a_frame(*sent))).segments
    arrived = [one for one in segment.events if isinstance(one, Event)]
    admitted = inbox.admit(connection, [Arrival(event) for event in arrived])
    kept = [inbox.get(connection, one.seq) for one in admitted]
    assert kept == [replace(event, sequence=one.sequence) for event, one in zip(sent, kept, strict=True)]
    assert extension_types(kept[0]) == extension_types(sent[0])
    assert kept[0].attributes().items() >= extensions.items()


# --- one bad event ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "place"),
    [
        (b"", "attributes"),
        (b"{", "attributes"),
        (b"[]", "attributes"),
        (b"[" * 5_000, "attributes"),
        (orjson.dumps({**EVENT.attributes(), "id": "1" * 32}), "attributes"),
        (orjson.dumps({**EVENT.attributes(), "note": "x" * ATTRIBUTES_BYTES}), "attributes"),
        (orjson.dumps({**EVENT.attributes(), "op": "upsert"}), "op"),
        (orjson.dumps({**EVENT.attributes(), "correlationid": "PO-1"}), "correlationid"),
        (orjson.dumps({**EVENT.attributes(), "note": {"deep": 1}}), "note"),
        (orjson.dumps(EVENT.attributes()).replace(b'"1.0"', b'"1.0","big":123456789012345678901'), "big"),
    ],
)
def test_a_malformed_event_is_handed_on_as_it_came_and_says_what_is_wrong(attributes: bytes, place: str) -> None:
    found = with_attributes(attributes, b" {}\n")
    assert isinstance(found, Malformed)
    assert (found.id, found.attributes, found.data) == (EVENT.id, attributes, b" {}\n")
    assert found.error.place == place
    assert found.error.rule
    assert found.error.hint


def test_data_that_is_no_json_makes_a_malformed_event() -> None:
    found = with_attributes(orjson.dumps(EVENT.attributes()), b"{'a': 1}")
    assert isinstance(found, Malformed)
    assert found.error.place == "data"


def test_a_malformed_event_spoils_no_other() -> None:
    bad = Malformed(id=EventId("e" * 32), attributes=b"\0{", data=b"x", error=WRONG)
    sent: list[Event | Malformed] = [an_event(1), bad, an_event(2)]
    [segment] = decode(encode(a_frame(*sent))).segments
    assert segment.events == sent


# --- no frame -----------------------------------------------------------------------------------------------------


def test_a_frame_that_was_cut_is_refused_wherever_it_was_cut() -> None:
    raw = encode(SMALL)
    assert {refusal(raw[:size]).code for size in range(len(raw))} == {"malformed"}


def test_a_frame_whose_content_was_cut_is_refused_wherever_it_was_cut() -> None:
    whole = plain(encode(SMALL))
    assert {refusal(packed(whole[:size])).code for size in range(len(whole))} == {"malformed"}


def test_a_flipped_byte_is_noticed() -> None:
    raw, chance, refused = encode(SMALL), random.Random(11), 0
    for _ in range(FLIPS):
        flipped = bytearray(raw)
        flipped[chance.randrange(len(raw))] ^= chance.randrange(1, 256)
        try:
            assert decode(bytes(flipped)) == SMALL  # bits that zstd keeps for later
        except RejectedError:
            refused += 1
    assert refused > FLIPS * 0.95


def test_a_flipped_byte_of_the_content_is_refused_or_comes_back_as_something_that_can_be_stored() -> None:
    whole, chance, tried = plain(encode(SMALL)), random.Random(12), 0
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= chance.randrange(1, 256)
        try:
            found = decode(packed(bytes(flipped)))
        except RejectedError:
            continue
        for segment in found.segments:
            for event in segment.events:
                tried += 1
                assert len(segment.after.after(event.id, event.data).chain) == 32
                if isinstance(event, Event):
                    assert all(len(bytes.fromhex(one)) == 16 for one in (event.id, event.correlationid, event.estate))
                    assert decode(encode(a_frame(event))).segments[0].events == [event]
    assert tried > FLIPS  # most flips are inside one event and spoil only that


LINE = {"id": "0" * 32, "attributes": 0, "data": 0}
SEGMENT = {"tier": 1, "after": mark_text(BEGINNING), "events": []}


@pytest.mark.parametrize(
    ("raw", "about"),
    [
        (b"", "decompressed"),
        (b"GET / HTTP/1.1\r\n", "decompressed"),
        (bytes.fromhex("502a4d1800000000"), "ends before"),  # a skippable frame of zstd: no content
        (packed(b""), "ends before"),
        (packed(b"\0\0\0"), "ends before"),
        (packed(b"\0\0\0\2{"), "shorter"),
        (encode(SMALL) + b"\0", "decompressed"),
        (encode(SMALL) + encode(SMALL), "decompressed"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(plain(encode(SMALL))), "how long"),
        (written({}, b"x"), "behind its end"),
        (written(b"[" * 100_000), "no JSON object"),
        (written(b"{}{}"), "no JSON object"),
        (written(b"\xff"), "no JSON object"),
        (written([]), "no JSON object"),
        (written({"segments": {}}), "segments"),
        (written({"segments": None}), "segments"),
        (written({"segments": [1]}), "segments"),
        (written({"estates": ["x"]}), "estates"),
        (written({"estates": [{"hash": "x", "size": 0}]}), "hash"),
        (written({"estates": [{"hash": "0" * 32, "size": 1}]}), "shorter"),
        (written({"segments": [{**SEGMENT, "tier": 0}]}), "tier"),
        (written({"segments": [{**SEGMENT, "tier": 4}]}), "tier"),
        (written({"segments": [{**SEGMENT, "tier": True}]}), "tier"),
        (written({"segments": [{**SEGMENT, "tier": [1]}]}), "tier"),
        (written({"segments": [{**SEGMENT, "after": None}]}), "mark"),
        (written({"segments": [{**SEGMENT, "after": "1." + "0" * 63}]}), "mark"),
        (written({"segments": [{**SEGMENT, "after": "-1." + "0" * 64}]}), "mark"),
        (written({"segments": [{**SEGMENT, "after": "9" * 5_000 + "." + "0" * 64}]}), "mark"),
        (written({"segments": [{**SEGMENT, "events": "x"}]}), "events"),
        (written({"segments": [{**SEGMENT, "events": [[]]}]}), "events"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "id": "A" * 32}]}]}), "id"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "id": 7}]}]}), "id"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "data": 1}]}]}), "shorter"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "data": -1}]}]}), "shorter"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "data": 0.0}]}]}), "shorter"),
        (written({"segments": [{**SEGMENT, "events": [{**LINE, "attributes": True}]}]}, b"x"), "shorter"),
        (written({"segments": [{**SEGMENT, "events": [{"id": "0" * 32}]}]}), "shorter"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_no_frame_is_refused_with_its_reason(raw: bytes, about: str) -> None:
    error = refusal(raw)
    assert error.code == "malformed"
    assert about in error.message


# --- too large ----------------------------------------------------------------------------------------------------


def test_more_events_than_allowed_are_refused_at_both_ends() -> None:
    many = [an_event(number) for number in range(FRAME_EVENTS + 1)]
    assert len(decode(encode(a_frame(*many[1:]))).segments[0].events) == FRAME_EVENTS
    with pytest.raises(RejectedError) as caught:
        encode(a_frame(*many))
    assert caught.value.code == "too-large"
    halves = [{**SEGMENT, "events": [LINE] * count} for count in (FRAME_EVENTS, 1)]
    assert refusal(written({"segments": halves})).code == "too-large"


def test_a_head_that_is_too_large_is_refused_at_both_ends() -> None:
    head = {"note": "x" * HEAD_BYTES}
    with pytest.raises(RejectedError) as caught:
        encode(Frame(head=head))
    assert caught.value.code == "too-large"
    assert refusal(written(head)).code == "too-large"
    assert refusal(packed(b"\xff\xff\xff\xff{}")).code == "too-large"


def test_a_frame_that_is_too_large_is_refused_at_both_ends() -> None:
    estate = {EstateHash("0" * 32): bytes(FRAME_BYTES)}
    with pytest.raises(RejectedError) as caught:
        encode(Frame(head={}, estates=estate))
    assert caught.value.code == "too-large"
    assert refusal(packed(bytes(FRAME_BYTES + 1))).code == "too-large"
    assert refusal(bytes(BODY_BYTES + 1)).code == "too-large"


def test_a_full_frame_that_cannot_be_compressed_is_small_enough_to_travel() -> None:
    noise = random.Random(1).randbytes(FRAME_BYTES - 1_000)
    raw = encode(Frame(head={}, estates={EstateHash("0" * 32): noise}))
    assert FRAME_BYTES < len(raw) + 1_000 <= BODY_BYTES
    assert decode(raw).estates == {"0" * 32: noise}


GIGABYTE = 1024**3
IN_LITTLE_MEMORY = """
import resource, sys
from agent.sync.frames import decode
from state.model.errors import RejectedError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

raw = sys.stdin.buffer.read()
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (1024 * 1024 * 1024, ) * 2)
try:
    decode(raw)
except RejectedError as error:
    print(error.code, peak() - before)
"""


def a_bomb(*, size: int = -1) -> bytes:
    """A gigabyte of nothing in some kilobytes, which says its size, or does not."""
    compressor = zstandard.ZstdCompressor().compressobj(size=size)
    piece = bytes(1024 * 1024)
    raw = b"".join(compressor.compress(piece) for _ in range(GIGABYTE // len(piece))) + compressor.flush()
    assert len(raw) < 100_000
    return raw


def a_bomb_that_lies() -> bytes:
    """A gigabyte that says that it is a thousand bytes."""
    raw = bytearray(a_bomb(size=GIGABYTE))
    assert struct.unpack_from("<I", raw, 6) == (GIGABYTE,)
    struct.pack_into("<I", raw, 6, 1_000)
    assert zstandard.frame_content_size(bytes(raw)) == 1_000
    return bytes(raw)


def a_bomb_that_wants_room() -> bytes:
    """A thousand bytes that say that their reader must look back on two gigabytes: RFC 8878, window descriptor 0xA8."""
    block = (1_000 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"  # the last block: one byte, a thousand times
    raw = zstandard.FRAME_HEADER + b"\x80\xa8" + (1_000).to_bytes(4, "little") + block
    assert zstandard.get_frame_parameters(raw).window_size == 2 * GIGABYTE
    return raw


@pytest.mark.parametrize(
    ("bomb", "code"),
    [
        (lambda: a_bomb(size=GIGABYTE), "too-large"),
        (a_bomb, "malformed"),
        (a_bomb_that_lies, "malformed"),
        (a_bomb_that_wants_room, "malformed"),
        (lambda: a_bomb_that_wants_room()[:-1], "malformed"),
    ],
    ids=["says its size", "does not say its size", "lies about its size", "wants room", "wants room and is cut"],
)
def test_a_bomb_is_refused_in_little_memory(bomb: Callable[[], bytes], code: str) -> None:
    command = [sys.executable, "-c", IN_LITTLE_MEMORY]
    ran = subprocess.run(command, input=bomb(), capture_output=True, timeout=60, check=True)
    found, grown = ran.stdout.split()
    assert found.decode() == code
    assert int(grown) < 40  # MiB
