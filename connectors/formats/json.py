"""A JSON document <-> records: the array at a JSON Pointer, element by element, in memory bounded by the largest element.

An element is read with the fast scanner where it stands. Where that fails, the element is delimited by its brackets and quotes
alone: complete and wrong is one bad record, not complete yet asks for more text. What stands beside the array is passed over
without being kept; only its brackets are looked at, and that the pointer's names do not come twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from connectors.formats.characters import Characters, offset_place
from connectors.formats.json_lines import too_large
from connectors.formats.json_text import STRING, UNFINISHED, JsonText, RefusedError, space_end
from connectors.formats.json_writing import json_of
from connectors.formats.records import BadRecord, ByteSource, Flaw, FlawError, JSONValue, Record, show
from connectors.formats.settings import JsonSettings
from connectors.formats.writing import TextEncoder

_OUTSIDE_TEXT = re.compile(r'["\[\]{},]')
_INSIDE_TEXT = re.compile(r'["\\]')
_SYNTAX_HINT = "Have the sender write it with a JSON library (RFC 8259)"
_POINTER_HINT = "Correct pointer, or have the sender write the records where it points"
_DEEPEST = 1_000_000  # of what is passed over; one byte a level
_LONGEST_NAME = 64 * 1024


def decode(source: ByteSource, settings: JsonSettings) -> Iterator[Record | BadRecord]:
    """Read the elements of the array at `settings.pointer`, or the one object there.

    Raises `RejectedError`, after the records before, for a document that is cut short, not JSON outside of the records, or
    without the pointer, and for a wrong encoding.
    """
    window = _Window(Characters(source, settings.encoding))
    names = _pointer_names(settings)
    try:
        if not window.peek():
            raise window.wrong(
                "json-empty", "the file holds no JSON value", "Have the sender write [] when there is nothing"
            )
        for name in names:
            _enter(window, name)
        yield from _records(window, settings)
        for name in reversed(names):
            _leave(window, name)
        if window.peek():
            raise window.wrong(
                "json-syntax", "text follows the document", "Send one document a file, or use json-lines"
            )
    except FlawError as error:
        raise error.flaw.spoils_file() from None


def encode(records: Iterable[Mapping[str, JSONValue]], settings: JsonSettings) -> Iterator[bytes]:
    """Write one document with the array at `settings.pointer`.

    Raises `RejectedError` with record and field for a value that JSON cannot hold.
    """
    names = _pointer_names(settings)
    encoder = TextEncoder(settings.encoding)
    yield encoder.encode("".join(f"{{{json.dumps(name, ensure_ascii=False)}:" for name in names) + "[")
    for number, record in enumerate(records, start=1):
        before = "\n" if number == 1 else ",\n"
        yield encoder.encode(before + json_of(record, number, max_depth=settings.max_depth), number)
    yield encoder.encode("\n]" + "}" * len(names) + "\n")


def _pointer_names(settings: JsonSettings) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in settings.pointer.split("/")[1:]]


class _Window:
    """The part of the document in memory, and where in the document it is."""

    def __init__(self, characters: Characters) -> None:
        self.characters = characters
        self.text = ""
        self.at = 0
        self.ended = False
        self._marked = 0
        self._line = 1
        self._column = 1

    def more(self) -> bool:
        """Drop what was read, then read at least as much again as is kept; False at the end of the document."""
        self._mark()
        kept = self.text[self.at :]
        pieces = [kept]
        size = 0
        while not self.ended and size <= len(kept):
            piece = self.characters.read()
            self.ended = not piece
            size += len(piece)
            pieces.append(piece)
        self.text, self.at, self._marked = "".join(pieces), 0, 0
        return size > 0

    def peek(self) -> str:
        """The next character that is no space, not yet taken; empty at the end."""
        while True:
            self.at = space_end(self.text, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, mark: str, rule: str) -> None:
        """Pass over `mark`. Raises `FlawError` if something else comes next."""
        if self.peek() != mark:
            raise self.wrong("json-syntax", rule, _SYNTAX_HINT)
        self.at += 1

    def place(self) -> tuple[int, int]:
        """Line and column of what comes next."""
        self._mark()
        return self._line, self._column

    def wrong(self, code: str, rule: str, hint: str) -> FlawError:
        """The document is wrong here; if it ends here, it was cut short."""
        line, column = self.place()
        if self.at >= len(self.text) and self.ended and code == "json-syntax":
            code, rule, hint = "json-truncated", "the document ends before it is complete", "Have it sent again, whole"
        shown = show(self.text[self.at : self.at + 20])
        return FlawError(Flaw(code=code, rule=rule, hint=hint, shown=shown, line=line, column=column))

    def _mark(self) -> None:
        # From the last mark on, not from the start: the places of all elements together cost one pass.
        passed = self.text[self._marked : self.at]
        self._line, self._column = offset_place(passed, len(passed), self._line, self._column)
        self._marked = self.at


class _Brackets:
    """Finds where a value ends by brackets and quotes alone, across pieces: good values and wrong ones alike.

    A value in an array ends before the comma or bracket that is not its own; one that stands `alone` after its last bracket.
    A closing bracket of the wrong kind ends it too: what is wrong inside one record seldom goes beyond it, and if it does, no
    comma follows and the document is refused.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._open = bytearray()
        self._in_text = False
        self._alone = alone

    @property
    def is_balanced(self) -> bool:
        """Whether the value may end here."""
        return not self._open and not self._in_text

    def end(self, text: str, at: int) -> tuple[bool, int]:
        """Whether the value ends in `text`, and where it ends or where to go on looking."""
        while found := (_INSIDE_TEXT if self._in_text else _OUTSIDE_TEXT).search(text, at):
            mark, at = found[0], found.end()
            if mark == '"':
                self._in_text = not self._in_text
            elif mark == "\\":
                at += 1
            elif mark in "[{":
                self._open.append(ord(mark))
                if len(self._open) > _DEEPEST:
                    return True, at - 1
            elif not self._open:
                return True, at - 1
            elif mark in "]}":
                is_its_own = self._open.pop() + 2 == ord(mark)  # in ASCII: [ and ], { and } are two apart
                if not is_its_own or (self._alone and not self._open):
                    return True, at
        return False, max(at, len(text))


