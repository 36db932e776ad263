"""JSON Lines <-> records: one object a line, so that a bad line is one bad record and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from connectors.formats.characters import Characters, lines
from connectors.formats.json_text import JsonText
from connectors.formats.json_writing import json_of
from connectors.formats.records import BadRecord, ByteSource, Flaw, FlawError, JSONValue, Record, show
from connectors.formats.settings import JsonLinesSettings
from connectors.formats.writing import TextEncoder


def decode(source: ByteSource, settings: JsonLinesSettings) -> Iterator[Record | BadRecord]:
    """Read lines one by one, in memory bounded by the longest record; blank lines are skipped.

    Raises `RejectedError` when the first bytes contradict the declared encoding.
    """
    characters = Characters(source, settings.encoding)
    reader = JsonText(settings)
    number = 0
    for line, text in enumerate(lines(characters, limit=settings.max_record_size, newline="\n"), start=1):
        body = text.rstrip("\r\n")
        if not body.strip(" \t\r"):
            continue
        number += 1
        try:
            if len(text) > settings.max_record_size:
                raise FlawError(too_large(body, settings.max_record_size, line=line))
            raw = characters.strict(body, line=line)
            fields = reader.record(body, line=line)
        except FlawError as error:
            yield error.flaw.spoils_record(number, characters.raw(body[: settings.max_record_size]))
        else:
            yield Record(number=number, line=line, fields=fields, raw=raw)


def encode(records: Iterable[Mapping[str, JSONValue]], settings: JsonLinesSettings) -> Iterator[bytes]:
    """Write one object a line. Raises `RejectedError` with record and field for a value that JSON cannot hold."""
    encoder = TextEncoder(settings.encoding)
    for number, record in enumerate(records, start=1):
        yield encoder.encode(json_of(record, number, max_depth=settings.max_depth) + "\n", number)


def too_large(text: str, limit: int, *, line: int, column: int = 1) -> Flaw:
    """The flaw of a record that is longer than the limit."""
    return Flaw(
        code="json-record-too-large",
        rule=f"the record is longer than {limit} characters",
        hint="Have the sender split it, or raise max_record_size",
        shown=show(text[:40]),
        line=line,
        column=column,
    )
