"""The one entry to all formats: settings say which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

from connectors.formats import csv, json, json_lines, xml
from connectors.formats.records import BadRecord, ByteSource, JSONValue, Record
from connectors.formats.settings import CsvSettings, FormatSettings, JsonLinesSettings, JsonSettings, XmlSettings


def decode(source: ByteSource, settings: FormatSettings) -> Iterator[Record | BadRecord]:
    """Read records one by one from a binary stream, in memory bounded by the largest record.

    Yields a `BadRecord` for each that cannot be read and goes on. Raises `RejectedError`, and nothing else of its own, for a
    file that is bad as a whole, after the records before it were yielded.
    """
    match settings:
        case CsvSettings():
            return csv.decode(source, settings)
        case JsonSettings():
            return json.decode(source, settings)
        case JsonLinesSettings():
            return json_lines.decode(source, settings)
        case XmlSettings():
            return xml.decode(source, settings)
        case _:
            assert_never(settings)


def encode(records: Iterable[Mapping[str, JSONValue]], settings: FormatSettings) -> Iterator[bytes]:
    """Write records piece by piece. Raises `RejectedError` with record and field for what the format cannot hold."""
    match settings:
        case CsvSettings():
            return csv.encode(records, settings)
        case JsonSettings():
            return json.encode(records, settings)
        case JsonLinesSettings():
            return json_lines.encode(records, settings)
        case XmlSettings():
            return xml.encode(records, settings)
        case _:
            assert_never(settings)