def _records(window: _Window, settings: JsonSettings) -> Iterator[Record | BadRecord]:
    elements = _Elements(window, settings)
    if window.peek() == "{":
        yield elements.read(1, alone=True)
        return
    if window.peek() != "[":
        hint = f"Set pointer to the array; it is now {settings.pointer or 'the root'!r}"
        raise window.wrong("json-pointer", "neither an array nor an object stands here", hint)
    window.at += 1
    number = 0
    while number or window.peek() != "]":
        number += 1
        yield elements.read(number)
        if window.peek() == "]":
            break
        window.take(",", "expected a comma or ] after the record")
    window.at += 1


class _Elements:
    """Reads records where the window stands."""

    def __init__(self, window: _Window, settings: JsonSettings) -> None:
        self._window = window
        self._reader = JsonText(settings)
        self._limit = settings.max_record_size

    def read(self, number: int, *, alone: bool = False) -> Record | BadRecord:
        """Pass over one record, good or bad. Raises `FlawError` where the document cannot go on."""
        if self._window.peek() in ("", ",", "]", "}", ":"):
            raise self._window.wrong("json-syntax", "expected a record", "Remove the comma, or have the record sent")
        line, column = self._window.place()
        text, fields = self._good(alone=alone)
        if fields is None:
            text = self._delimited(number, alone=alone)
        try:
            raw, fields = self._judged(text, fields, line, column)
        except FlawError as error:
            return error.flaw.spoils_record(number, self._window.characters.raw(text[: self._limit]))
        return Record(number=number, line=line, fields=fields, raw=raw)

    def _good(self, *, alone: bool) -> tuple[str, dict[str, JSONValue] | None]:
        """The object that stands here whole and good; None for anything else, and when its end is not in sight."""
        window = self._window
        start = window.at
        try:
            value, end = self._reader.first(window.text, start)
        except RefusedError:
            return "", None
        after = space_end(window.text, end)
        in_sight = alone or window.text[after : after + 1] in (",", "]")
        if not isinstance(value, dict) or not in_sight or end - start > self._limit:
            return "", None
        window.at = end
        return window.text[start:end], value

    def _delimited(self, number: int, *, alone: bool) -> str:
        """The text of the record that begins here, passed over, and cut one character beyond the limit."""
        window = self._window
        brackets = _Brackets(alone=alone)
        length = 0
        while True:
            found, at = brackets.end(window.text, window.at + length)
            length = at - window.at
            if found or not (len(window.text) - window.at <= self._limit and window.more()):
                break
        text = window.text[window.at : window.at + min(length, self._limit + 1)]
        if not found:
            self._rest(brackets, length, number)
        else:
            window.at += length
        return text.rstrip(" \t\r\n") if len(text) <= self._limit else text

    def _rest(self, brackets: _Brackets, length: int, number: int) -> None:
        line, column = self._window.place()
        if not _pass_over(self._window, brackets, length):
            hint = "Have the file sent again, whole; if it is whole, a bracket or quote is missing in this record"
            rule = f"the document ends inside record {number}, which begins here"
            raise FlawError(Flaw(code="json-truncated", rule=rule, hint=hint, line=line, column=column))

    def _judged(
        self, text: str, fields: dict[str, JSONValue] | None, line: int, column: int
    ) -> tuple[bytes, dict[str, JSONValue]]:
        if len(text) > self._limit:
            raise FlawError(too_large(text, self._limit, line=line, column=column))
        raw = self._window.characters.strict(text, line=line, column=column)
        return raw, fields if fields is not None else self._reader.record(text, line=line, column=column)


