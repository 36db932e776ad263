"""Copies of a store: one moment of it, looked at as a whole; and what becomes of a store that is put back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from state import audit, backup, estates, life, peers, restore, retention, streams
from state.engine import connect_reader, connect_writer
from state.lanes import Lane
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.delivery import DeliveryState, OrderMode, OutcomeKind, TargetMemory, Verdict
from state.model.errors import ConfigError, ConflictError, StoreCorruptError, StoreError
from state.model.event import Op
from state.model.ids import EventId, Seq, idempotency_key
from state.model.stream import Mark
from state.outbox import Outbox, Release
from state.retention import Held
from state.store_file import Ownership, restore_mark
from state.testing import NOON
from tests.stores.test_outbox import (
    ESTATE,
    REMEMBERS,
    a_lane,
    an_event,
    check_invariants,
    claim,
    later,
    owe,
    settle,
    states,
)

LATER = NOON + timedelta(hours=3)
ELEPHANT = TargetMemory(key_lifetime=timedelta(days=30))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "distctl.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    path.touch()
    with closing(connect_writer(path)) as connection:
        migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
        estates.adopt(connection, ESTATE, now=0)
        life.begin(connection, "n", now=0)
        yield connection


@pytest.fixture
def lane(connection: sqlite3.Connection) -> Lane:
    return a_lane(connection)


def go_on() -> None:
    """Nobody wants it to end."""


def copied(path: Path) -> Path:
    target = path.with_name("copy.db")
    with closing(connect_reader(path)) as source:
        backup.copy(source, target, go_on=go_on)
    return target


def found(target: Path) -> list[str]:
    with backup.opened(target) as connection:
        return backup.findings(connection)


# --- a copy -------------------------------------------------------------------------------------------------------


def test_a_copy_holds_what_the_store_holds(path: Path, connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-2", 2))
    audit.append(connection, at_ms=0, actor="ada", action="hold", target="lane f")
    target = copied(path)
    assert found(target) == []
    with backup.opened(target) as copy:
        held = backup.contents(copy)
        assert held == backup.contents(connection)
    assert (held.site, held.epoch, held.events, held.last_event) == ("n", 1, 2, 2)
    assert (held.estate, held.audit) == (ESTATE.hash, audit.head(connection))


def test_a_look_at_a_copy_makes_no_file_and_changes_none(path: Path, connection: sqlite3.Connection) -> None:
    target = copied(path)
    before = target.read_bytes()
    with closing(sqlite3.connect(target)) as plain:
        assert plain.execute("SELECT count(*) FROM events").fetchone() == (0,)
        assert sorted(one.name for one in path.parent.glob("copy.db*")) == ["copy.db"]
    assert found(target) == []
    assert sorted(one.name for one in path.parent.glob("copy.db*")) == ["copy.db"]
    assert target.read_bytes() == before


def test_a_copy_is_one_moment_of_a_store_that_is_written_meanwhile(
    path: Path, connection: sqlite3.Connection, lane: Lane
) -> None:
    connection.execute("CREATE TABLE ballast (content BLOB) STRICT")
    connection.execute("CREATE TABLE pairs (one INTEGER, other INTEGER) STRICT")
    connection.execute("INSERT INTO pairs VALUES (0, 0)")
    for _ in range(16):
        connection.execute("INSERT INTO ballast VALUES (randomblob(1048576))")
    ended, commits = threading.Event(), 0

    def write() -> None:
        nonlocal commits
        with closing(connect_writer(path)) as writer:
            while not ended.is_set():
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("UPDATE pairs SET one = one + 1")
                owe(writer, lane, an_event(f"PO-{commits}", commits))
                writer.execute("UPDATE pairs SET other = other + 1")
                writer.execute("COMMIT")
                commits += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        before = commits
        target = copied(path)
        during = commits - before
    finally:
        ended.set()
        thread.join()
    assert during > 0, "the writer stood still"
    assert found(target) == []
    with backup.opened(target) as copy:
        (one, other) = copy.execute("SELECT one, other FROM pairs").fetchone()
        assert one == other == backup.contents(copy).events
        assert one < commits


def test_a_copy_ends_when_it_is_told_to(path: Path, connection: sqlite3.Connection) -> None:
    for _ in range(8):
        connection.execute(
            "INSERT INTO raw_documents (sha256, name, size, content, received_at) "
            "VALUES (randomblob(32), 'a', 1, randomblob(1048576), 0)"
        )
    looks = 0

    def stop() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise StoreError("told to end", code="told")

    with closing(connect_reader(path)) as source:
        with pytest.raises(StoreError, match="told to end"):
            backup.copy(source, path.with_name("copy.db"), go_on=stop)
        assert not source.in_transaction


def test_a_look_ends_when_it_is_told_to(path: Path, connection: sqlite3.Connection) -> None:
    def stop() -> None:
        raise StoreError("told to end", code="told")

    sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000) SELECT count(*) FROM n"
    with pytest.raises(StoreError, match="told to end"), backup.opened(copied(path), go_on=stop) as copy:
        copy.execute(sql).fetchone()


# --- findings -----------------------------------------------------------------------------------------------------


def broken(path: Path, *statements: str) -> list[str]:
    """What is found in a copy after somebody did that to it."""
    target = copied(path)
    with closing(sqlite3.connect(target, isolation_level=None)) as spoiling:
        for statement in statements:
            spoiling.execute(statement)
    return found(target)


def test_a_reference_that_leads_nowhere_is_found(path: Path, connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1))
    (finding,) = broken(path, "DELETE FROM trace", "DELETE FROM events")
    assert finding == "row 1 of deliveries refers to a row of events that is not there"


def test_an_audit_that_was_edited_is_found(path: Path, connection: sqlite3.Connection) -> None:
    audit.append(connection, at_ms=0, actor="ada", action="hold", target="lane f")
    (finding,) = broken(path, "DROP TRIGGER audit_refuses_update", "UPDATE audit SET actor = 'bob'")
    assert finding == "the audit is broken at entry 1: its content is not what was written"


def test_an_audit_that_does_not_reach_what_was_seen_is_found(path: Path, connection: sqlite3.Connection) -> None:
    audit.append(connection, at_ms=0, actor="ada", action="hold", target="lane f")
    with backup.opened(copied(path)) as copy:
        missing = audit.AuditHead(seq=2, hash="0" * 64)
        assert backup.findings(copy, expected=missing) == [
            "the audit is broken at entry 2: the end is missing: there were 2 entries"
        ]


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE lanes SET pending = 2", "the counters of the lane f to n/erp are not those of its deliveries"),
        ("UPDATE lanes SET pending = 0", "the counters of the lane f to n/erp are not those of its deliveries"),
        ("UPDATE key_queues SET head = 99", "the queue of the key PO-1 points at no delivery of its own"),
        ("DELETE FROM key_queues", "delivery 1 is in no queue"),
    ],
)
def test_a_store_out_of_step_with_itself_is_found(
    path: Path, connection: sqlite3.Connection, lane: Lane, statement: str, finding: str
) -> None:
    owe(connection, lane, an_event("PO-1", 1))
    assert broken(path, statement) == [finding]


def test_a_page_that_was_overwritten_is_found(path: Path, connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, *(an_event(f"PO-{n}", n) for n in range(200)))
    target = copied(path)
    raw = bytearray(target.read_bytes())
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()
    raw[(root - 1) * 8192 : (root - 1) * 8192 + 64] = bytes(64)
    target.write_bytes(raw)
    (finding, *_) = found(target)
    assert finding.startswith("the file is damaged: ")


def test_what_is_no_store_is_said_to_be_damaged(tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreCorruptError):
        found(target)


# --- noting one ---------------------------------------------------------------------------------------------------


def test_the_last_backup_says_how_far_it_covers(connection: sqlite3.Connection, lane: Lane) -> None:
    assert backup.last(connection) is None
    owe(connection, lane, an_event("PO-1", 1))
    site = peers.ensure(connection, "s")
    streams.receive(connection, site.id, epoch=4, tier=1, mark=Mark(17, b"x" * 32))
    held = backup.contents(connection)
    owe(connection, lane, an_event("PO-1", 2))
    noted = backup.note(connection, held, name="one", folder="/b", manifest_sha256="ab" * 32, taken_at=NOON, now=NOON)
    assert noted
    last = backup.last(connection)
    assert last is not None
    assert (last.name, last.last_event, last.epoch, last.manifest_sha256) == ("one", 1, 1, "ab" * 32)
    assert retention.held_of(connection, site.id) == Held(taken_at=NOON, streams={(4, 1): 17})


def test_a_store_of_an_older_schema_is_described_and_notes_nothing(path: Path) -> None:
    path.touch()
    with closing(connect_writer(path)) as old:
        migrate(old, shipped()[:1], now_ms=0, crash=lambda _: None)
        held = backup.contents(old)
        assert (held.step, held.site, held.epoch, held.received) == (1, "", 0, ())
        assert not backup.note(old, held, name="one", folder="/b", manifest_sha256="ab" * 32, taken_at=NOON, now=NOON)
        assert found(copied(path)) == []


# --- putting one back ---------------------------------------------------------------------------------------------


def put_back(connection: sqlite3.Connection, *, above: int = 0, site: str = "n") -> tuple[life.Life, int]:
    return restore.begin_again(
        connection,
        backup.contents(connection),
        site=site,
        above=above,
        name="one",
        folder="/b",
        manifest_sha256="ab" * 32,
        taken_at=NOON,
        now=LATER,
        by="ada",
        reason="the disk died",
    )


def in_doubt_after(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT state, first_sent_at, last_sent_at, last_denied_at, due_at FROM deliveries ORDER BY id"
    ).fetchall()


def test_what_was_owed_is_in_doubt_since_the_backup(connection: sqlite3.Connection, lane: Lane) -> None:
    early = NOON - timedelta(minutes=10)
    arrived = (an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-2", 3), an_event("PO-3", 4))
    owe(connection, lane, *arrived, now=early)
    for one in claim(connection, lane, limit=3, now=early):
        if one.event.subject == "PO-3":
            settle(connection, one, now=early)
    _, doubted = put_back(connection)
    assert doubted == 3
    noon, sent, late = to_millis(NOON), to_millis(early), to_millis(LATER)
    assert in_doubt_after(connection)[:3] == [
        ("in_doubt", sent, late, None, late),  # it was in flight
        ("in_doubt", noon, late, None, late),
        ("in_doubt", sent, late, None, late),
    ]
    assert states(connection)[3] == "delivered"
    check_invariants(connection)


def test_a_denial_that_was_heard_before_the_backup_counts_no_more(connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1))
    (one,) = claim(connection, lane)
    denied = Release(
        state=DeliveryState.IN_DOUBT, due_at=NOON + timedelta(hours=9), code="", detail="", doubt=one.doubt
    )
    with Outbox(connection, now=NOON) as outbox:
        outbox.release(one, denied)
    connection.execute("UPDATE deliveries SET last_denied_at = ?", (to_millis(NOON),))
    put_back(connection)
    late = to_millis(LATER)
    assert in_doubt_after(connection) == [("in_doubt", to_millis(NOON), late, None, late)]
    check_invariants(connection)


def test_what_the_target_will_answer_later_is_asked_and_not_sent(connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-2", 2))
    for one in claim(connection, lane):
        delayed = Release(
            state=DeliveryState.DELAYED, due_at=NOON, code="", detail="", doubt=one.doubt, outcome=OutcomeKind.DELAYED
        )
        with Outbox(connection, now=NOON) as outbox:
            outbox.release(one, delayed)
    claim(connection, lane, limit=1)  # it is being asked
    put_back(connection)
    assert states(connection) == ["delayed", "delayed"]
    check_invariants(connection)
    assert [one.verdict for one in claim(connection, lane, now=LATER)] == [Verdict.PROBE, Verdict.PROBE]


def test_inside_the_memory_of_its_target_it_goes_again_under_the_same_key(
    connection: sqlite3.Connection, lane: Lane
) -> None:
    event = an_event("PO-1", 1)
    owe(connection, lane, event)
    put_back(connection)
    (again,) = claim(connection, lane, memory=ELEPHANT, now=LATER)
    assert (again.verdict, again.payload) == (Verdict.RESEND, event.data)
    assert again.idempotency_key == idempotency_key(event=event.id, target="n/erp", version=1)


def test_beyond_the_memory_of_its_target_it_waits_for_a_person(connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1))
    put_back(connection)
    assert claim(connection, lane, memory=REMEMBERS, now=LATER) == []
    assert connection.execute("SELECT state FROM key_queues").fetchall() == [("blocked",)]


@pytest.mark.parametrize("mode", list(OrderMode))
def test_counters_and_keys_hold_in_every_order(connection: sqlite3.Connection, mode: OrderMode) -> None:
    lane = a_lane(connection, mode)
    owe(connection, lane, *(an_event(f"PO-{n % 5}", n, op=(Op.SNAPSHOT, Op.DELTA)[n % 2]) for n in range(40)))
    held = claim(connection, lane, limit=4)
    settle(connection, held[0])
    with Outbox(connection, now=NOON) as outbox:
        outbox.release(held[1], later(held[1], after=timedelta(days=1)))
    put_back(connection)
    check_invariants(connection)
    assert set(states(connection)) <= {"in_doubt", "delivered", "superseded"}
    assert len(claim(connection, lane, memory=ELEPHANT, now=LATER)) == 5


def test_a_restore_begins_an_epoch_that_never_was(connection: sqlite3.Connection) -> None:
    assert put_back(connection)[0] == life.Life(site="n", epoch=2)
    assert put_back(connection, above=7)[0] == life.Life(site="n", epoch=8)
    assert life.get(connection).epoch == 8


def test_what_nobody_acknowledged_is_sent_in_the_new_epoch(connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-2", 2))
    hub = peers.ensure(connection, "hq")
    rows = connection.execute("SELECT seq, lower(hex(id)), data FROM events").fetchall()
    items = [(Seq(number), EventId(event), data) for number, event, data in rows]
    streams.append(connection, hub.id, epoch=1, tier=1, items=items)
    (first, _) = items
    mark = Mark(1, streams.chains_at(connection, hub.id, epoch=1, marks={1: Mark(1, b"")})[1])
    streams.acknowledge(connection, hub.id, epoch=1, marks={1: mark})
    put_back(connection, above=4)
    (sent,) = streams.events_after(connection, hub.id, epoch=5, tier=1, seq=0, limit=10)
    assert sent.subject == "PO-2"
    assert first[1] != sent.id


def test_a_restore_is_in_the_audit_with_the_backup_it_used(connection: sqlite3.Connection, lane: Lane) -> None:
    owe(connection, lane, an_event("PO-1", 1))
    put_back(connection)
    (entry,) = audit.entries(connection, action="restore")
    assert (entry.actor, entry.reason, entry.details["manifest"]) == ("ada", "the disk died", "ab" * 32)
    assert entry.after == {"epoch": 2, "in_doubt": 1}
    last = backup.last(connection)
    assert last is not None
    assert (last.name, last.last_event) == ("one", 1)


def test_the_backup_of_another_site_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(ConfigError, match="belongs to site n, not to s"):
        put_back(connection, site="s")


def test_no_agent_takes_a_store_that_is_being_exchanged(path: Path) -> None:
    restore_mark(path).touch()
    with pytest.raises(ConflictError, match="was begun and did not end"):
        Ownership(path)
    assert not path.exists()
    Ownership(path, restoring=True).release()
    assert not path.exists()
    restore_mark(path).unlink()
    Ownership(path).release()
    assert path.exists()
