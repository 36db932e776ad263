"""Frames: what one agent hands another in one piece, as bytes.

A frame is zstd over: four bytes with the size of the head, big-endian; the head as JSON; and then, end to end and byte for byte,
the estates that come along, and of each event its attributes and its data. The head says what the call is about
(`agent.sync.wire`), and under `estates` and `segments` what follows it:

    {"version": 1, "nonce": "17.9f2c...",
     "estates": [{"hash": "5b1e...", "size": 48210}],
     "segments": [{"tier": 1, "after": "4711.c0ff...", "events": [{"id": "0bf9...", "attributes": 612, "data": 1042}]}]}

So an event that is malformed spoils nothing but itself: it is handed on as it came, its stream goes on, and its chain holds.
What is no whole frame within the limits is refused before there is room made for it. Fields of the head that a reader does not
know are left alone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
import zstandard

from state.model.errors import RejectedError
from state.model.event import Event, of_attributes
from state.model.ids import EstateHash, EventId
from state.model.stream import CHAIN_BYTES, Mark
from state.model.visible import shown

CONTENT_TYPE: Final = "application/vnd.distctl.frame+zstd"

FRAME_EVENTS: Final = 1_000
FULL_BYTES: Final = 8 * 1024 * 1024
"""Of events, by `size_of`: the sender closes its frame with the event that reaches it."""

FRAME_BYTES: Final = 32 * 1024 * 1024
"""Of a frame before compression: a full one, whose last event may be a document of 16 MiB, and 8 MiB of estates and head."""

BODY_BYTES: Final = FRAME_BYTES + FRAME_BYTES // 128
"""Of a frame as it travels: what cannot be compressed grows by less than this."""

HEAD_BYTES: Final = 1024 * 1024
ATTRIBUTES_BYTES: Final = 64 * 1024
"""Of the attributes of one event."""

_LEVEL: Final = 1
_HEAD_SIZE: Final = struct.Struct(">I")
_FOLLOWS: Final = ("estates", "segments")  # the fields of the head that say what follows it
_TIERS: Final = (1, 2, 3)
_ID: Final = re.compile(r"[0-9a-f]{32}")
_HINT: Final = "nothing of it was taken in; compare the versions of both agents: `distctl agents list`"
_MARK: Final = re.compile(rf"([0-9]{{1,18}})\.([0-9a-f]{{{2 * CHAIN_BYTES}}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """An event in a good frame that cannot be read: its bytes as they came, and what is wrong with them."""

    id: EventId
    attributes: bytes
    data: bytes
    error: RejectedError = field(compare=False)


Sent: TypeAlias = Event | Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Events of one stream that follow `after`, without a gap.

    A life of the receiver that ended may have had the first `again` of them.
    """

    tier: int
    after: Mark
    events: Sequence[Sent]
    again: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the call is about, the estates that come along as JSON, and the events."""

    head: Mapping[str, Any]
    segments: Sequence[Segment] = ()
    estates: Mapping[EstateHash, bytes] = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """The frame as it travels. Raises `RejectedError` with the code `too-large` where no reader would take it."""
    parts = list(frame.estates.values())
    written = orjson.dumps(
        {
            **frame.head,
            "estates": [{"hash": known, "size": len(estate)} for known, estate in frame.estates.items()],
            "segments": [_segment_head(segment, parts) for segment in frame.segments],
        }
    )
    _require_at_most(FRAME_EVENTS, "events", sum(len(segment.events) for segment in frame.segments))
    _require_at_most(HEAD_BYTES, "bytes of head", len(written))
    _require_at_most(FRAME_BYTES, "bytes", _HEAD_SIZE.size + len(written) + sum(map(len, parts)))
    whole = b"".join((_HEAD_SIZE.pack(len(written)), written, *parts))
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(whole)


def decode(raw: bytes) -> Frame:
    """The frame. Raises `RejectedError`, `malformed` or `too-large`, for what is no whole frame within the limits."""
    whole = _unpacked(raw)
    if len(whole) < _HEAD_SIZE.size:
        raise _malformed("it ends before its head")
    [size] = _HEAD_SIZE.unpack_from(whole)
    _require_at_most(HEAD_BYTES, "bytes of head", size)
    rest = _Rest(whole, _HEAD_SIZE.size)
    head = _object(rest.take(size))
    if head is None:
        raise _malformed("its head is no JSON object")
    segments = _objects(head, "segments")
    _require_at_most(FRAME_EVENTS, "events", sum(len(_objects(one, "events")) for one in segments))
    frame = Frame(
        head={name: value for name, value in head.items() if name not in _FOLLOWS},
        estates=dict(_estate(one, rest) for one in _objects(head, "estates")),
        segments=[_segment(one, rest) for one in segments],
    )
    rest.require_end()
    return frame


def size_of(event: Sent) -> int:
    """How many bytes of a frame the event takes, before compression and without its line in the head."""
    return len(_attributes(event)) + len(event.data)


def mark_text(mark: Mark) -> str:
    """A mark as it travels: its sequence, a dot and its chain."""
    return f"{mark.seq}.{mark.chain.hex()}"


def parse_mark(text: object) -> Mark:
    """The mark that `mark_text` wrote. Raises `RejectedError`."""
    found = _MARK.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _malformed("a mark cannot be read", rule="a mark is a sequence, a dot and a chain")
    return Mark(int(found[1]), bytes.fromhex(found[2]))


# --- writing ------------------------------------------------------------------------------------------------------


def _segment_head(segment: Segment, parts: list[bytes]) -> dict[str, Any]:
    events = [_event_head(event, parts) for event in segment.events]
    again = {"again": segment.again} if segment.again else {}
    return {"tier": segment.tier, "after": mark_text(segment.after), **again, "events": events}


def _event_head(event: Sent, parts: list[bytes]) -> dict[str, Any]:
    attributes = _attributes(event)
    parts += (attributes, event.data)
    return {"id": event.id, "attributes": len(attributes), "data": len(event.data)}


def _attributes(event: Sent) -> bytes:
    return orjson.dumps(event.attributes()) if isinstance(event, Event) else event.attributes


# --- reading ------------------------------------------------------------------------------------------------------


def _unpacked(raw: bytes) -> bytes:
    """The frame before compression. It says how long it is, and no room is made for more than is allowed."""
    _require_at_most(BODY_BYTES, "bytes as it travels", len(raw))
    try:
        size = zstandard.frame_content_size(raw)
        if size < 0:
            raise _malformed("it does not say how long it is")
        _require_at_most(FRAME_BYTES, "bytes", size)
        return zstandard.ZstdDecompressor().decompress(raw, allow_extra_data=False)
    except zstandard.ZstdError:
        raise _malformed("it cannot be decompressed") from None


class _Rest:
    """What is left of a frame, taken off piece by piece."""

    def __init__(self, whole: bytes, at: int) -> None:
        self._whole = whole
        self._at = at

    def take(self, size: object) -> bytes:
        if type(size) is not int or not 0 <= size <= len(self._whole) - self._at:
            raise _malformed("it is shorter than it says")
        begin, self._at = self._at, self._at + size
        return self._whole[begin : self._at]

    def require_end(self) -> None:
        if self._at != len(self._whole):
            raise _malformed("it goes on behind its end")


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _objects(head: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    said = head.get(name, [])
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        raise _malformed(f"its {name} are no list of objects")
    return said


def _estate(said: Mapping[str, Any], rest: _Rest) -> tuple[EstateHash, bytes]:
    return EstateHash(_id(said, "hash")), rest.take(said.get("size"))


def _segment(said: Mapping[str, Any], rest: _Rest) -> Segment:
    tier, after = said.get("tier"), parse_mark(said.get("after"))
    if type(tier) is not int or tier not in _TIERS:
        raise _malformed("a segment is of tier 1, 2 or 3")
    again = said.get("again", 0)
    if type(again) is not int or again < 0:
        raise _malformed("a segment says how many of its events are sent again, 0 or more")
    return Segment(tier=tier, after=after, events=[_event(one, rest) for one in _objects(said, "events")], again=again)


def _event(said: Mapping[str, Any], rest: _Rest) -> Sent:
    identity = EventId(_id(said, "id"))
    attributes, data = rest.take(said.get("attributes")), rest.take(said.get("data"))
    try:
        return _read(identity, attributes, data)
    except RejectedError as error:
        return Malformed(id=identity, attributes=attributes, data=data, error=error.with_traceback(None))


def _read(identity: EventId, raw: bytes, data: bytes) -> Event:
    if len(raw) > ATTRIBUTES_BYTES:
        raise _unreadable(f"has {len(raw):,} bytes of attributes, and {ATTRIBUTES_BYTES:,} is the most")
    attributes = _object(raw)
    if attributes is None:
        raise _unreadable("has attributes that are no JSON object")
    if attributes.get("id") != identity:
        raise _unreadable(f"goes by another id in its attributes: {shown(attributes.get('id'))}")
    return of_attributes(attributes, data)


def _id(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise _malformed(f"{name} is 32 hexadecimal digits, in lower case")
    return value


# --- refusing -----------------------------------------------------------------------------------------------------


def _require_at_most(most: int, unit: str, found: int) -> None:
    if found > most:
        raise RejectedError(
            f"the frame is too large: it has {found:,} {unit}",
            rule=f"a frame has at most {most:,} {unit}",
            hint=_HINT,
            code="too-large",
        )


def _malformed(what: str, *, rule: str = "a frame is a head and what the head says follows it") -> RejectedError:
    return RejectedError(f"the frame is malformed: {what}", rule=rule, hint=_HINT, code="malformed")


def _unreadable(what: str) -> RejectedError:
    return RejectedError(
        f"the event {what}",
        place="attributes",
        rule=f"an event travels as its CloudEvents attributes, at most {ATTRIBUTES_BYTES:,} bytes, and its data",
        hint="correct the sender: it does not write CloudEvents 1.0 as distctl agrees with its peers",
        code="envelope",
    )
