"""The files source on real folders: every rule of what is taken, once, and what happens to the rest."""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Batch, SourceRecord, Surroundings, UnreadableRecord
from connectors.files import folder as folders
from connectors.files import reading
from connectors.files.arrivals import HOLDS_BACK_FOR, LINK_GRACE
from connectors.files.settings import DoneMarker, SourceSettings, StableSize
from connectors.files.source import WATCHES_LATE_WRITERS_FOR, FilesSource
from connectors.formats.records import ByteSource
from connectors.formats.settings import CsvSettings, JsonLinesSettings, JsonSettings, XmlSettings
from connectors.testing import HeldMemory, SourceContract, WallClock, surroundings
from state.model.ids import event_id

ROWS = b"sku,qty\nA,1\nB,2\nC,3\n"


class HandClock(WallClock):
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


class Site:
    """One folder, one agent's memory and what it committed; `restart` gives a source that remembers nothing by itself."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.folder = home / "in"
        self.folder.mkdir(exist_ok=True)
        self.clock = HandClock()
        self.memory = HeldMemory()
        self.settings: dict[str, Any] = {
            "folder": "in",
            "format": CsvSettings(),
            "guard": StableSize(rest=timedelta(0), empty_rest=timedelta(0)),
        } | settings
        self.home = home
        self.events: dict[str, SourceRecord] = {}
        self.letters: list[UnreadableRecord] = []
        self.sources: list[FilesSource] = []
        self.source = self.restart()

    def restart(self, **settings: Any) -> FilesSource:
        self.settings |= settings
        around = Surroundings(clock=self.clock, memory=self.memory, name="flow@site/system", home=self.home)
        self.source = FilesSource(SourceSettings.model_validate(self.settings), around)
        self.sources.append(self.source)
        return self.source

    def put(self, name: str, content: bytes = ROWS) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def commit(self, batch: Batch) -> None:
        """As intake does: events by their ids, so that equal ones are one."""
        for record in batch.records:
            if isinstance(record, UnreadableRecord):
                self.letters.append(record)
                continue
            made = event_id(
                source="s",
                flow="f",
                batch=batch.document.identity,
                position=record.position,
                key="",
                content=record.raw,
            )
            self.events[made] = record
        self.memory.commit(batch)

    async def run(self) -> list[Batch]:
        """Read, commit and settle everything, once."""
        batches = []
        async for batch in self.source.read():
            self.commit(batch)
            batches.append(batch)
            if batch.last:
                await self.source.settle(batch)
        return batches

    async def rest(self, seconds: float = 3.0) -> None:
        """Look, let time pass, look again."""
        await self.run()
        self.clock.seconds += seconds
        await self.run()

    @property
    def skus(self) -> list[str]:
        return sorted(record.fields["sku"] for record in self.events.values())

    def names(self, folder: str = ".") -> list[str]:
        path = self.folder / folder
        return sorted(one.name for one in path.iterdir() if not one.is_dir()) if path.is_dir() else []


Sites = Callable[..., Site]


@pytest.fixture
async def make_site(tmp_path: Path) -> AsyncIterator[Sites]:
    sites: list[Site] = []

    def make(home: Path = tmp_path, **settings: Any) -> Site:
        sites.append(Site(home, **settings))
        return sites[-1]

    yield make
    for site in sites:
        for source in site.sources:
            await source.close()


class FilesSourceRig:
    """A planner that drops CSV files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.files = 0
        (home / "in").mkdir()

    def open(self, memory: HeldMemory) -> FilesSource:
        settings = SourceSettings(folder="in", format=CsvSettings(), guard=StableSize(rest=timedelta(0)))
        return FilesSource(settings, surroundings(self.home, memory=memory))

    async def publish(self, *names: str) -> None:
        self._put("id\n" + "".join(f"{name}\n" for name in names))

    async def publish_spoiled(self, before: str, after: str) -> None:
        self._put(f"id\n{before}\nspoiled,too many\n{after}\n")

    async def unplug(self) -> None:
        (self.home / "in").rename(self.home / "gone")

    def _put(self, text: str) -> None:
        self.files += 1
        (self.home / "in" / f"{self.files}.csv").write_text(text)


