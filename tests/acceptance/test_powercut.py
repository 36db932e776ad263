"""A power cut anywhere in a run of hub and agents loses nothing that was acknowledged; with `synchronous=NORMAL` it does.

`make powercut IMAGES=2000` is the same at full length. The model of the disk is tested here too.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tests.powercut.disk import SECTOR, Disks, Leaves
from tests.powercut.images import cuts
from tests.powercut.recorded_run import FULL, NORMAL, build_recorder, record
from tests.powercut.recording import Marks, read_recording
from tests.powercut.trial import judge_all

IMAGES = 40
CONTROL_IMAGES = 10


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_recorder(tmp_path_factory.mktemp("recorder"))
    if library is None:
        pytest.skip("no C compiler for the recorder of a run")
    return library


# --- the run ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_acknowledged(recorder: Path, tmp_path: Path, tally: Counter[str]) -> None:
    recording = record(tmp_path / "run", recorder, rounds=2, synchronous=FULL)
    found = judge_all(recording, cuts(recording.records, seed=1, images=IMAGES))
    tally["images of a power cut"] += found.images
    assert found.bad == []
    assert (found.opened, found.images) == (IMAGES, IMAGES)
    assert found.acknowledged > IMAGES * 10


@pytest.mark.slow
def test_without_an_fsync_a_commit_the_same_judge_finds_losses(recorder: Path, tmp_path: Path) -> None:
    recording = record(tmp_path / "run", recorder, rounds=1, synchronous=NORMAL)
    found = judge_all(recording, cuts(recording.records, seed=1, images=CONTROL_IMAGES))
    assert found.with_loss > 0


# --- what must not depend on luck ---------------------------------------------------------------------------------


def left_after(recorder: Path, tmp_path: Path, script: str) -> Path:
    """Where the disk is as a cut leaves it that keeps only what was synced. The script finds it as `disk`."""
    disk, log = tmp_path / "disk", tmp_path / "recording"
    disk.mkdir()
    marks = Marks(log)
    marks.bring_folder(disk)
    preamble = f"from pathlib import Path\ndisk = Path({str(disk)!r})\n"
    environment = {"LD_PRELOAD": str(recorder), "POWERCUT_ROOT": str(disk), "POWERCUT_LOG": str(log)}
    subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(script)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
    )
    disks = Disks()
    for moment, one in enumerate(read_recording(log)):
        disks.play(moment, one)
    assert list(disks.differing(disk)) == []
    disks.write_image(tmp_path / "left", cut=["disk"], leaves=Leaves.NOTHING, dice=random.Random(1))
    marks.close()
    return tmp_path / "left" / "disk"


def test_a_store_in_a_new_folder_is_there_with_its_first_commit(recorder: Path, tmp_path: Path) -> None:
    script = """
        import asyncio
        from datetime import UTC, datetime
        from state import life
        from state.database import Database

        async def main():
            async with await Database.open(disk / "var" / "data" / "distctl.db", now=datetime.now(UTC)) as database:
                await database.write(lambda connection: life.begin(connection, "north", now=0))
                import os
                os._exit(0)  # no orderly end, which would sync more

        asyncio.run(main())
    """
    assert (left_after(recorder, tmp_path, script) / "var" / "data" / "distctl.db-wal").stat().st_size > 0


def test_an_identity_in_a_new_folder_is_there(recorder: Path, tmp_path: Path) -> None:
    script = """
        from agent.identity.private_files import make_private_folder, write_private
        (disk / "data").mkdir()
        make_private_folder(disk / "data" / "identity")
        write_private(disk / "data" / "identity" / "agent.pem", b"key")
    """
    assert (left_after(recorder, tmp_path, script) / "data" / "identity" / "agent.pem").read_bytes() == b"key"


def test_an_authority_that_a_killed_start_has_made_is_there_once_it_is_used(recorder: Path, tmp_path: Path) -> None:
    script = """
        from datetime import UTC, datetime
        from agent.identity.authority import Authority, _make
        _make(disk / "ca", "acme", datetime.now(UTC))
        Authority.open(disk / "ca", estate="acme", known=None, now=datetime.now(UTC))
    """
    assert (left_after(recorder, tmp_path, script) / "ca" / "key.pem").exists()


@pytest.mark.parametrize("had_a_name", [False, True], ids=["new", "named by a process that was killed"])
def test_a_raw_document_is_there_once_it_is_kept(recorder: Path, tmp_path: Path, had_a_name: bool) -> None:
    script = f"""
        from agent.raw_archive import RawArchive, _keep
        from connectors.base import RawDocument
        from state.model.ids import sha256
        plan, archive = disk / "plan.csv", RawArchive(disk / "raw")
        plan.write_bytes(b"R-1;5")
        name = sha256(b"R-1;5")
        if {had_a_name}:
            archive.path_of(name).parent.mkdir(parents=True)
            _keep(plan, archive.path_of(name))
        archive.keep(RawDocument(name="plan.csv", sha256=name, size=5, path=plan))
    """
    [kept] = (left_after(recorder, tmp_path, script) / "raw").glob("*/*")
    assert kept.read_bytes() == b"R-1;5"


def test_a_raw_document_that_a_restore_brings_back_is_there(recorder: Path, tmp_path: Path) -> None:
    script = """
        from types import SimpleNamespace
        from agent.backup_folder import document_in
        from agent.restore import _bring_documents
        from connectors.files.folder import sync_folder
        from state.model.ids import sha256
        name = sha256(b"R-1;5")
        backups = disk.parent / "backups"
        document_in(backups, name).parent.mkdir(parents=True)
        document_in(backups, name).write_bytes(b"R-1;5")
        (disk / "data").mkdir()
        sync_folder(disk)
        manifest = SimpleNamespace(documents=[SimpleNamespace(sha256=name)])
        _bring_documents(SimpleNamespace(manifest=manifest, path=backups / "one"), disk / "data")
    """
    [kept] = (left_after(recorder, tmp_path, script) / "data" / "raw").glob("*/*")
    assert kept.read_bytes() == b"R-1;5"


@pytest.mark.parametrize("asked", ["deliver", "probe"])
def test_a_file_that_a_killed_sink_has_named_is_there_once_it_is_settled(
    recorder: Path, tmp_path: Path, asked: str
) -> None:
    script = f"""
        import asyncio
        import connectors.files.sink as module
        from connectors.files.settings import SinkSettings
        from connectors.testing import make_parcel, surroundings
        parcel = make_parcel("PO-1")
        (disk / "out").mkdir()
        module.sync_folder(disk)

        async def main():
            sync, module.sync_folder = module.sync_folder, lambda _: None
            await module.FilesSink(SinkSettings(folder="out"), surroundings(disk)).deliver([parcel])
            module.sync_folder = sync
            sink = module.FilesSink(SinkSettings(folder="out"), surroundings(disk))
            await (sink.probe(parcel) if {asked == "probe"} else sink.deliver([parcel]))
            await sink.close()

        asyncio.run(main())
    """
    assert len(list((left_after(recorder, tmp_path, script) / "out").glob("*.json"))) == 1


def test_backups_in_a_new_folder_are_there(recorder: Path, tmp_path: Path) -> None:
    script = """
        from agent.backup_folder import lock, sync_folder, write
        with lock(disk / "backups"):
            write(disk / "backups" / "one", b"whole")
            sync_folder(disk / "backups")
    """
    assert (left_after(recorder, tmp_path, script) / "backups" / "one").read_bytes() == b"whole"


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("a.write_bytes(b'1')", {}),
        ("a.write_bytes(b'1'); sync(disk)", {"a": b""}),
        ("a.write_bytes(b'1'); sync(a); sync(disk)", {"a": b"1"}),
        ("a.write_bytes(b'1'); sync(a); sync(disk); a.write_bytes(b'2')", {"a": b"1"}),
        ("a.write_bytes(b'1'); sync(a); sync(disk); a.rename(b)", {"a": b"1"}),
        ("a.write_bytes(b'1'); sync(a); a.rename(b); sync(disk)", {"b": b"1"}),
        ("a.write_bytes(b'1'); sync(a); sync(disk); a.unlink()", {"a": b"1"}),
        ("a.write_bytes(b'1'); sync(a); sync(disk); a.unlink(); sync(disk)", {}),
        ("a.write_bytes(b'123'); sync(a); sync(disk); os.truncate(a, 1)", {"a": b"123"}),
        ("c.mkdir(); (c / 'd').write_bytes(b'1'); sync(c / 'd'); sync(c)", {}),
        ("c.mkdir(); (c / 'd').write_bytes(b'1'); sync(c / 'd'); sync(c); sync(disk)", {"c/d": b"1"}),
    ],
)
def test_a_cut_keeps_what_was_synced_and_the_names_that_were(
    recorder: Path, tmp_path: Path, script: str, left: dict[str, bytes]
) -> None:
    preamble = """
