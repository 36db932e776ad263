"""Samples: recorded files that `check` reads, maps, holds against the contract and renders for every target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import BaseModel

from agent.estate.compiled import CompiledFlow, CompiledLane
from agent.estate.findings import Finding, Severity
from agent.estate.yaml_document import Path, YamlDocument
from agent.mapping import Document
from connectors.base import SourceRecord, UnreadableRecord
from connectors.formats.codec import decode
from connectors.formats.records import BadRecord, Record
from connectors.formats.settings import CsvSettings, JsonLinesSettings, JsonSettings, XmlSettings
from state.model.canonical.reading import parse
from state.model.errors import RejectedError
from state.model.event import Event
from state.model.ids import EventId

RECORDS_LIMIT: Final = 10_000
SHOWN_LIMIT: Final = 20
BYTES_LIMIT: Final = 64 * 1024 * 1024

_FORMATS: Final = (CsvSettings, JsonSettings, JsonLinesSettings, XmlSettings)
_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NO_ID: Final = EventId("0" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The recorded file of one flow, and what it is tried with."""

    folder: FilePath
    flow: CompiledFlow
    file: YamlDocument
    settings: BaseModel

    def check(self) -> list[Finding]:
        """What is wrong, at most `SHOWN_LIMIT`, each at its line of the sample and with the expression's place."""
        found = list(islice(self._findings(), SHOWN_LIMIT + 1))
        if len(found) <= SHOWN_LIMIT:
            return found
        return [*found[:SHOWN_LIMIT], self._about_sample("the sample has more mistakes than are shown", "", "more")]

    @property
    def _name(self) -> str:
        return self.flow.spec.source.sample or ""

    def _findings(self) -> Iterator[Finding]:
        form = getattr(self.settings, "format", None)
        if not isinstance(form, _FORMATS):
            yield self._about_sample(
                "the source has no format that a sample could be read by", "leave it out", "format"
            )
            return
        path = self.folder / self._name
        try:
            if not path.resolve().is_relative_to(self.folder.resolve()):
                yield self._about_sample("a sample stands in the estate folder", "copy it there", "sample-outside")
                return
            if path.stat().st_size > BYTES_LIMIT:
                yield self._about_sample("the sample is larger than 64 MiB", "cut it to some records", "too-large")
                return
            with path.open("rb") as stream:
                yield from self._of_records(islice(decode(stream, form), RECORDS_LIMIT))
        except OSError as error:
            reason = error.strerror or "unknown"
            yield self._about_sample(
                f"the sample cannot be read: {reason}", "record one, or leave sample out", "no-sample"
            )
        except RejectedError as error:
            yield self._at(0, 0, f"the sample is bad as a whole: {error.message}", error.hint, error.code)

    def _of_records(self, records: Iterator[Record | BadRecord]) -> Iterator[Finding]:
        rows: list[SourceRecord | UnreadableRecord] = []
        for record in records:
            if isinstance(record, BadRecord):
                yield self._at(record.line, record.column, record.rule, record.hint, record.code)
            rows.append(_row(record))
        if not rows:
            yield self._about_sample("the sample holds no record", "record some", "empty-sample", Severity.WARNING)
        for made in self.flow.documents(rows):
            line = int(made.rows[0].position)
            if isinstance(made, Document):
                yield from self._of_document(made.data, line)
            else:
                yield self._from_error(made.error, line, ("source", "fields"))

    def _of_document(self, data: dict[str, Any], line: int) -> Iterator[Finding]:
        try:
            entity = parse(self.flow.spec.contract, data)
        except RejectedError as error:
            yield self._from_error(error, line, ("mapping", "fields", *error.place.split(".")))
            return
        try:
            event = self.flow.event(entity, identity=_NO_ID, time=_MOMENT, recorded=_MOMENT, sequence=1)
        except RejectedError as error:
            yield self._from_error(error, line, ("order", "key"))
            return
        for number, lane in enumerate(self.flow.lanes):
            yield from self._of_lane(lane, event, line, ("targets", number))

    def _of_lane(self, lane: CompiledLane, event: Event, line: int, path: Path) -> Iterator[Finding]:
        try:
            if lane.wants(event):
                lane.render(event)
        except RejectedError as error:
            inner: Path = ("when",) if error.place == "when" else ("mapping", *_written_path(error.place))
            yield self._from_error(error, line, (*path, *inner), f"for {lane.name}: ")

    def _from_error(self, error: RejectedError, line: int, path: Path, prefix: str = "") -> Finding:
        if error.place.startswith("mapping "):
            path = ("mapping", *_written_path(error.place))
        elif error.place.startswith("field "):
            path = ("source", "fields", error.place.removeprefix("field "))
        place = "{}:{}:{}".format(self.file.file, *self.file.at(path))
        hint = f"{error.hint}; see {place}" if error.hint else f"see {place}"
        return self._at(line, 0, prefix + error.message, hint, error.code)

    def _at(self, line: int, column: int, message: str, hint: str, code: str) -> Finding:
        return Finding(file=self._name, line=line, column=column, message=message, hint=hint, code=code)

    def _about_sample(self, message: str, hint: str, code: str, severity: Severity = Severity.ERROR) -> Finding:
        return self.file.finding(("source", "sample"), message, hint=hint, code=code, severity=severity)


def _written_path(place: str) -> Path:
    """`mapping fields.quantity.value` as a path below the mapping."""
    return tuple(int(part) if part.isdecimal() else part for part in place.removeprefix("mapping ").split("."))


def _row(record: Record | BadRecord) -> SourceRecord | UnreadableRecord:
    place = f"line {record.line}"
    if isinstance(record, Record):
        return SourceRecord(position=str(record.line), place=place, fields=record.fields, raw=record.raw)
    return UnreadableRecord(
        position=str(record.line),
        place=place,
        rule=record.rule,
        shown=record.shown,
        message=record.rule,
        hint=record.hint,
        code=record.code,
        raw=record.raw,
        field=record.field,
    )
