"""The files sink on real folders: whole or not at all, once for each key, found again wherever the partner put it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Found, NotFound, Outcome, Parcel
from connectors.files.connector import CONNECTOR
from connectors.files.naming import LONGEST_NAME, safe, tagged
from connectors.files.settings import SinkSettings, SourceSettings, StableSize
from connectors.files.sink import FilesSink
from connectors.files.source import FilesSource
from connectors.formats.settings import CsvSettings, JsonLinesSettings, XmlSettings
from connectors.registry import find
from connectors.testing import HeldMemory, SinkContract, deliver, make_parcel, records_of, surroundings, take_in
from state.model.delivery import OutcomeKind
from state.model.errors import InDoubtError, NotConnectedError, RejectedError

MakeSink = Callable[..., FilesSink]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
async def make_sink(tmp_path: Path, out: Path) -> AsyncIterator[MakeSink]:
    sinks: list[FilesSink] = []

    def make(**settings: Any) -> FilesSink:
        known = {"folder": "out", "name": "{subject}-{key}.{suffix}"} | settings
        sinks.append(FilesSink(SinkSettings.model_validate(known), surroundings(tmp_path)))
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()


@pytest.fixture
def small_disk(out: Path) -> Iterator[Path]:
    """The folder itself as a file system of a megabyte."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", out], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.decode().strip()}")
    yield out
    subprocess.run(["umount", "-l", out], check=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def the_outcome(sink: FilesSink, parcel: Parcel) -> Outcome:
    (answer,) = await deliver(sink, parcel)
    assert isinstance(answer, Outcome), answer
    return answer


class FilesSinkRig:
    """A warehouse that counts the files it was given."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.monkeypatch = monkeypatch
        (home / "out").mkdir(exist_ok=True)

    def open(self) -> FilesSink:
        return FilesSink(SinkSettings(folder="out"), surroundings(self.home))

    def effects(self, parcel: Parcel) -> int:
        found = [path for path in self.home.glob("*/*.json") if parcel.idempotency_key[:16] in path.name]
        return sum(path.read_bytes() == parcel.payload for path in found)

    async def go_silent(self) -> None:
        self.monkeypatch.setattr("connectors.files.sink.sync_folder", failing(errno.EIO))

    async def unplug(self) -> None:
        (self.home / "out").rename(self.home / "gone")


class TestFilesSink(SinkContract):
    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesSinkRig:
        return FilesSinkRig(tmp_path, monkeypatch)


def test_the_connector_is_found_by_its_name() -> None:
    assert find("files") is CONNECTOR


# Writing


async def test_a_parcel_becomes_one_whole_file_and_nothing_else(make_sink: MakeSink, out: Path) -> None:
    parcel = make_parcel("PO-1")
    outcome = await the_outcome(make_sink(), parcel)
    assert names(out) == [outcome.reference] == [f"PO-1-{parcel.idempotency_key[:16]}.json"]
    assert (out / outcome.reference).read_bytes() == parcel.payload
    assert (outcome.kind, outcome.duplicate) == (OutcomeKind.ACCEPTED, False)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (CsvSettings(), b"subject,version\r\nPO-1,1\r\n"),
        (JsonLinesSettings(), rb'{"subject":"PO-1","version":1}'),
        (XmlSettings(record="orders/order"), b"<order><subject>PO-1</subject><version>1</version></order>"),
    ],
    ids=["csv", "json lines", "xml"],
)
async def test_a_parcel_is_written_in_the_partners_format(
    make_sink: MakeSink, out: Path, settings: Any, expected: bytes
) -> None:
    outcome = await the_outcome(make_sink(format=settings), make_parcel("PO-1"))
    written = (out / outcome.reference).read_bytes()
    assert re.sub(rb"\s", b"", expected) in re.sub(rb"\s", b"", written)
    assert outcome.reference.endswith((".csv", ".jsonl", ".xml"))


async def test_decimals_keep_every_digit_in_every_format(make_sink: MakeSink, out: Path) -> None:
    parcel = replace(make_parcel("PO-1"), payload=b'{"price":0.10000000000000000001}')
    outcome = await the_outcome(make_sink(format=CsvSettings()), parcel)
    assert b"0.10000000000000000001" in (out / outcome.reference).read_bytes()


async def test_what_the_format_cannot_hold_is_rejected_and_writes_nothing(make_sink: MakeSink, out: Path) -> None:
    parcel = replace(make_parcel("PO-1"), payload=b'{"lines":[{"sku":"A"}]}')
    (answer,) = await deliver(make_sink(format=CsvSettings()), parcel)
    assert isinstance(answer, RejectedError)
    assert names(out) == []


async def test_one_parcel_that_is_rejected_holds_up_no_other(make_sink: MakeSink, out: Path) -> None:
    bad = replace(make_parcel("PO-1"), payload=b'{"lines":[{"sku":"A"}]}')
    answers = await deliver(make_sink(format=CsvSettings()), bad, make_parcel("PO-2"))
    assert [type(answer) for answer in answers] == [RejectedError, Outcome]


async def test_the_done_marker_comes_after_the_file(make_sink: MakeSink, out: Path) -> None:
    outcome = await the_outcome(make_sink(done_marker=".done"), make_parcel("PO-1"))
    assert names(out) == [outcome.reference, f"{outcome.reference}.done"]


async def test_a_resend_after_a_kill_before_the_marker_writes_the_marker(make_sink: MakeSink, out: Path) -> None:
    await deliver(make_sink(), make_parcel("PO-1"))
    sink = make_sink(done_marker=".done")
    assert isinstance(await sink.probe(make_parcel("PO-1")), NotFound)
    outcome = await the_outcome(sink, make_parcel("PO-1", is_resend=True))
    assert (outcome.duplicate, len(names(out))) == (True, 2)
    assert isinstance(await sink.probe(make_parcel("PO-1")), Found)


async def test_our_own_source_reads_what_our_sink_wrote(make_sink: MakeSink, tmp_path: Path) -> None:
    await deliver(make_sink(format=JsonLinesSettings()), make_parcel("PO-1"), make_parcel("PO-2"))
    memory = HeldMemory()
    settings = SourceSettings(folder="out", format=JsonLinesSettings(), guard=StableSize(rest=timedelta(0)))
    source = FilesSource(settings, surroundings(tmp_path, memory=memory))
    assert sorted(record.fields["subject"] for record in records_of(await take_in(source, memory))) == ["PO-1", "PO-2"]
    await source.close()


# Once


async def test_the_same_key_again_writes_nothing_and_says_so(make_sink: MakeSink, out: Path) -> None:
    first = await the_outcome(make_sink(), make_parcel("PO-1"))
    written = (out / first.reference).stat()
    again = await the_outcome(make_sink(), make_parcel("PO-1", is_resend=True))
    assert (again.duplicate, again.reference) == (True, first.reference)
    assert (out / first.reference).stat().st_ino == written.st_ino


async def test_the_same_key_with_other_content_is_a_conflict(make_sink: MakeSink, out: Path) -> None:
    sink = make_sink()
    first = await the_outcome(sink, make_parcel("PO-1"))
    (answer,) = await deliver(sink, replace(make_parcel("PO-1"), payload=b"{}"))
    assert isinstance(answer, RejectedError)
    assert (answer.code, bool(answer.hint)) == ("name-conflict", True)
    assert (out / first.reference).read_bytes() == make_parcel("PO-1").payload


async def test_a_link_planted_under_the_name_is_not_followed(make_sink: MakeSink, out: Path, tmp_path: Path) -> None:
    sink = make_sink()
    first = await the_outcome(sink, make_parcel("PO-1"))
    (out / first.reference).unlink()
    (tmp_path / "victim").write_bytes(b"precious")
    (out / first.reference).symlink_to(tmp_path / "victim")
    (answer,) = await deliver(sink, make_parcel("PO-1"))
    assert isinstance(answer, RejectedError)
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("taken_as", ["{name}", "{name}.20261123", "{stem}_taken.json"])
async def test_a_resend_of_what_the_partner_took_writes_nothing(make_sink: MakeSink, out: Path, taken_as: str) -> None:
    sink = make_sink(taken_to=["taken"], taken_as="{stem}*")
    first = await the_outcome(sink, make_parcel("PO-1"))
    (out / "taken").mkdir()
    stem = first.reference.removesuffix(".json")
    (out / first.reference).rename(out / "taken" / taken_as.format(name=first.reference, stem=stem))
    again = await the_outcome(sink, make_parcel("PO-1", is_resend=True))
    assert again.duplicate
    assert names(out) == ["taken"]


async def test_leftovers_of_a_killed_writer_are_swept_when_they_are_old(make_sink: MakeSink, out: Path) -> None:
    old, young = out / ".distctl-00.part", out / ".distctl-01.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    await the_outcome(make_sink(), make_parcel("PO-1"))
    assert (old.exists(), young.exists()) == (False, True)


# Asking


async def test_a_probe_looks_in_the_folder_and_where_the_partner_moves_what_it_took(
    make_sink: MakeSink, out: Path
) -> None:
    sink = make_sink(taken_to=["taken"])
    parcel = make_parcel("PO-1")
    nothing = await sink.probe(parcel)
    assert isinstance(nothing, NotFound)
    assert str(out / "taken") in nothing.detail
    outcome = await the_outcome(sink, parcel)
    assert isinstance(await sink.probe(parcel), Found)
    (out / "taken").mkdir()
    (out / outcome.reference).rename(out / "taken" / f"{outcome.reference}.1")
    found = await sink.probe(parcel)
    assert isinstance(found, Found)
    assert "taken" in found.outcome.detail
    assert isinstance(await sink.probe(make_parcel("PO-1", version=2)), NotFound)


async def test_an_acknowledgement_decides_what_became_of_the_file(make_sink: MakeSink, out: Path) -> None:
    sink = make_sink(acknowledgement={"folder": "answers", "accepted": "{stem}.ack", "rejected": "{stem}.nak"})
    kinds = []
    for subject, suffix, said in (("PO-1", ".ack", b"ERP 4711"), ("PO-2", ".nak", b"no such item")):
        outcome = await the_outcome(sink, make_parcel(subject))
        waiting = await sink.probe(make_parcel(subject))
        assert isinstance(waiting, Found)
        kinds += [outcome.kind, waiting.outcome.kind]
        assert waiting.outcome.ask_again_in == timedelta(seconds=30)
        (out / "answers").mkdir(exist_ok=True)
        (out / "answers" / outcome.reference.replace(".json", suffix)).write_bytes(said)
        (out / outcome.reference).unlink()
        answered = await sink.probe(make_parcel(subject))
        assert isinstance(answered, Found)
        kinds.append(answered.outcome.kind)
        assert answered.outcome.document == said
    assert kinds == [
        *(OutcomeKind.DELAYED, OutcomeKind.DELAYED, OutcomeKind.ACCEPTED),
        *(OutcomeKind.DELAYED, OutcomeKind.DELAYED, OutcomeKind.REJECTED),
    ]


async def test_a_share_that_is_not_there_is_no_denial(make_sink: MakeSink, out: Path) -> None:
    sink = make_sink(taken_to=["taken"])
    (out.parent / "out").rename(out.parent / "gone")
    with pytest.raises(NotConnectedError) as caught:
        await sink.probe(make_parcel("PO-1"))
    assert caught.value.hint


def test_a_partner_that_deletes_and_answers_nothing_cannot_be_asked() -> None:
    def can_probe(**settings: Any) -> bool:
        return CONNECTOR.can_probe(SinkSettings.model_validate({"folder": "out"} | settings))

    assert can_probe()
    assert not can_probe(partner_deletes=True)
    assert can_probe(partner_deletes=True, taken_to=["taken"])
    assert can_probe(partner_deletes=True, acknowledgement={"folder": "answers"})


# Names


@pytest.mark.parametrize(
    "subject",
    [
        *("../../etc/passwd", "..", ".hidden", "a/b\\c", "CON", "nul.txt", "x" * 500, "ä" * 300, "\x00\x1b[31m", ""),
        *("PO 1:2*3?", "\ud800", "=cmd|' /C calc'!A0", "\u067e\u0648-\u06f1"),
    ],
)
async def test_any_subject_makes_a_name_that_every_file_system_takes(
    make_sink: MakeSink, out: Path, subject: str
) -> None:
    outcome = await the_outcome(make_sink(), replace(make_parcel("x"), subject=subject))
    name = outcome.reference
    assert names(out) == [name]
    assert len(name.encode()) <= 200
    assert re.fullmatch(r"[^\W][\w.-]*|_[\w.-]*", name), name
    assert not re.match(r"(con|nul)(\.|$)", name, re.IGNORECASE)


async def test_a_reserved_name_without_anything_before_it_gets_an_underscore(make_sink: MakeSink, out: Path) -> None:
    parcel = replace(make_parcel("x"), subject="con", idempotency_key="0" * 32)
    outcome = await the_outcome(make_sink(name="{subject}.{key}.{suffix}"), parcel)
    assert outcome.reference == "_con.0000000000000000.json"


async def test_subjects_that_differ_in_case_or_composition_get_files_of_their_own(
    make_sink: MakeSink, out: Path
) -> None:
    parcels = [make_parcel(subject) for subject in ("PO-a", "PO-A", "PO-\u00e4", "PO-a\u0308")]
    await deliver(make_sink(), *parcels)
    assert len({name.casefold() for name in names(out)}) == 4


async def test_a_decomposed_subject_is_written_composed(make_sink: MakeSink) -> None:
    outcome = await the_outcome(make_sink(), make_parcel("PO-a\u0308"))
    assert outcome.reference.startswith("PO-\u00e4-")


async def test_a_template_that_grows_too_long_falls_back_to_the_key(make_sink: MakeSink) -> None:
    parcel = replace(make_parcel("x" * 80), partition_key="y" * 80, contract="z" * 80 + "/1")
    outcome = await the_outcome(make_sink(name="{subject}{partition}{entity}{key}.{suffix}"), parcel)
    assert outcome.reference == f"{parcel.idempotency_key[:16]}.json"


async def test_a_template_cannot_hide_the_file(make_sink: MakeSink) -> None:
    outcome = await the_outcome(make_sink(name=".{key}.{suffix}"), make_parcel("PO-1"))
    assert not outcome.reference.startswith(".")


async def test_a_template_uses_what_it_names(make_sink: MakeSink, out: Path) -> None:
    parcel = replace(make_parcel("PO-1"), partition_key="DC 1")
    outcome = await the_outcome(make_sink(name="{flow}_{entity}_{partition}_{key}.dat"), parcel)
    assert outcome.reference == f"flow_purchase-order_DC_1_{parcel.idempotency_key[:16]}.dat"


@pytest.mark.parametrize("template", ["{subject}.json", "{key}/x", "{key}{nope}", "{key}{", "}{key}"])
def test_a_template_that_could_name_two_deliveries_alike_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"key|unknown"):
        SinkSettings(folder="out", name=template)


def test_a_tagged_name_fits_and_keeps_its_suffix() -> None:
    assert tagged("plan.csv", "1f3a") == "plan.1f3a.csv"
    assert tagged("plan", "1f3a") == "plan.1f3a"
    for name in ("x" * 251 + ".csv", "ä" * 125 + ".csv", "x" * 255, "." + "x" * 254):
        assert len(tagged(name, "12345678-10").encode()) <= LONGEST_NAME
    assert safe("") == "_"


# Folders that fail


async def test_a_full_disk_pauses_delivery_and_leaves_nothing_behind(make_sink: MakeSink, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1000 * 1024)
    parcel = replace(make_parcel("PO-1"), payload=b'"' + b"x" * 100_000 + b'"')
    sink = make_sink()
    answers = await deliver(sink, parcel, make_parcel("PO-2"))
    assert [type(answer) for answer in answers] == [NotConnectedError] * 2
    assert isinstance(answers[0], NotConnectedError)
    assert answers[0].code == "disk-full"
    assert names(small_disk) == ["ballast"]
    ballast.unlink()
    assert (await the_outcome(sink, parcel)).duplicate is False


async def test_a_read_only_share_pauses_delivery_until_it_is_writable(make_sink: MakeSink, small_disk: Path) -> None:
    sink = make_sink()
    for mode in ("ro", "rw"):
        remount(small_disk, mode)
        (answer,) = await deliver(sink, make_parcel("PO-1"))
        assert isinstance(answer, NotConnectedError if mode == "ro" else Outcome)


async def test_a_disk_that_fails_before_the_rename_leaves_nothing(
    make_sink: MakeSink, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    (answer,) = await deliver(make_sink(), make_parcel("PO-1"))
    assert isinstance(answer, NotConnectedError)
    assert names(out) == []


async def test_a_disk_that_fails_after_the_rename_is_in_doubt_and_then_found(
    make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make_sink()
    with monkeypatch.context() as broken:
        broken.setattr("connectors.files.sink.sync_folder", failing(errno.EIO))
        (answer,) = await deliver(sink, make_parcel("PO-1"))
    assert isinstance(answer, InDoubtError)
    assert isinstance(await sink.probe(make_parcel("PO-1")), Found)


async def test_a_rename_that_nobody_can_vouch_for_is_in_doubt(
    make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make_sink()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", failing(errno.ETIMEDOUT))
        (answer,) = await deliver(sink, make_parcel("PO-1"))
    assert isinstance(answer, InDoubtError)
    assert isinstance(await sink.probe(make_parcel("PO-1")), NotFound)


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def failing(number: int) -> Callable[..., None]:
    """A call of the operating system that fails: the Nth write of rig R4."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