class TestFilesSource(SourceContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> FilesSourceRig:
        return FilesSourceRig(tmp_path)


# Taking


async def test_a_file_is_read_and_archived_after_its_commit(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv")
    (batch,) = [batch async for batch in site.source.read()]
    assert site.names() == ["plan.csv"]
    await site.source.settle(batch)
    assert (site.names(), site.names("archive")) == ([], ["plan.csv"])
    assert batch.document.name == "plan.csv"
    assert batch.document.content == ROWS
    first = batch.records[0]
    assert isinstance(first, SourceRecord)
    assert (first.position, first.place, first.fields, first.raw) == (
        "1",
        "plan.csv line 2",
        {"sku": "A", "qty": "1"},
        b"A,1",
    )
    assert first.changed_at is not None
    assert first.changed_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("settings", "content"),
    [
        (JsonSettings(), b'[{"sku": "A"}, {"sku": "B"}, {"sku": "C"}]'),
        (JsonLinesSettings(), b'{"sku": "A"}\n{"sku": "B"}\n{"sku": "C"}\n'),
        (
            XmlSettings(record="rows/row"),
            b"<rows><row><sku>A</sku></row><row><sku>B</sku></row><row><sku>C</sku></row></rows>",
        ),
    ],
    ids=["json", "json lines", "xml"],
)
async def test_json_json_lines_and_xml_are_read_as_csv_is(make_site: Sites, settings: Any, content: bytes) -> None:
    site = make_site(format=settings)
    site.put("plan", content)
    await site.run()
    assert (site.skus, site.letters, site.names("archive")) == (["A", "B", "C"], [], ["plan"])


async def test_a_long_file_comes_in_batches_and_only_the_last_is_remembered(make_site: Sites) -> None:
    site = make_site(batch=2)
    site.put("plan.csv")
    batches = await site.run()
    assert [len(batch.records) for batch in batches] == [2, 1]
    assert [batch.last for batch in batches] == [False, True]
    assert [bool(batch.remember) for batch in batches] == [False, True]


async def test_large_records_end_a_batch_before_its_number_does(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PORTION_SIZE", 10)
    site = make_site()
    site.put("plan.csv", b"sku\n" + b"AAAAAAAAAAAA\n" * 3)
    assert [len(batch.records) for batch in await site.run()] == [1, 1, 1, 0]


async def test_files_are_taken_by_time_or_by_name(make_site: Sites, tmp_path: Path) -> None:
    for order, expected in (("mtime", ["b.csv", "a.csv"]), ("name", ["a.csv", "b.csv"])):
        home = tmp_path / order
        home.mkdir()
        site = make_site(home, order=order)
        for age, name in ((100, "b.csv"), (50, "a.csv")):
            path = site.put(name, b"sku\n" + name.encode())
            os.utime(path, (time.time() - age, time.time() - age))
        assert [batch.document.name for batch in await site.run()] == expected


async def test_hidden_unfinished_and_other_names_and_folders_are_left_alone(make_site: Sites) -> None:
    site = make_site(pattern="*.csv*")
    for name in (".plan.csv", "plan.csv.part", "plan.csv.TMP", "other.txt"):
        site.put(name)
    (site.folder / "deep.csv").mkdir()
    assert await site.run() == []
    assert len(site.names()) == 4


async def test_equal_lines_of_one_file_stay_two_events(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv", b"sku\nA\nA\n")
    await site.run()
    assert site.skus == ["A", "A"]


# Growing, half-written, marked


async def test_a_file_that_grows_is_left_alone_until_it_rests(make_site: Sites) -> None:
    site = make_site(guard=StableSize(rest=timedelta(seconds=2)))
    for size in (5, 12, len(ROWS)):
        site.put("plan.csv", ROWS[:size])
        site.clock.seconds += 1.5
        assert await site.run() == []
    site.clock.seconds += 1.5
    assert await site.run() == []
    site.clock.seconds += 0.6
    await site.run()
    assert site.skus == ["A", "B", "C"]


async def test_a_file_rewritten_with_the_same_size_rests_anew(make_site: Sites) -> None:
    site = make_site(guard=StableSize(rest=timedelta(seconds=2)))
    site.put("plan.csv", b"sku\nA\n")
    await site.run()
    site.clock.seconds += 3
    path = site.put("plan.csv", b"sku\nB\n")
    os.utime(path, ns=(0, 1_000_000_000_000))
    assert await site.run() == []


async def test_a_later_file_does_not_overtake_one_that_still_moves(make_site: Sites) -> None:
    site = make_site(guard=StableSize(rest=timedelta(seconds=2)), order="name")
    site.put("2.csv", b"sku\nLATER\n")
    await site.run()
    site.put("1.csv", b"sku\nEARLIER\n")
    site.clock.seconds += 2.5
    assert await site.run() == []
    site.clock.seconds += 2.5
    assert [batch.document.name for batch in await site.run()] == ["1.csv", "2.csv"]


async def test_a_file_that_never_rests_holds_back_the_others_for_a_minute_only(make_site: Sites) -> None:
    site = make_site(guard=StableSize(rest=timedelta(seconds=2)), order="name")
    site.put("2.csv")
    seconds = 0
    while not site.events:
        site.put("1.csv", b"sku\n" + b"X\n" * seconds)
        await site.run()
        site.clock.seconds += 1
        seconds += 1
        assert seconds <= HOLDS_BACK_FOR + 2
    assert seconds > HOLDS_BACK_FOR
    assert site.names() == ["1.csv"]


async def test_a_half_written_file_that_gets_its_name_by_rename_is_taken_whole_and_once(make_site: Sites) -> None:
    site = make_site(pattern="*.csv", guard=StableSize(rest=timedelta(seconds=2)))
    half = site.put("plan.csv.part", ROWS[:10])
    await site.rest()
    half.write_bytes(ROWS)
    half.rename(site.folder / "plan.csv")
    await site.rest()
    assert (site.skus, site.letters) == (["A", "B", "C"], [])


async def test_a_file_is_taken_with_its_done_marker_and_not_before(make_site: Sites) -> None:
    site = make_site(guard=DoneMarker())
    site.put("plan.csv")
    assert await site.run() == []
    site.put("plan.csv.done", b"")
    await site.run()
    assert site.skus == ["A", "B", "C"]
    assert (site.names(), site.names("archive")) == ([], ["plan.csv", "plan.csv.done"])


async def test_a_marker_left_by_a_crash_does_not_call_the_next_file_complete(make_site: Sites) -> None:
    site = make_site(guard=DoneMarker())
    site.put("plan.csv.done", b"")
    await site.run()
    site.put("plan.csv", ROWS[:10])
    assert await site.run() == []
    assert site.names() == ["plan.csv"]


async def test_a_file_written_to_while_it_is_read_is_not_taken_until_it_is_whole(make_site: Sites) -> None:
    site = make_site()
    path = site.put("plan.csv", ROWS[:16])
    entry = folders.entries(site.folder, "*")[0]
    path.write_bytes(ROWS)
    with pytest.raises(reading.MovedError):
        reading.inspect(path, entry.fingerprint, None)
    await site.run()
    assert site.skus == ["A", "B", "C"]


async def test_a_file_written_to_during_the_very_read_is_not_taken(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    path = site.put("plan.csv")
    read_all = reading._read_all

    def read_and_write(source: ByteSource) -> bytes:
        with path.open("ab") as late:
            late.write(b"D,4\n")
        return read_all(source)

    with monkeypatch.context() as busy:
        busy.setattr(reading, "_read_all", read_and_write)
        assert await site.run() == []
    await site.run()
    assert site.skus == ["A", "B", "C", "D"]


async def test_bytes_that_changed_behind_the_files_time_are_noticed_by_their_hash(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_SIZE", 0)
    site = make_site()
    path = site.put("plan.csv")
    (entry,) = folders.entries(site.folder, "*")
    inspected = reading.inspect(path, entry.fingerprint, None)
    path.write_bytes(ROWS.replace(b"A", b"X"))
    os.utime(path, ns=(0, entry.fingerprint.modified_ns))
    with pytest.raises(reading.MovedError):
        list(reading.portions(inspected, CsvSettings(), 500))


async def test_a_file_that_grows_between_commit_and_archive_gives_only_its_new_records(make_site: Sites) -> None:
    site = make_site()
    path = site.put("plan.csv", ROWS)
    (batch,) = [batch async for batch in site.source.read()]
    site.commit(batch)
    with path.open("ab") as late:
        late.write(b"D,4\n")
    await site.source.settle(batch)
    assert site.names() == ["plan.csv"]
    await site.run()
    assert site.skus == ["A", "B", "C", "D"]
    assert site.names("archive") == ["plan.csv"]


async def test_a_writer_that_comes_late_loses_nothing_and_doubles_nothing(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv", b"")
    with (site.folder / "plan.csv").open("wb", buffering=0) as slow:
        slow.write(ROWS)
        await site.run()
        assert site.names("archive") == ["plan.csv"]
        slow.write(b"D,4\n")
        await site.run()
    assert site.skus == ["A", "B", "C", "D"]
    assert site.names("archive") == ["plan.csv"]


async def test_a_half_xml_file_in_quarantine_comes_back_when_its_writer_goes_on(make_site: Sites) -> None:
    site = make_site(format=XmlSettings(record="rows/row"))
    with (site.folder / "plan.xml").open("wb", buffering=0) as slow:
        slow.write(b"<rows><row><sku>A</sku></row>")
        await site.run()
        assert site.names("quarantine") == ["plan.xml"]
        slow.write(b"<row><sku>B</sku></row></rows>")
        await site.run()
    assert (site.skus, site.names("archive"), len(site.letters)) == (["A", "B"], ["plan.xml"], 1)


async def test_files_in_the_archive_are_not_watched_for_ever(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv")
    await site.run()
    site.clock.seconds += WATCHES_LATE_WRITERS_FOR + 1
    with (site.folder / "archive" / "plan.csv").open("ab") as late:
        late.write(b"D,4\n")
    assert await site.run() == []
    assert site.skus == ["A", "B", "C"]


# Twice, renamed, the same


async def test_the_same_file_again_is_archived_and_not_read(make_site: Sites) -> None:
    site = make_site()
    for _ in range(3):
        site.put("plan.csv")
        await site.run()
    assert (site.skus, site.letters) == (["A", "B", "C"], [])
    assert (site.names(), len(site.names("archive"))) == ([], 3)


async def test_the_same_name_with_other_content_is_another_file(make_site: Sites) -> None:
    site = make_site()
    for content in (b"sku\nA\n", b"sku\nB\n"):
        site.put("plan.csv", content)
        await site.run()
    assert site.skus == ["A", "B"]
    contents = {(site.folder / "archive" / name).read_bytes() for name in site.names("archive")}
    assert contents == {b"sku\nA\n", b"sku\nB\n"}


async def test_a_file_renamed_between_commit_and_archive_is_not_read_again(make_site: Sites) -> None:
    site = make_site()
    path = site.put("plan.csv")
    (batch,) = [batch async for batch in site.source.read()]
    site.commit(batch)
    path.rename(site.folder / "final.csv")
    await site.source.settle(batch)
    await site.run()
    assert (site.skus, site.letters, site.names("archive")) == (["A", "B", "C"], [], ["final.csv"])


async def test_a_file_renamed_while_it_is_read_doubles_nothing(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_SIZE", 0)
    site = make_site(batch=1)
    path = site.put("plan.csv")
    reading_it = site.source.read()
    site.commit(await anext(reading_it))
    path.rename(site.folder / "final.csv")
    assert [batch async for batch in reading_it] == []
    await site.run()
    assert (site.skus, site.letters, site.names("archive")) == (["A", "B", "C"], [], ["final.csv"])


async def test_a_file_that_grows_while_it_is_read_in_pieces_is_read_again_and_doubles_nothing(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_SIZE", 0)
    site = make_site(batch=1)
    path = site.put("plan.csv")
    reading_it = site.source.read()
    site.commit(await anext(reading_it))
    with path.open("ab") as late:
        late.write(b"D,4\n")
    assert [batch async for batch in reading_it] == []
    await site.run()
    assert site.names("archive") == ["plan.csv"]
    assert site.skus == ["A", "B", "C", "D"]


async def test_no_other_file_begins_after_one_that_ended_half_way(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_SIZE", 0)
    site = make_site(batch=1, order="name")
    path = site.put("1.csv")
    site.put("2.csv", b"sku\nZ\n")
    reading_it = site.source.read()
    site.commit(await anext(reading_it))
    path.rename(site.folder / "3.csv")
    assert [batch async for batch in reading_it] == []
    await site.run()
    assert site.skus == ["A", "B", "C", "Z"]


async def test_a_new_file_that_begins_like_one_that_grew_is_another_file(make_site: Sites) -> None:
    site = make_site()
    path = site.put("plan.csv")
    (batch,) = [batch async for batch in site.source.read()]
    site.commit(batch)
    with path.open("ab") as late:
        late.write(b"D,4\n")
    await site.source.settle(batch)
    path.rename(site.folder.parent / "taken away")
    site.put("plan.csv", ROWS + b"E,5\n")
    await site.run()
    assert site.skus == ["A", "A", "B", "B", "C", "C", "E"]


async def test_the_same_bytes_under_another_name_wait_for_a_person(make_site: Sites) -> None:
    site = make_site()
    site.put("monday.csv")
    await site.run()
    site.put("tuesday.csv")
    await site.run()
    assert site.skus == ["A", "B", "C"]
    (letter,) = site.letters
    assert (letter.code, letter.place) == ("same-content", "tuesday.csv")
    assert site.names("quarantine") == ["tuesday.csv"]


async def test_a_file_that_a_person_puts_back_from_quarantine_is_taken(make_site: Sites) -> None:
    site = make_site()
    for name in ("monday.csv", "tuesday.csv"):
        site.put(name)
        await site.run()
    await asyncio.sleep(0.02)  # the clock of the inode ticks
    (site.folder / "quarantine" / "tuesday.csv").rename(site.folder / "tuesday.csv")
    await site.run()
    assert site.skus == ["A", "A", "B", "B", "C", "C"]
    assert site.names("archive") == ["monday.csv", "tuesday.csv"]


async def test_a_crash_between_asking_and_quarantine_does_not_take_the_file(make_site: Sites) -> None:
    site = make_site()
    site.put("monday.csv")
    await site.run()
    site.put("tuesday.csv")
    async for batch in site.source.read():
        site.commit(batch)
    site.restart()
    await site.run()
    assert (site.skus, site.names("quarantine"), len(site.letters)) == (["A", "B", "C"], ["tuesday.csv"], 1)


async def test_a_partner_who_sends_again_under_new_names_can_be_skipped(make_site: Sites) -> None:
    site = make_site(same_content="skip")
    for name in ("monday.csv", "tuesday.csv"):
        site.put(name)
        await site.run()
    assert (site.skus, site.letters, site.names("archive")) == (["A", "B", "C"], [], ["monday.csv", "tuesday.csv"])


async def test_equal_files_that_are_meant_are_all_taken(make_site: Sites) -> None:
    site = make_site(same_content="take", reused_names=True)
    for name in ("monday.csv", "tuesday.csv", "tuesday.csv"):
        site.put(name)
        await site.run()
    assert (len(site.skus), site.letters) == (9, [])


async def test_composed_and_decomposed_names_are_two_files(make_site: Sites) -> None:
    site = make_site()
    names = [unicodedata.normalize(form, "plän.csv") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        site.put(name, b"sku\n%d\n" % number)
    await site.run()
    assert site.skus == ["0", "1"]
    assert site.names("archive") == sorted(names)


async def test_names_that_differ_in_case_only_are_two_files(make_site: Sites) -> None:
    site = make_site()
    site.put("PLAN.csv", b"sku\nA\n")
    site.put("plan.csv", b"sku\nB\n")
    await site.run()
    assert (site.skus, site.names("archive")) == (["A", "B"], ["PLAN.csv", "plan.csv"])


async def test_a_name_of_255_bytes_is_archived_twice_without_trouble(make_site: Sites) -> None:
    site = make_site()
    for name in ("x" * 251 + ".csv", "ä" * 125 + "z.csv"):
        for content in (b"sku\n1", b"sku\n2"):
            site.put(name, content + name[:1].encode())
            await site.run()
    assert len(site.events) == 4
    assert len(site.names("archive")) == 4


async def test_a_name_that_is_no_text_is_read_and_shown_safely(make_site: Sites) -> None:
    site = make_site()
    site.put(os.fsdecode(b"pl\xe4n\x1b[31m.csv"), b"sku\nA\n")
    (batch,) = await site.run()
    assert batch.document.name == "pl<U+DCE4>n␛[31m.csv"
    assert site.names("archive") == [os.fsdecode(b"pl\xe4n\x1b[31m.csv")]


# Empty, linked, special, too large


async def test_an_empty_file_is_reported_and_quarantined(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv", b"")
    await site.run()
    assert [(letter.code, letter.place) for letter in site.letters] == [("empty-file", "plan.csv")]
    assert site.names("quarantine") == ["plan.csv"]


async def test_an_empty_file_may_mean_that_there_is_nothing_to_do(make_site: Sites) -> None:
    site = make_site(empty="accept")
    for name in ("monday.csv", "tuesday.csv"):
        site.put(name, b"")
        await site.run()
    assert (site.letters, site.names("archive")) == ([], ["monday.csv", "tuesday.csv"])


async def test_an_empty_file_gets_longer_to_be_filled(make_site: Sites) -> None:
    site = make_site(guard=StableSize(rest=timedelta(seconds=2)))
    site.put("plan.csv", b"")
    await site.rest(50)
    assert site.letters == []
    site.put("plan.csv")
    await site.rest(3)
    assert (site.skus, site.letters) == (["A", "B", "C"], [])


async def test_a_symbolic_link_is_not_followed(make_site: Sites, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(ROWS)
    site = make_site()
    (site.folder / "plan.csv").symlink_to(secret)
    (site.folder / "passwd").symlink_to("/etc/passwd")
    (site.folder / "dangling").symlink_to("/nowhere")
    batches = await site.run()
    assert site.events == {}
    assert {letter.shown for letter in site.letters} == {"a symbolic link"}
    assert [batch.document.content for batch in batches] == [b"", b"", b""]
    assert (site.folder / "quarantine" / "plan.csv").is_symlink()
    assert secret.read_bytes() == ROWS


async def test_a_file_swapped_for_a_link_at_the_last_moment_is_not_followed(make_site: Sites, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(ROWS)
    site = make_site()
    path = site.put("plan.csv")
    entry = folders.entries(site.folder, "*")[0]
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(reading.MovedError):
        reading.inspect(path, entry.fingerprint, None)
    with pytest.raises(OSError, match="symbolic links"):
        folders.open_untricked(path)


async def test_a_named_pipe_blocks_nothing(make_site: Sites) -> None:
    site = make_site()
    os.mkfifo(site.folder / "1.csv")
    site.put("2.csv")
    async with asyncio.timeout(5):
        await site.run()
    assert (site.skus, [letter.shown for letter in site.letters]) == (["A", "B", "C"], ["a named pipe"])
    assert site.names("quarantine") == ["1.csv"]


async def test_a_hard_linked_file_is_refused_once_it_stays_so(make_site: Sites, tmp_path: Path) -> None:
    site = make_site()
    (tmp_path / "elsewhere").write_bytes(ROWS)
    (site.folder / "plan.csv").hardlink_to(tmp_path / "elsewhere")
    await site.run()
    assert site.letters == []
    site.clock.seconds += LINK_GRACE
    await site.run()
    assert [letter.code for letter in site.letters] == ["hard-link"]
    assert site.names("quarantine") == ["plan.csv"]


async def test_a_file_published_by_link_and_unlink_is_taken(make_site: Sites) -> None:
    site = make_site(pattern="*.csv")
    hidden = site.put(".plan.tmp")
    (site.folder / "plan.csv").hardlink_to(hidden)
    await site.run()
    hidden.unlink()
    await site.run()
    assert (site.skus, site.letters) == (["A", "B", "C"], [])


async def test_a_sparse_file_of_two_gigabytes_is_reported_without_being_read(make_site: Sites) -> None:
    site = make_site()
    with (site.folder / "huge.csv").open("wb") as huge:
        huge.truncate(2 * 1024**3)
    started = time.monotonic()
    await site.run()
    assert time.monotonic() - started < 1
    assert [letter.code for letter in site.letters] == ["too-large"]
    assert site.names("quarantine") == ["huge.csv"]


async def test_a_file_too_large_to_hold_is_read_in_pieces_with_the_same_result(
    make_site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_SIZE", 10)
    site = make_site(batch=2)
    path = site.put("plan.csv")
    batches = await site.run()
    assert [(batch.document.content, batch.document.path) for batch in batches] == [(None, path)] * 2
    assert site.skus == ["A", "B", "C"]


# Bad records, bad files


async def test_a_bad_record_is_told_of_and_the_rest_of_the_file_goes_on(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv", b"sku,qty\nA,1\nB,2,3\nC,3\n")
    await site.run()
    (letter,) = site.letters
    assert (letter.position, letter.raw) == ("2", b"B,2,3")
    assert letter.place.startswith("plan.csv line 3")
    assert letter.rule
    assert letter.hint
    assert (site.skus, site.names("archive")) == (["A", "C"], ["plan.csv"])


async def test_a_file_bad_as_a_whole_keeps_its_good_records_and_goes_to_quarantine(make_site: Sites) -> None:
    site = make_site(format=XmlSettings(record="rows/row"))
    content = b"<rows><row><sku>A</sku></row><row><sku>B</sku></ro"
    site.put("plan.xml", content)
    await site.run()
    (letter,) = site.letters
    assert (letter.position, letter.raw) == ("file", content)
    assert letter.place.startswith("plan.xml line 1")
    assert (site.skus, site.names("quarantine"), site.names("archive")) == (["A"], ["plan.xml"], [])


# Crashes


async def test_killed_between_commit_and_archive_the_file_is_archived_and_not_read_again(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv")
    async for batch in site.source.read():
        site.commit(batch)
    site.restart()
    assert await site.run() == []
    assert (site.names(), site.names("archive")) == ([], ["plan.csv"])


async def test_killed_between_commit_and_quarantine_the_file_goes_to_quarantine(make_site: Sites) -> None:
    site = make_site(format=XmlSettings(record="rows/row"))
    site.put("plan.xml", b"<rows>")
    async for batch in site.source.read():
        site.commit(batch)
    site.restart()
    assert await site.run() == []
    assert (site.names("archive"), site.names("quarantine")) == ([], ["plan.xml"])


async def test_killed_before_the_quarantine_a_refused_file_is_told_of_once(make_site: Sites) -> None:
    site = make_site()
    (site.folder / "passwd").symlink_to("/etc/passwd")
    async for batch in site.source.read():
        site.commit(batch)
    site.restart()
    assert await site.run() == []
    assert (len(site.letters), site.names("quarantine")) == (1, ["passwd"])


async def test_killed_inside_a_long_file_and_renamed_before_the_restart_it_gives_each_event_once(
    make_site: Sites,
) -> None:
    site = make_site(batch=1)
    path = site.put("plan.csv")
    reading_it = site.source.read()
    site.commit(await anext(reading_it))
    site.commit(await anext(reading_it))
    await reading_it.aclose()
    path.rename(site.folder / "final.csv")
    site.restart()
    await site.run()
    assert (site.skus, site.names("archive")) == (["A", "B", "C"], ["final.csv"])


async def test_settling_twice_and_settling_for_a_source_before_does_nothing(make_site: Sites) -> None:
    site = make_site()
    site.put("plan.csv")
    (batch,) = await site.run()
    await site.source.settle(batch)
    await site.restart().settle(batch)
    assert site.names("archive") == ["plan.csv"]


# All kinds at once


async def test_every_error_names_its_cure(make_site: Sites) -> None:
    site = make_site(max_bytes=1000)
    site.put("empty.csv", b"")
    site.put("large.csv", b"sku\n" + b"A\n" * 1000)
    site.put("ragged.csv", b"a,b\n1\n")
    (site.folder / "link.csv").symlink_to("/etc/passwd")
    os.mkfifo(site.folder / "pipe.csv")
    site.put("good.csv")
    await site.run()
    assert site.skus == ["A", "B", "C"]
    assert len(site.letters) == 5
    for letter in site.letters:
        assert letter.hint
        assert letter.rule
        assert letter.code
        assert letter.place.split()[0] in letter.message


async def test_a_ragged_row_is_placed_once_with_its_field_beside_it(make_site: Sites) -> None:
    site = make_site()
    site.put("ragged.csv", b"a,b\n1,2,3\n")
    await site.run()
    [letter] = site.letters
    assert (letter.place, letter.field) == ("ragged.csv line 2", "#3")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="patern"):
        SourceSettings.model_validate({"folder": "in", "format": CsvSettings(), "patern": "*"})