import os
a, b, c = disk / "a", disk / "b", disk / "c"

def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

"""
    there = left_after(recorder, tmp_path, preamble + script)
    assert {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()} == left


def test_what_was_not_synced_is_torn_at_sectors_and_kept_in_any_combination(recorder: Path, tmp_path: Path) -> None:
    script = """
import os
file = os.open(disk / "a", os.O_RDWR | os.O_CREAT)
os.fsync(os.open(disk, os.O_RDONLY))
for place in range(3):
    os.pwrite(file, bytes([place + 1]) * 1024, place * 1024)
"""
    left_after(recorder, tmp_path, script)
    disks = Disks()
    for moment, one in enumerate(read_recording(tmp_path / "recording")):
        disks.play(moment, one)
    seen = set()
    for number in range(200):
        target = tmp_path / f"image-{number}"
        disks.write_image(target, cut=["disk"], leaves=Leaves.TORN, dice=random.Random(number))
        content = (target / "disk" / "a").read_bytes()
        sectors = [content[first : first + SECTOR] for first in range(0, len(content), SECTOR)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        seen.add(tuple(sector[0] for sector in sectors))
    assert {(), (0, 0, 2, 2), (1, 1, 0, 0, 3, 3)} <= seen  # nothing; the first lost; the middle one lost
    assert any(1 in one and 0 in one[: one.index(1)] for one in seen if 1 in one)  # half of the first


def test_a_call_that_the_model_does_not_know_is_not_passed_over(recorder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"link.* is not in the model"):
        left_after(recorder, tmp_path, "(disk / 'a').touch(); (disk / 'b').hardlink_to(disk / 'a')")


def test_the_cuts_of_a_seed_are_always_the_same(recorder: Path, tmp_path: Path) -> None:
    left_after(recorder, tmp_path, "import os; os.fsync(os.open(disk, os.O_RDONLY)); (disk / 'a').write_bytes(b'1')")
    marks = Marks(tmp_path / "recording")
    marks.say("enrolled", site="north")
    marks.close()
    records = read_recording(tmp_path / "recording")
    assert cuts(records, seed=3, images=9) == cuts(records, seed=3, images=20)[:9]
    assert cuts(records, seed=3, images=9) != cuts(records, seed=4, images=9)


def test_without_a_compiler_it_says_so_and_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.powercut", "--images", "1"]
    ended = subprocess.run(command, env={"PATH": "", "TMPDIR": str(tmp_path)}, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"needs a C compiler" in ended.stderr
