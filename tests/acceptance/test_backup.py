"""Backups as people make them: of a running agent and of a store alone, verified, listed, put back, and killed in the middle.

Faults are numbered in comments as in the reference page of faults.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.backup import ROOM_KEPT
from agent.backup_folder import published, verify
from agent.control.schema import BackupRow
from agent.crash_points import ON_DEMAND, VARIABLE
from console.exit_codes import ExitCode
from state import audit, backup, estates, life
from state.engine import connect_reader, connect_writer
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.errors import ConflictError
from state.model.ids import sha256
from state.store_file import Ownership
from state.testing import NOON
from tests.acceptance.agent_process import (
    SITE,
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    counted,
    open_partner,
    taken,
    to_erp,
    until,
)
from tests.stores.test_outbox import ESTATE, a_lane, an_event, owe

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DISTCTL_KILLS", "50")) // 10
SEED = int(os.environ.get("DISTCTL_SEED", "1"))
BACKUP_POINTS = tuple(point for point in ON_DEMAND if point.startswith("backup."))
BY_THE_AGENT_ALONE = ("backup.note.before_commit", "backup.note.after_commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a run of `distctl` came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "console.cli.app", *map(str, words)]


def distctl(*words: object, crash_at: str = "") -> Ended:
    environment = {**os.environ, VARIABLE: crash_at}
    ended = subprocess.run(command(*words), capture_output=True, text=True, env=environment, check=False, timeout=60)
    return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def done(*words: object) -> Ended:
    ended = distctl(*words)
    assert ended.code == ExitCode.DONE, ended.err
    return ended


def listed(folder: Path) -> list[BackupRow]:
    """What `distctl backup list` shows."""
    return published(folder)


def backed_up(data: Path, folder: Path) -> Path:
    """A backup that `distctl` made."""
    return Path(done("--data", data, "backup", folder, "-o", "json").json["path"])


def is_good(one: BackupRow | Path) -> bool:
    """Whether `distctl verify` would find nothing."""
    return verify(Path(one.path) if isinstance(one, BackupRow) else one).findings == ()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".unfinished*")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def a_store(data: Path, *, events: int = 3, documents: int = 0) -> Path:
    """The data folder of an agent that owes `events` deliveries, with its keys and raw documents too large for the store."""
    data.mkdir(mode=0o750)
    store = data / "distctl.db"
    store.touch(mode=0o600)
    with closing(connect_writer(store)) as connection:
        migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
        estates.adopt(connection, ESTATE, now=0)
        life.begin(connection, SITE, now=0)
        connection.execute("BEGIN")
        audit.append(connection, at_ms=0, actor="agent", action="adopt", target="estate")
        owe(connection, a_lane(connection), *(an_event(f"PO-{n}", n) for n in range(events)))
        connection.execute("COMMIT")
    for number in range(documents):
        add_document(data, b"document %d" % number)
    for name in ("identity/key.pem", "ca/ca.pem", "ca/issued/north.pem"):
        (data / name).parent.mkdir(mode=0o700, exist_ok=True)
        (data / name).write_text(name)
        (data / name).chmod(0o600)
    return data


def add_document(data: Path, content: bytes) -> Path:
    name = sha256(content)
    path = data / "raw" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with closing(connect_writer(data / "distctl.db")) as connection:
        row = (bytes.fromhex(name), "big.csv", len(content))
        connection.execute("INSERT INTO raw_documents (sha256, name, size, received_at) VALUES (?, ?, ?, 0)", row)
    return path


def rows(data: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(connect_reader(data / "distctl.db")) as connection:
        return connection.execute(query).fetchall()


def is_whole(data: Path) -> None:
    with closing(connect_reader(data / "distctl.db")) as connection:
        assert backup.findings(connection) == []


# --- making one ---------------------------------------------------------------------------------------------------


def test_a_store_that_no_agent_owns_is_backed_up_with_what_lies_beside_it(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data", documents=2)
    made = done("--data", data, "backup", folder, "-o", "json").json
    path = Path(made["path"])
    manifest = json.loads((path / "manifest.json").read_bytes())
    files = {entry["path"]: entry for entry in manifest["files"]}
    assert sorted(files) == ["ca/ca.pem", "ca/issued/north.pem", "distctl.db", "identity/key.pem"]
    assert files["ca/ca.pem"]["sha256"] == sha256(b"ca/ca.pem")
    assert (manifest["site"], manifest["epoch"], manifest["events"], manifest["last_event"]) == (SITE, 1, 3, 3)
    assert (manifest["audit"]["seq"], manifest["estate"]) == (1, ESTATE.hash)
    assert sorted(one["sha256"] for one in manifest["documents"]) == sorted(
        sha256(b"document %d" % number) for number in range(2)
    )
    assert made["manifest_sha256"] == sha256((path / "manifest.json").read_bytes())
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.rglob("*") if one.is_file()} == {0o600}
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, path / "ca", path / "identity")} == {0o700}
    assert distctl("verify", path).code == ExitCode.DONE
    ((last_event, manifest_hash),) = rows(data, "SELECT last_event, lower(hex(manifest)) FROM backups")
    assert (last_event, manifest_hash) == (3, made["manifest_sha256"])
    assert rows(data, "SELECT action, target FROM audit ORDER BY seq DESC LIMIT 1") == [("back up", "store")]
    assert leftovers(folder) == []


def test_raw_documents_that_the_folder_has_are_not_copied_again(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data", documents=1)
    done("--data", data, "backup", folder)
    (kept,) = [path for path in (folder / "raw").rglob("*") if path.is_file()]
    before = kept.stat()
    add_document(data, b"another")
    second = done("--data", data, "backup", folder, "-o", "json").json
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len([path for path in (folder / "raw").rglob("*") if path.is_file()]) == 2
    assert done("verify", second["path"], "-o", "json").json["ok"]


def test_a_document_that_the_archive_lost_does_not_keep_the_rest_from_being_saved(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data", documents=2)
    add_document(data, b"removed").unlink()
    add_document(data, b"rotten").write_bytes(b"rotting")
    ended = done("--data", data, "backup", folder, "-o", "json")
    assert ended.json["missing_documents"] == 2
    assert "2 raw documents are not in it" in ended.err
    assert done("verify", ended.json["path"], "-o", "json").json["ok"]


def test_a_damaged_store_makes_no_backup(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    with closing(sqlite3.connect(data / "distctl.db", isolation_level=None)) as spoiling:
        spoiling.execute("UPDATE lanes SET pending = 7")
    ended = distctl("--data", data, "backup", folder)
    assert ended.code == ExitCode.FAILED
    assert "the counters of the lane f to n/erp are not those of its deliveries" in ended.err
    assert listed(folder) == []
    assert leftovers(folder) == []
    assert rows(data, "SELECT count(*) FROM backups") == [(0,)]


def test_the_newest_is_listed_first_and_what_is_no_backup_is_not(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    names = [done("--data", data, "backup", folder, "-o", "json").json["name"] for _ in range(2)]
    (folder / "holiday.jpg").touch()
    (folder / "photos").mkdir()
    (folder / ".unfinished-x").mkdir()
    (folder / ".unfinished-x" / "manifest.json").touch()
    spoiled = folder / "spoiled"
    spoiled.mkdir()
    (spoiled / "manifest.json").write_text("{}")
    found = done("backup", "list", folder, "-o", "json").json
    assert [one["name"] for one in found] == [*reversed(names), "spoiled"]
    assert found[-1]["problem"].startswith(f"{spoiled}/manifest.json is no manifest: ")
    assert "north-2" in done("backup", "list", folder).out
    assert distctl("backup", "list", folder / "nowhere").code == ExitCode.NOT_FOUND


def test_the_folder_is_made_but_not_its_parents(tmp_path: Path) -> None:
    data = a_store(tmp_path / "data")
    ended = distctl("--data", data, "backup", tmp_path / "not-mounted" / "backups")
    assert ended.code == ExitCode.UNREACHABLE
    assert "No such file or directory" in ended.err
    assert distctl("--data", tmp_path / "nothing", "backup", tmp_path / "backups").code == ExitCode.NOT_FOUND


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("what", ["store", "documents"])
def test_a_disk_that_fills_up_publishes_nothing_and_leaves_nothing(tmp_path: Path, small_disk: Path, what: str) -> None:
    data = a_store(tmp_path / "data", events=6000 if what == "store" else 3)
    if what == "documents":
        add_document(data, os.urandom(3 << 20))
    ended = distctl("--data", data, "backup", small_disk)
    assert ended.code == ExitCode.UNREACHABLE
    assert "the disk is full" in ended.err
    assert "Nothing was published" in ended.err
    assert listed(small_disk) == []
    assert leftovers(small_disk) == []
    is_whole(data)


# --- killed in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [point for point in BACKUP_POINTS if point not in BY_THE_AGENT_ALONE])
def test_a_backup_killed_anywhere_is_published_whole_or_not_at_all(tmp_path: Path, folder: Path, point: str) -> None:
    data = a_store(tmp_path / "data", documents=1)
    assert distctl("--data", data, "backup", folder, crash_at=point).code == -signal.SIGKILL
    found = listed(folder)
    assert len(found) == (point == "backup.after_publish")
    assert all(map(is_good, found))
    assert rows(data, "SELECT count(*) FROM backups") == [(0,)]
    done("--data", data, "backup", folder)
    assert leftovers(folder) == []
    assert len(listed(folder)) == len(found) + 1
    assert rows(data, "SELECT count(*) FROM backups") == [(1,)]


def test_a_backup_killed_at_any_moment_is_never_listed_in_part(
    tmp_path: Path, folder: Path, tally: Counter[str]
) -> None:
    data = a_store(tmp_path / "data", documents=3)
    add_document(data, os.urandom(32 << 20))
    with closing(connect_writer(data / "distctl.db")) as connection:
        row = (
            "INSERT INTO raw_documents (sha256, name, size, content, received_at) VALUES (randomblob(32), '', 1, ?, 0)"
        )
        connection.execute(row, (os.urandom(32 << 20),))
    dice = random.Random(SEED)
    cut = 0
    for _ in range(KILLS):
        running = subprocess.Popen(command("--data", data, "backup", folder), stdout=subprocess.DEVNULL)
        until(lambda: leftovers(folder), "a backup is being made")
        time.sleep(dice.uniform(0, 0.4))
        running.kill()
        running.wait()
        cut += bool(leftovers(folder))
        for path in folder.glob(".unfinished*"):  # so that the next one is seen to begin
            shutil.rmtree(path)
        assert all(map(is_good, listed(folder)[:1]))
        tally["kills, during a backup"] += 1
    assert cut, "no kill hit a backup that was being made"
    done("--data", data, "backup", folder)
    is_whole(data)


@pytest.mark.parametrize(
    ("point", "passage"),
    [
        ("restore.after_copy", 1),
        ("restore.before_mark", 1),
        *(("restore.after_move_aside", passage) for passage in (1, 2)),  # the WAL, the store
        *(("restore.before_publish", passage) for passage in (1, 2)),  # the authority, the store
        *(("restore.after_publish", passage) for passage in (1, 2)),
    ],
)
def test_a_restore_killed_anywhere_is_finished_by_the_next_one(
    tmp_path: Path, folder: Path, point: str, passage: int
) -> None:
    data = a_store(tmp_path / "data", documents=2)
    path = backed_up(data, folder)
    (data / "identity" / "key.pem").write_text("newer")
    shutil.rmtree(data / "ca")
    (data / "distctl.db-wal").write_bytes(b"")
    words = ("--data", data, "restore", path, "--reason", "a drill", "--replace")
    killed = distctl(*words, crash_at=f"{point}:{passage}")
    assert killed.code == -signal.SIGKILL, killed.err
    if point not in {"restore.after_copy", "restore.before_mark"}:
        with pytest.raises(ConflictError, match="a restore of the store"):  # whoever would begin to write it
            Ownership(data / "distctl.db")
    done(*words)
    is_whole(data)
    assert rows(data, "SELECT site, epoch FROM life") == [(SITE, 2)]
    assert rows(data, "SELECT DISTINCT state FROM deliveries") == [("in_doubt",)]
    assert rows(data, "SELECT count(*) FROM audit WHERE action = 'restore'") == [(1,)]
    assert (data / "ca" / "issued" / "north.pem").read_text() == "ca/issued/north.pem"
    assert (data / "identity" / "key.pem").read_text() == "newer"
    (aside,) = data.glob("replaced-*")
    assert rows(aside, "SELECT site, epoch FROM life") == [(SITE, 1)]
    assert not (data / "restored").exists()
    assert not (data / "distctl.db.restoring").exists()


# --- looking at one -----------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)


def test_every_file_that_was_changed_cut_or_lost_is_named(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data", documents=3)
    path = backed_up(data, folder)
    documents = sorted(one for one in (folder / "raw").rglob("*") if one.is_file())
    flip(documents[0], 3)
    documents[1].write_bytes(b"")
    documents[2].unlink()
    flip(path / "ca" / "ca.pem", 0)
    flip(path / "distctl.db", 60)  # the user version, which SQLite does not look at
    ended = distctl("verify", path, "-o", "json")
    assert ended.code == ExitCode.UNHEALTHY
    assert not ended.json["ok"]
    assert sorted(ended.json["findings"]) == sorted(
        [
            f"{documents[0].name} is not what was written: its SHA-256 differs",
            f"{documents[1].name} has 0 bytes instead of 10",
            f"{documents[2].name} cannot be read: No such file or directory",
            "ca.pem is not what was written: its SHA-256 differs",
            "distctl.db is not what was written: its SHA-256 differs",
        ]
    )
    assert "cannot be trusted" in ended.err
    restored = distctl("--data", tmp_path / "new", "restore", path, "--reason", "x")
    assert restored.code == ExitCode.UNHEALTHY
    assert not (tmp_path / "new" / "distctl.db").exists()


def test_a_manifest_that_belongs_to_another_store_is_noticed(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    path = backed_up(data, folder)
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest | {"last_event": 4}))
    ended = distctl("verify", path)
    assert ended.code == ExitCode.UNHEALTHY
    assert "the store holds other things than the manifest says" in ended.err
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    assert "of a newer form" in distctl("verify", path).err
    assert distctl("verify", folder).code == ExitCode.NOT_FOUND


def test_a_manifest_names_no_file_outside_its_backup(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    path = backed_up(data, folder)
    manifest = json.loads((path / "manifest.json").read_bytes())
    for name in ("../../outside", "/etc/passwd", "ca/../../outside", ".hidden"):
        spoiled = manifest | {"files": [manifest["files"][0] | {"path": name}]}
        (path / "manifest.json").write_text(json.dumps(spoiled))
        ended = distctl("--data", tmp_path / "new", "restore", path, "--reason", "x")
        assert ended.code == ExitCode.UNREACHABLE
        assert "is no manifest: files.0.path" in ended.err


# --- putting one back ---------------------------------------------------------------------------------------------


def test_a_store_that_is_there_is_moved_aside_only_when_told_to(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    path = backed_up(data, folder)
    refused = distctl("--data", data, "restore", path, "--reason", "x")
    assert refused.code == ExitCode.CONFLICT
    assert "holds distctl.db already" in refused.err
    first = done("--data", data, "restore", path, "--reason", "x", "--replace", "-o", "json").json
    second = done("--data", data, "restore", path, "--reason", "x", "--replace", "-o", "json").json
    assert (first["epoch"], second["epoch"]) == (2, 3), "an epoch came back"
    assert len(list(data.glob("replaced-*/distctl.db"))) == 2
    assert stat.S_IMODE((data / "distctl.db").stat().st_mode) == 0o600


def test_it_is_known_whose_backup_it_is(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data")
    path = backed_up(data, folder)
    assert (
        distctl("--data", tmp_path / "new", "--site", "south", "restore", path, "--reason", "x").code == ExitCode.USAGE
    )
    assert distctl("--data", data, "--site", "south", "backup", folder).code == ExitCode.USAGE
    assert distctl("restore", path, "--reason", "x").code == ExitCode.USAGE


def test_raw_documents_come_back_under_their_hash(tmp_path: Path, folder: Path) -> None:
    data = a_store(tmp_path / "data", documents=2)
    path = backed_up(data, folder)
    new = tmp_path / "new"
    done("--data", new, "restore", path, "--reason", "a new disk")
    for number in range(2):
        content = b"document %d" % number
        name = sha256(content)
        assert (new / "raw" / name[:2] / name).read_bytes() == content
    assert (new / "ca" / "issued" / "north.pem").read_text() == "ca/issued/north.pem"
    is_whole(new)


# --- with an agent ------------------------------------------------------------------------------------------------


@pytest.fixture
def remembering() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def forgetful() -> Iterator[Partner]:
    with open_partner(remembers_keys=False) as partner:
        yield partner


@pytest.fixture
def estate(tmp_path: Path, remembering: Partner, forgetful: Partner) -> EstateFolder:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", remembering.url, memory={"key_lifetime": "1h"})
    estate.add_erp("old-erp", forgetful.url, memory={"lands_within": "1s"})
    estate.add_flow("reco", to_erp("erp", probe=False), to_erp("old-erp"))
    estate.write()
    return estate


@pytest.fixture
def agent(tmp_path: Path, estate: EstateFolder) -> Iterator[AgentProcess]:
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        yield agent


def test_a_running_agent_is_backed_up_while_it_works(
    agent: AgentProcess, estate: EstateFolder, folder: Path, remembering: Partner
) -> None:
    planner = Planner(estate.folder / "planning")
    agent.run()
    for _ in range(4):
        planner.publish(*(f"R-{number}" for number in range(10)))
        done("--data", agent.data, "backup", folder)
    until(lambda: taken(remembering) == planner.published, "everything is delivered once and in order")
    found = listed(folder)
    assert len(found) == 4
    assert all(map(is_good, found))
    assert [row[0] for row in agent.rows("SELECT last_event FROM backups ORDER BY id DESC")] == [
        one.last_event for one in found
    ]
    assert agent.client.audit_verdict().ok
    (entry,) = [one for one in agent.client.audit(limit=1).items if one.action == "back up"]
    assert entry.details == {"last_event": found[0].last_event, "manifest": found[0].manifest_sha256}
    assert agent.stop() == 0


def test_nothing_is_lost_or_doubled_when_a_store_is_put_back_that_is_behind(
    agent: AgentProcess, estate: EstateFolder, folder: Path, remembering: Partner, forgetful: Partner
) -> None:
    planner = Planner(estate.folder / "planning")
    references = [f"R-{number}" for number in range(12)]
    agent.run()
    planner.publish(*references)
    until(lambda: taken(remembering) == taken(forgetful) == planner.published, "the first are delivered")
    remembering.close_shop()
    forgetful.close_shop()
    planner.publish(*references, *references)
    until(lambda: agent.status().totals.backlog == 48, "48 deliveries wait")
    path = backed_up(agent.data, folder)
    remembering.open_shop()
    forgetful.open_shop()
    until(lambda: taken(remembering) == taken(forgetful) == planner.published, "what waited is delivered")
    agent.settle()
    agent.kill()
    refused = distctl("--data", agent.data, "restore", path, "--reason", "x")
    assert refused.code == ExitCode.CONFLICT
    told = done("--data", agent.data, "restore", path, "--reason", "the disk lost a day", "--replace").out
    assert "now in epoch 2" in told
    assert "48 deliveries are in doubt" in told

    agent.run()
    agent.settle(seconds=60)
    planner.publish(*references)
    until(lambda: taken(remembering) == taken(forgetful) == planner.published, "the new ones follow, and nothing else")
    agent.settle(seconds=60)
    assert counted(agent) == []
    assert agent.client.audit_verdict().ok
    assert agent.status().open_dead_letters == 0
    assert agent.stop() == 0


def test_an_agent_that_runs_keeps_its_store(agent: AgentProcess, folder: Path) -> None:
    agent.run()
    path = backed_up(agent.data, folder)
    refused = distctl("--data", agent.data, "restore", path, "--reason", "x", "--replace")
    assert refused.code == ExitCode.CONFLICT
    assert "is already open in another process" in refused.err
    assert agent.answers()


@pytest.mark.parametrize("point", ["backup.before_publish", *BY_THE_AGENT_ALONE])
def test_an_agent_killed_during_a_backup_comes_back_and_makes_the_next(
    agent: AgentProcess, folder: Path, point: str
) -> None:
    agent.run(crash_at=point)
    killed = distctl("--data", agent.data, "backup", folder)
    assert killed.code == ExitCode.IN_DOUBT, killed.err
    assert agent.wait() == -signal.SIGKILL
    is_published = point in BY_THE_AGENT_ALONE
    assert len(listed(folder)) == is_published
    assert agent.rows("SELECT count(*) FROM backups") == [(int(point == "backup.note.after_commit"),)]
    agent.run()
    done("--data", agent.data, "backup", folder)
    assert len(listed(folder)) == is_published + 1
    assert leftovers(folder) == []
    assert agent.stop() == 0


def test_an_agent_that_ends_ends_its_backup(agent: AgentProcess, folder: Path) -> None:
    agent.run()
    assert agent.stop() == 0
    with closing(sqlite3.connect(agent.store, isolation_level=None)) as filling:
        filling.execute("CREATE TABLE ballast (content BLOB)")
        for _ in range(300):
            filling.execute("INSERT INTO ballast VALUES (randomblob(1048576))")
    agent.run()
    asking = subprocess.Popen(command("--data", agent.data, "backup", folder), stderr=subprocess.PIPE, text=True)
    until(lambda: leftovers(folder), "the backup has begun")
    assert agent.stop() == 0
    _, told = asking.communicate(timeout=30)
    assert asking.returncode in {ExitCode.UNREACHABLE, ExitCode.IN_DOUBT}, told
    assert listed(folder) == []
    assert leftovers(folder) == []


def test_a_backup_never_takes_the_room_that_the_agent_needs(tmp_path: Path, estate: EstateFolder, folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    size = f"size={ROOM_KEPT - (8 << 20)}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", data], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        with AgentProcess(estate.folder, data) as agent:
            agent.run()
            ended = distctl("--data", data, "backup", folder)
            assert ended.code == ExitCode.UNREACHABLE
            assert "MiB are left where the store is" in ended.err
            assert listed(folder) == []
            assert agent.answers()
            assert agent.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)
