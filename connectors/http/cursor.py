"""How a source asks for only the news: reading and writing each kind of cursor. Pure.

A checkpoint is the text of the highest value seen, in the server's own writing; what is sent is that less the overlap.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import orjson

from connectors.http.pointer import find, find_text
from connectors.http.settings import Cursor, InstantCursor, InstantStyle, IntegerCursor, TokenCursor
from state.model.ids import digest

_MILLION = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)  # local clocks run through one hour twice in autumn


class Progress:
    """Where one reading began and how far it came."""

    def parameters(self) -> dict[str, str]:
        """The query parameters that ask for the news."""
        return {}

    def see_record(self, _fields: object, /) -> None:
        """Note a record of the reading."""

    def see_answer(self, _document: object, /) -> None:
        """Note the JSON document of a page."""

    def version(self, _name: str, _raw: bytes, /) -> str:
        """The version of a record whose own fields tell none; the same for the same reading of the same list."""
        return ""

    def checkpoint(self) -> bytes | None:
        """What to store when the reading is whole; None where nothing moved."""
        return None


def start(cursor: Cursor | None, checkpoint: bytes | None, *, now: datetime) -> Progress:
    """The progress of a reading that goes on from `checkpoint`."""
    stored = (checkpoint or b"").decode()
    match cursor:
        case InstantCursor():
            return _Instants(cursor, stored, now)
        case IntegerCursor():
            return _Integers(cursor, stored)
        case TokenCursor():
            return _Token(cursor, stored)
        case None:
            return _LastValues(stored)


def parse_instant(value: object, cursor: InstantCursor) -> datetime | None:
    """The instant as the server writes it; None where it is none."""
    try:
        match cursor.style:
            case InstantStyle.ISO:
                return parse_iso(value)
            case InstantStyle.LOCAL:
                moment = datetime.fromisoformat(str(value))
                return None if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(cursor.timezone)).astimezone(UTC)
            case InstantStyle.EPOCH:
                return datetime.fromtimestamp(float(Decimal(str(value))), UTC)
            case InstantStyle.EPOCH_MS:
                return datetime.fromtimestamp(float(Decimal(str(value))) / 1000, UTC)
    except (ValueError, ArithmeticError, OSError):
        return None


def parse_iso(value: object) -> datetime | None:
    """An ISO 8601 instant with its offset; None for anything else."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo else None


def write_instant(moment: datetime, cursor: InstantCursor) -> str:
    """The instant as the server writes it, rounded down."""
    match cursor.style:
        case InstantStyle.ISO:
            return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
        case InstantStyle.LOCAL:
            return moment.astimezone(ZoneInfo(cursor.timezone)).replace(tzinfo=None).isoformat(timespec="seconds")
        case InstantStyle.EPOCH:
            return str(_micros(moment) // _MILLION)
        case InstantStyle.EPOCH_MS:
            return str(_micros(moment) // 1000)


class _LastValues(Progress):
    """No cursor: all is read each time, and what counts is whether a record differs from its last value.

    Versions count from 1, so a value that comes back (5, 6, 5) is a third version and not the first. A name that stands in one
    list twice is judged by its first row. The checkpoint holds a version and a hash for each name ever seen.
    """

    def __init__(self, stored: str) -> None:
        self._values = _read_values(stored)
        self._seen: set[str] = set()
        self._has_changed = False

    def version(self, name: str, raw: bytes, /) -> str:
        number, last = self._values.get(name, (0, ""))
        content = digest(raw, size=8).hex()
        if content != last and name not in self._seen:
            number += 1
            self._values[name] = (number, content)
            self._has_changed = True
        self._seen.add(name)
        return str(number)

    def checkpoint(self) -> bytes | None:
        return orjson.dumps(self._values) if self._has_changed else None


def _read_values(stored: str) -> dict[str, tuple[int, str]]:
    """The values of a checkpoint; none where another kind of cursor wrote it."""
    if not stored.startswith("{"):
        return {}
    return {name: (number, content) for name, (number, content) in orjson.loads(stored).items()}


class _Instants(Progress):
    """The latest change seen. A change in the future is no reason to skip what comes until then."""

    def __init__(self, cursor: InstantCursor, stored: str, now: datetime) -> None:
        self._cursor = cursor
        self._now = now
        self._before = parse_iso(stored)
        self._latest = self._before

    def parameters(self) -> dict[str, str]:
        if self._before is None:
            return {self._cursor.parameter: self._cursor.initial} if self._cursor.initial else {}
        overlap = self._cursor.overlap + (_HOUR if self._cursor.style is InstantStyle.LOCAL else timedelta(0))
        return {self._cursor.parameter: write_instant(max(_EPOCH, self._before - overlap), self._cursor)}

    def see_record(self, fields: object, /) -> None:
        moment = parse_instant(find(fields, self._cursor.field), self._cursor)
        if moment is not None and moment >= _EPOCH:
            seen = min(moment, self._now)
            self._latest = seen if self._latest is None else max(self._latest, seen)

    def checkpoint(self) -> bytes | None:
        if self._latest is None or self._latest == self._before:
            return None
        return self._latest.astimezone(UTC).isoformat().encode()


class _Integers(Progress):
    """The highest number seen."""

    def __init__(self, cursor: IntegerCursor, stored: str) -> None:
        self._cursor = cursor
        self._before = int(stored) if stored.isdecimal() else None  # the cursor may have been of another kind
        self._highest = self._before

    def parameters(self) -> dict[str, str]:
        if self._before is None:
            return {self._cursor.parameter: self._cursor.initial} if self._cursor.initial else {}
        return {self._cursor.parameter: str(max(0, self._before - self._cursor.overlap))}

    def see_record(self, fields: object, /) -> None:
        text = find_text(fields, self._cursor.field)
        if text.isascii() and text.isdecimal() and len(text) < 20:
            self._highest = max(int(text), self._highest or 0)

    def checkpoint(self) -> bytes | None:
        moved = self._highest is not None and self._highest != self._before
        return str(self._highest).encode() if moved else None


class _Token(Progress):
    """The server's own word for where we are."""

    def __init__(self, cursor: TokenCursor, stored: str) -> None:
        self._cursor = cursor
        self._before = stored
        self._token = stored

    def parameters(self) -> dict[str, str]:
        text = self._before or self._cursor.initial
        return {self._cursor.parameter: text} if text else {}

    def see_answer(self, document: object, /) -> None:
        self._token = find_text(document, self._cursor.pointer) or self._token

    def version(self, _name: str, _raw: bytes, /) -> str:
        return digest(self._before, size=8).hex()  # a feed may say 5, 6 and 5 again: each reading stands for itself

    def checkpoint(self) -> bytes | None:
        return self._token.encode() if self._token != self._before else None


def _micros(moment: datetime) -> int:
    """Whole microseconds since 1970, without the rounding of a float."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * _MILLION + since.microseconds