def _pass_over(window: _Window, brackets: _Brackets, length: int = 0) -> bool:
    """Pass over the rest of a value of which `length` characters were looked at, keeping none; False if it has no end."""
    at = window.at + length
    found = False
    while not found:
        beyond = max(at - len(window.text), 0)
        window.at = at - beyond
        if window.at >= len(window.text) and not window.more():
            return brackets.is_balanced
        found, at = brackets.end(window.text, window.at + beyond)
    window.at = at
    return True


def _enter(window: _Window, name: str) -> None:
    """Go to the value of the object that stands here under `name`."""
    if window.peek() != "{":
        raise window.wrong("json-pointer", f"no object with {name!r} stands here", _POINTER_HINT)
    window.at += 1
    if window.peek() == "}":
        raise window.wrong("json-pointer", f"the object has no {name!r}", _POINTER_HINT)
    while _name(window) != name:
        _pass_value(window)
        if window.peek() == "}":
            raise window.wrong("json-pointer", f"the object has no {name!r}", _POINTER_HINT)
        window.take(",", "expected a comma or }")


def _leave(window: _Window, name: str) -> None:
    """Pass over what the object holds after the value of `name`."""
    while window.peek() != "}":
        window.take(",", "expected a comma or }")
        if _name(window) == name:
            rule = f"the object names {name!r} twice"
            raise window.wrong("json-duplicate-key", rule, "Send each name once; the records of the first were read")
        _pass_value(window)
    window.at += 1


def _pass_value(window: _Window) -> None:
    if window.peek() in ("", ",", "]", "}", ":") or not _pass_over(window, _Brackets()):
        raise window.wrong("json-syntax", "expected a value", _SYNTAX_HINT)


def _name(window: _Window) -> str:
    """The name of the next member, passed over together with its colon."""
    window.peek()
    while not (found := STRING.match(window.text, window.at)):
        if len(window.text) - window.at > _LONGEST_NAME or not window.more():
            if UNFINISHED.match(window.text, window.at):
                window.at = len(window.text)
            raise window.wrong("json-syntax", "expected a name in quotes", _SYNTAX_HINT)
    window.at = found.end()
    window.take(":", "expected a colon")
    return str(json.loads(found[0]))
