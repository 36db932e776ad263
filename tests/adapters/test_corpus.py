"""Every file of the bad-input corpus ends as its one line says, in bounded time, with nothing lost on the way."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from connectors.formats.codec import decode
from connectors.formats.records import BadRecord, ByteSource, Record
from connectors.formats.settings import FormatSettings, XmlSettings
from state.model.errors import RejectedError
from tests.corpus.case import Case
from tests.corpus.generate import corpus, mutations

SEED = 20260131
LONGEST_SECONDS = 10.0
FEWEST = {"csv": 300, "json": 200, "json-lines": 100, "xml": 200}
MUTATIONS_OF_ONE = 4
LARGEST_MUTATED = 20_000
LARGEST_TRICKLED = 5_000


@dataclass(slots=True)
class Reading:
    """What became of one file."""

    good: list[Record] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    refused: RejectedError | None = None

    def __str__(self) -> str:
        codes = [bad.code for bad in self.bad]
        return f"{len(self.good)} good, bad {codes}, refused {self.refused.code if self.refused else ''}"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return corpus(SEED)


class Trickle:
    """A stream that hands over a few bytes at a time, as a slow network does."""

    def __init__(self, raw: bytes, rng: Random) -> None:
        self._stream = io.BytesIO(raw)
        self._rng = rng

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._rng.randrange(1, 9)))


def read(source: ByteSource, settings: FormatSettings) -> Reading:
    reading = Reading()
    try:
        for record in decode(source, settings):
            if isinstance(record, Record):
                reading.good.append(record)
            else:
                reading.bad.append(record)
    except RejectedError as error:
        reading.refused = error
    return reading


def complaints(case: Case, reading: Reading) -> list[str]:
    """Everything in which a reading differs from what the case demands."""
    wrong = []
    refused = reading.refused.code if reading.refused else ""
    if (len(reading.good), tuple(bad.code for bad in reading.bad), refused) != (case.good, case.bad, case.reject):
        wrong.append(f"expected {case.expectation}, got {reading}")
    if case.fields and tuple(record.fields for record in reading.good) != case.fields:
        wrong.append("the fields differ")
    return wrong + unexplained(reading) + lost(case.raw, case.settings, reading)


def unexplained(reading: Reading) -> list[str]:
    """What does not say line, rule, cure and code, or shows what a terminal would obey."""
    told = [(bad.code, bad.place, bad.rule, bad.hint, bad.shown) for bad in reading.bad]
    if reading.refused is not None:
        told.append((reading.refused.code, "given", reading.refused.rule, reading.refused.hint, reading.refused.shown))
    return [
        f"{code}: unexplained" for code, *rest, shown in told if not all((code, *rest)) or not shown.isprintable()
    ] + [f"{bad.code}: no line" for bad in reading.bad if bad.line < 1]


def lost(raw: bytes, settings: FormatSettings, reading: Reading) -> list[str]:
    """Records whose bytes are not in the file, or whose numbers have gaps."""
    both: list[Record | BadRecord] = [*reading.good, *reading.bad]
    records = sorted(both, key=lambda record: record.number)
    wrong = [] if [record.number for record in records] == list(range(1, len(records) + 1)) else ["numbers have gaps"]
    transcoded = (isinstance(settings, XmlSettings) and b"encoding" in raw) or b"\0" in raw[:64]
    at = 0
    for record in records if not transcoded else ():
        found = raw.find(record.raw, at)
        if found < 0 or not record.raw:
            wrong.append(f"the bytes of record {record.number} are not kept")
        at = max(found, 0) + len(record.raw)
    return wrong


@pytest.mark.parametrize("family", FEWEST)
def test_each_file_ends_as_its_line_says(family: str, cases: list[Case], tally: Counter[str]) -> None:
    wrong = []
    tried = [case for case in cases if case.family == family]
    for case in tried:
        begun = time.perf_counter()
        found = complaints(case, read(io.BytesIO(case.raw), case.settings))
        if (took := time.perf_counter() - begun) > LONGEST_SECONDS:
            found.append(f"took {took:.1f} s")
        wrong += [f"{case.family} {case.name}: {complaint}" for complaint in found]
    tally[f"bad-input files, {family}"] = len(tried)
    assert not wrong, "\n".join(wrong)
    assert len(tried) >= FEWEST[family]


def test_the_corpus_is_the_same_for_the_same_seed_and_has_no_file_twice_by_name(cases: list[Case]) -> None:
    names = Counter((case.family, case.name) for case in cases)
    assert [name for name, count in names.items() if count > 1] == []
    assert [(case.name, len(case.raw)) for case in corpus(SEED)] == [(case.name, len(case.raw)) for case in cases]


def test_a_file_reads_the_same_however_few_bytes_come_at_a_time(cases: list[Case]) -> None:
    rng = Random(SEED)
    wrong = []
    for case in cases:
        if len(case.raw) <= LARGEST_TRICKLED:
            whole, slow = read(io.BytesIO(case.raw), case.settings), read(Trickle(case.raw, rng), case.settings)
            if (slow.good, slow.bad, str(slow.refused)) != (whole.good, whole.bad, str(whole.refused)):
                wrong.append(f"{case.family} {case.name}: {whole} {whole.refused}, by and by {slow} {slow.refused}")
    assert not wrong, "\n".join(wrong)


def test_mutated_files_are_read_or_refused_and_nothing_else(cases: list[Case], tally: Counter[str]) -> None:
    rng = Random(SEED)
    wrong = []
    for case in cases:
        if not case.raw or len(case.raw) > LARGEST_MUTATED:
            continue
        for raw in mutations(case.raw, rng, MUTATIONS_OF_ONE):
            found = unexplained(read(io.BytesIO(raw), case.settings))
            tally["bad-input files, mutated"] += 1
            wrong += [f"{case.family} {case.name}: {complaint} {raw[:200]!r}" for complaint in found]
    assert not wrong, "\n".join(wrong[:20])
