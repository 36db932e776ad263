"""The rule of retention on a real store: what goes, each reason for which something stays, and what is known afterwards."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from state import audit, backup, dead_letters, estates, gaps, inbox, life, peers, retention, streams, unapplied
from state.dead_letters import Letter
from state.engine import connect_writer
from state.inbox import Admitted, Arrival
from state.lanes import Lane, ensure_lane, list_lanes
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.delivery import OrderMode, OutcomeKind, TargetMemory
from state.model.errors import RejectedError
from state.model.estate import Estate, EstateSettings
from state.model.event import Environment, Event, Op
from state.model.ids import EventId, Seq, event_id
from state.model.stream import BEGINNING, Mark
from state.outbox import Outbox, Owed, Settlement, next_fence
from state.peers import Peer
from state.retention import Bound, Held
from state.testing import NOON

ESTATE = Estate(settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR"), sites={}, flows={})
SETTLED = timedelta(days=30)
OLD = NOON - timedelta(days=60)
YOUNG = NOON - timedelta(days=29)
DONE = Settlement(kind=OutcomeKind.ACCEPTED)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    estates.adopt(connection, ESTATE, now=0)
    life.begin(connection, "n", now=0)
    connection.execute("BEGIN")  # one transaction: nothing here is about commits
    yield connection
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.fixture
def lane(connection: sqlite3.Connection) -> Lane:
    ensure_lane(
        connection, flow="f", target="n/erp", tier=1, order_mode=OrderMode.ANY, order_domain="f", shadow_of=None
    )
    return list_lanes(connection)[0]


@pytest.fixture
def hub(connection: sqlite3.Connection) -> Peer:
    return peers.ensure(connection, "hq")


def an_event(key: str, number: int, *, recorded: datetime = OLD, site: str = "n") -> Event:
    identity = event_id(source=f"/{site}/planning", flow="f", batch="b", position=str(number), key=key, content=b"")
    return Event(
        id=identity,
        source=f"/{site}/planning",
        type="distctl.purchase-order.snapshot",
        subject=key,
        time=recorded,
        contract="purchase-order/1",
        data=b'{"n":%d}' % number,
        partitionkey=key,
        sequence=0,
        recordedtime=recorded,
        correlationid=identity,
        site=site,
        system="planning",
        flow="f",
        op=Op.SNAPSHOT,
        environment=Environment.TEST,
        estate=ESTATE.hash,
    )


def admit(connection: sqlite3.Connection, *events: Event, raw_id: int | None = None) -> list[Admitted]:
    return inbox.admit(connection, [Arrival(event) for event in events], raw_id=raw_id)


def deliver(connection: sqlite3.Connection, lane: Lane, admitted: Sequence[Admitted], *, at: datetime = OLD) -> None:
    """Owe them, and settle whatever the lane owes."""
    owe(connection, lane, admitted, at=at)
    with Outbox(connection, now=at) as outbox:
        while claims := outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=100,
            memory=TargetMemory(),
            call_deadline=timedelta(seconds=1),
            render=lambda event: event.data,
        ):
            outbox.settle([(claim, DONE) for claim in claims])


def owe(connection: sqlite3.Connection, lane: Lane, admitted: Sequence[Admitted], *, at: datetime = OLD) -> None:
    with Outbox(connection, now=at) as outbox:
        outbox.add([Owed(one.seq, lane, one.event.partitionkey, is_snapshot=False) for one in admitted])


def send(connection: sqlite3.Connection, peer: Peer, admitted: Sequence[Admitted], *, epoch: int = 1) -> Mark:
    items = [(one.seq, one.event.id, one.event.data) for one in admitted]
    streams.append(connection, peer.id, epoch=epoch, tier=1, items=items)
    return streams.sent(connection, peer.id, epoch=epoch)[1]


def acknowledge(connection: sqlite3.Connection, peer: Peer, mark: Mark, *, epoch: int = 1) -> None:
    streams.acknowledge(connection, peer.id, epoch=epoch, marks={1: mark})


def back_up(connection: sqlite3.Connection, *, at: datetime = NOON) -> None:
    held = backup.contents(connection)
    backup.note(connection, held, name="b", folder="/b", manifest_sha256="ab" * 32, taken_at=at, now=at)


def let_go(connection: sqlite3.Connection, *, hub: str | None = None, now: datetime = NOON) -> int:
    """One pass of the rule; returns how many events went."""
    bound = retention.bound(connection, hub=hub, settled=SETTLED, now=now)
    return let_go_of(connection, bound) if bound else 0


def let_go_of(connection: sqlite3.Connection, bound: Bound) -> int:
    while retention.let_go_items(connection, bound, limit=3):
        pass
    gone = 0
    after: Seq | None = Seq(0)
    while after is not None:
        old, after = retention.next_events(connection, bound, after=after, limit=3)
        gone += retention.let_go_events(connection, bound, retention.settled(connection, bound, old))
    retention.let_go_records(connection, bound, limit=10)
    last: int | None = 0
    while last is not None:
        found, last = retention.needless_documents(connection, bound, after=last, limit=2)
        retention.let_go_documents(connection, [number for number, _ in found])
    return gone


def count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [seq for (seq,) in connection.execute("SELECT seq FROM events ORDER BY seq")]


# --- what goes ----------------------------------------------------------------------------------------------------


def test_what_is_settled_old_and_backed_up_goes_with_all_that_hangs_on_it(
    connection: sqlite3.Connection, lane: Lane
) -> None:
    deliver(connection, lane, admit(connection, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-2", 3)))
    back_up(connection)
    assert let_go(connection) == 1
    assert numbers(connection) == [2, 3]
    assert (count(connection, "deliveries"), count(connection, "trace"), count(connection, "let_go")) == (2, 2, 1)
    assert backup.findings(connection) == []
    assert retention.kept(connection).let_go == 1


def test_what_was_closed_of_it_goes_too(connection: sqlite3.Connection, lane: Lane) -> None:
    [first, _] = admit(connection, an_event("PO-1", 1), an_event("PO-1", 2))
    owe(connection, lane, [first])
    with Outbox(connection, now=OLD) as outbox:
        [claim] = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=TargetMemory(),
            call_deadline=timedelta(seconds=1),
            render=lambda event: event.data,
        )
        outbox.park(claim, RejectedError("no", code="no"), lane=lane)
    discard(connection, claim.delivery, at=OLD)
    back_up(connection)
    assert let_go(connection) == 1
    assert (count(connection, "dead_letters"), count(connection, "attempts")) == (0, 0)


def discard(connection: sqlite3.Connection, delivery: int, *, at: datetime) -> None:
    """What a person does who gives a delivery up; no command does it yet."""
    moment = to_millis(at)
    connection.execute("UPDATE deliveries SET state = 'discarded', settled_at = ? WHERE id = ?", (moment, delivery))
    connection.execute("UPDATE lanes SET parked = parked - 1, discarded = discarded + 1")
    connection.execute("DELETE FROM key_queues")
    connection.execute("UPDATE dead_letters SET state = 'discarded', closed_at = ?", (moment,))


def test_a_document_goes_with_the_last_that_needs_it_and_the_latest_event_stays_without(
    connection: sqlite3.Connection,
) -> None:
    def keep(number: int, content: bytes | None) -> int:
        return inbox.keep_raw(
            connection, sha256=f"{number:064x}", name="n", size=9, content=content, now=to_millis(OLD)
        )

    admit(connection, an_event("PO-1", 1), raw_id=keep(1, b"1"))
    admit(connection, an_event("PO-1", 2), raw_id=keep(2, None))
    admit(connection, an_event("PO-1", 3, recorded=YOUNG), raw_id=keep(3, b"3"))
    admit(connection, an_event("PO-2", 4), raw_id=keep(4, None))
    back_up(connection)
    assert let_go(connection) == 2
    assert [name for (name,) in connection.execute("SELECT lower(hex(sha256)) FROM raw_documents")] == [f"{3:064x}"]
    assert retention.files(connection, limit=9) == [(f"{2:064x}", False), (f"{4:064x}", False)]
    assert inbox.get(connection, Seq(4)).rawref == f"{4:064x}"
    keep(4, None)
    assert (f"{4:064x}", True) in retention.files(connection, limit=9)
    retention.forget_file(connection, f"{4:064x}")
    assert retention.files(connection, limit=9) == [(f"{2:064x}", False)]


def test_a_document_that_a_dead_letter_refers_to_stays(connection: sqlite3.Connection) -> None:
    raw = inbox.keep_raw(connection, sha256="ab" * 32, name="n", size=9, content=b"1", now=to_millis(OLD))
    dead_letters.add(connection, [a_letter(1)], raw_id=raw, now=to_millis(OLD))
    back_up(connection)
    let_go(connection)
    assert count(connection, "raw_documents") == 1


def a_letter(number: int) -> Letter:
    return Letter(
        record_id=EventId(f"{number:032x}"),
        site="n",
        system="planning",
        flow="f",
        place="line 1",
        rule="r",
        code="c",
        message="m",
        hint="h",
        raw=b"x",
    )


def test_a_closed_record_goes_and_is_not_set_aside_again(connection: sqlite3.Connection) -> None:
    dead_letters.add(connection, [a_letter(1), a_letter(2), a_letter(3)], now=to_millis(OLD))
    close = "UPDATE dead_letters SET state = 'discarded', closed_at = ? WHERE id = ?"
    connection.execute(close, (to_millis(OLD), 1))
    connection.execute(close, (to_millis(YOUNG), 2))
    back_up(connection)
    let_go(connection)
    dead_letters.add(connection, [a_letter(1), a_letter(2), a_letter(3)], now=to_millis(NOON))
    assert [number for (number,) in connection.execute("SELECT id FROM dead_letters")] == [2, 3]


# --- each reason to stay ------------------------------------------------------------------------------------------


def superseded(connection: sqlite3.Connection) -> None:
    """So that it is not for being the latest of its key that the first event stays."""
    admit(connection, an_event("PO-1", 99))


def test_without_a_verified_backup_nothing_goes(connection: sqlite3.Connection) -> None:
    admit(connection, an_event("PO-1", 1), an_event("PO-1", 2))
    assert let_go(connection) == 0


def test_what_came_after_the_backup_stays(connection: sqlite3.Connection) -> None:
    admit(connection, an_event("PO-1", 1))
    back_up(connection)
    admit(connection, an_event("PO-1", 2), an_event("PO-1", 3))
    assert let_go(connection) == 1
    assert numbers(connection) == [2, 3]


def test_what_was_young_when_the_backup_was_made_stays_however_late_it_is_now(connection: sqlite3.Connection) -> None:
    admit(connection, an_event("PO-1", 1, recorded=YOUNG))
    superseded(connection)
    back_up(connection)
    assert let_go(connection, now=NOON + timedelta(days=3650)) == 0
    back_up(connection, at=NOON + timedelta(days=2))
    assert let_go(connection, now=NOON + timedelta(days=2)) == 1


def test_a_backup_of_a_clock_that_was_ahead_lets_nothing_young_go(connection: sqlite3.Connection) -> None:
    admit(connection, an_event("PO-1", 1, recorded=YOUNG))
    superseded(connection)
    back_up(connection, at=NOON + timedelta(days=3650))
    assert let_go(connection) == 0


@pytest.mark.parametrize("at", [None, YOUNG])
def test_what_is_unsettled_or_was_settled_lately_stays(
    connection: sqlite3.Connection, lane: Lane, at: datetime | None
) -> None:
    first = admit(connection, an_event("PO-1", 1))
    deliver(connection, lane, first, at=at) if at else owe(connection, lane, first)
    superseded(connection)
    back_up(connection)
    assert let_go(connection) == 0


@pytest.mark.parametrize("closed", [None, YOUNG])
def test_what_has_a_dead_letter_that_is_open_or_was_closed_lately_stays(
    connection: sqlite3.Connection, lane: Lane, closed: datetime | None
) -> None:
    deliver(connection, lane, admit(connection, an_event("PO-1", 1)))
    superseded(connection)
    letter = """INSERT INTO dead_letters (kind, delivery_id, site, system, flow, place, rule, code, message, hint, raw, state,
                parked_at, closed_at) VALUES ('delivery', 1, 'n', 'erp', 'f', 'p', 'r', 'c', 'm', 'h', x'00', ?, 0, ?)"""
    connection.execute(letter, ("discarded" if closed else "open", to_millis(closed) if closed else None))
    back_up(connection)
    assert let_go(connection) == 0


def test_what_something_of_its_key_waits_behind_stays(connection: sqlite3.Connection, hub: Peer) -> None:
    admit(connection, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-2", 3), an_event("PO-2", 4))
    unapplied.add(connection, [an_event("PO-1", 5)], peer=hub.id, tier=1, code="no-estate", detail="", now=0)
    back_up(connection)
    assert let_go(connection) == 1
    assert numbers(connection) == [1, 2, 4]


def test_a_store_that_is_fenced_or_gathers_lets_nothing_go(connection: sqlite3.Connection, hub: Peer) -> None:
    admit(connection, an_event("PO-1", 1), an_event("PO-1", 2))
    back_up(connection)
    connection.execute("UPDATE life SET gathering = 1")
    assert let_go(connection) == 0
    connection.execute("UPDATE life SET gathering = 0")
    life.fence(connection, "rewound")
    assert let_go(connection) == 0
    connection.execute("UPDATE life SET fenced = ''")
    assert let_go(connection) == 1


def test_at_the_hub_what_a_peer_has_not_acknowledged_stays(connection: sqlite3.Connection) -> None:
    south = peers.ensure(connection, "south")
    sent = admit(connection, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-1", 3))
    reached = send(connection, south, sent[:1])
    send(connection, south, sent[1:])
    acknowledge(connection, south, reached)
    back_up(connection)
    assert let_go(connection, hub="n") == 1
    assert numbers(connection) == [2, 3]


def test_at_the_hub_a_stream_keeps_what_came_after_the_backup(connection: sqlite3.Connection) -> None:
    south = peers.ensure(connection, "south")
    send(connection, south, admit(connection, an_event("PO-1", 1)))
    back_up(connection)
    acknowledge(connection, south, send(connection, south, admit(connection, an_event("PO-1", 2))))
    let_go(connection, hub="n")
    assert gaps.beginnings(connection, south.id)[1][1].mark.seq == 1


def test_at_a_site_what_the_hubs_backup_does_not_hold_stays(connection: sqlite3.Connection, hub: Peer) -> None:
    sent = admit(connection, *(an_event("PO-1", number) for number in range(1, 6)))
    acknowledge(connection, hub, send(connection, hub, sent))
    back_up(connection)  # its own
    assert let_go(connection, hub="hq") == 0
    retention.be_told(connection, hub.id, Held(taken_at=NOON, streams={(1, 1): 2, (2, 1): 9}))
    assert let_go(connection, hub="hq") == 2
    assert numbers(connection) == [3, 4, 5]
    retention.be_told(connection, hub.id, None)
    assert retention.bound(connection, hub="hq", settled=SETTLED, now=NOON) is None


def test_what_arose_before_a_site_had_a_hub_stays_until_its_own_backup_holds_it(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    admit(connection, an_event("PO-1", 1))
    sent = admit(connection, an_event("PO-1", 2), an_event("PO-1", 3))
    acknowledge(connection, hub, send(connection, hub, sent))
    retention.be_told(connection, hub.id, Held(taken_at=NOON, streams={(1, 1): 2}))
    assert let_go(connection, hub="hq") == 1
    assert numbers(connection) == [1, 3]
    back_up(connection)
    assert let_go(connection, hub="hq") == 1
    assert numbers(connection) == [3]


def test_what_came_down_to_a_site_goes_by_its_own_settling(connection: sqlite3.Connection, hub: Peer) -> None:
    admit(connection, an_event("PO-1", 1, site="south"), an_event("PO-1", 2, site="south"))
    retention.be_told(connection, hub.id, Held(taken_at=NOON, streams={}))
    assert let_go(connection, hub="hq") == 1


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_goes_on_from_its_beginning_with_the_chain_that_it_had(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    sent = admit(connection, *(an_event("PO-1", number) for number in range(1, 5)))
    third = send(connection, hub, sent[:3])
    acknowledge(connection, hub, third)
    send(connection, hub, sent[3:])
    back_up(connection)
    let_go(connection, hub="n")
    assert gaps.beginnings(connection, hub.id)[1][1].mark == third
    assert streams.acknowledged(connection, hub.id, epoch=1) == {1: third}
    assert streams.chains_at(connection, hub.id, epoch=1, marks={1: third}) == {1: third.chain}
    assert streams.chains_at(connection, hub.id, epoch=1, marks={1: Mark(2, b"x" * 32)}) == {}
    [event] = streams.events_after(connection, hub.id, epoch=1, tier=1, seq=3, limit=9)
    assert third.after(event.id, event.data) == streams.sent(connection, hub.id, epoch=1)[1]


def test_a_stream_is_let_go_from_its_beginning_on_and_no_further_than_what_is_young(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    sent = admit(connection, an_event("A", 1), an_event("A", 2, recorded=YOUNG), an_event("A", 3), an_event("A", 4))
    acknowledge(connection, hub, send(connection, hub, sent))
    back_up(connection)
    assert let_go(connection, hub="n") == 1
    assert gaps.beginnings(connection, hub.id)[1][1].mark.seq == 1
    assert numbers(connection) == [2, 3, 4]


def test_the_present_epoch_is_touched_only_when_nothing_of_the_ended_ones_is_left(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    ended = admit(connection, an_event("A", 1), an_event("A", 2, recorded=YOUNG), an_event("A", 3))
    send(connection, hub, ended)
    acknowledge(connection, hub, Mark(2, streams.chains_at(connection, hub.id, epoch=1, marks={1: Mark(2, b"")})[1]))
    life.begin_epoch(connection, now=0)
    connection.execute("UPDATE life SET gathering = 0")
    assert streams.owed(connection, hub.id, epoch=2) == {1: 1}
    acknowledge(connection, hub, streams.sent(connection, hub.id, epoch=2)[1], epoch=2)
    admit(connection, an_event("A", 4))
    back_up(connection)
    let_go(connection, hub="n")
    assert gaps.beginnings(connection, hub.id).keys() == {1}
    back_up(connection, at=NOON + timedelta(days=2))
    let_go(connection, hub="n", now=NOON + timedelta(days=2))
    assert {epoch: tiers[1].mark.seq for epoch, tiers in gaps.beginnings(connection, hub.id).items()} == {1: 2, 2: 1}
    assert count(connection, "stream_items") == 0
    assert numbers(connection) == [4]


def test_a_receiver_passes_over_what_is_missing_once_and_knows_what_it_was(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    admit(connection, an_event("A", 1))
    streams.receive(connection, hub.id, epoch=3, tier=2, mark=Mark(7, b"y" * 32))
    begin = {
        3: {2: gaps.Beginning(mark=Mark(20, b"z" * 32), until=YOUNG)},
        4: {1: gaps.Beginning(mark=Mark(5, b"z" * 32), until=YOUNG)},
    }
    [gap] = gaps.pass_over(connection, hub.id, begin, upto_epoch=3, now=NOON)
    assert (gap.epoch, gap.tier, gap.first, gap.last, gap.since, gap.until) == (3, 2, 8, 20, OLD, YOUNG)
    assert gaps.pass_over(connection, hub.id, begin, upto_epoch=3, now=NOON) == []
    assert streams.received(connection, hub.id, epoch=3) == {2: Mark(20, b"z" * 32)}
    assert gaps.list_all(connection, hub.id) == [gap]


def test_how_far_streams_had_come_is_forgotten_but_for_the_newest(connection: sqlite3.Connection, hub: Peer) -> None:
    for number in range(1, 6):
        admit(connection, an_event("A", number))
        streams.receive(connection, hub.id, epoch=1, tier=1, mark=Mark(number, b"x" * 32))
    assert retention.let_go_arrivals(connection, upto=Seq(3), limit=100) == 2
    assert [seq for (seq,) in connection.execute("SELECT seq FROM arrivals ORDER BY seq")] == [3, 4, 5]
    assert retention.let_go_arrivals(connection, upto=Seq(3), limit=100) == 0


# --- read again ---------------------------------------------------------------------------------------------------


def test_what_went_and_is_read_again_is_known(connection: sqlite3.Connection, lane: Lane) -> None:
    events = [an_event("A", number) for number in range(1, 4)]
    deliver(connection, lane, admit(connection, *events))
    back_up(connection)
    assert let_go(connection) == 2
    assert admit(connection, *events) == []
    assert [one.event for one in admit(connection, *events, an_event("A", 4))] == [an_event("A", 4)]


def test_the_audit_stays(connection: sqlite3.Connection) -> None:
    audit.append(connection, at_ms=0, actor="a", action="b", target="c", reason="d")
    back_up(connection)
    let_go(connection)
    assert count(connection, "audit") == 1


# --- at random ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_nothing_undelivered_or_unacknowledged_goes_at_whatever_moment_it_is_looked_for(
    connection: sqlite3.Connection, lane: Lane, hub: Peer, seed: int
) -> None:
    """A random life of a hub with one peer, judged by what was noted beside it."""
    dice = random.Random(seed)
    now, last_backup = OLD, Seq(0)
    unsettled: set[int] = set()
    settled_at: dict[int, datetime] = {}
    item_of: dict[int, int] = {}
    end, acked, number = 0, 0, 0
    latest: dict[str, int] = {}
    everything: list[Event] = []
    before = datetime.min.replace(tzinfo=NOON.tzinfo)
    for _ in range(120):
        now += timedelta(hours=dice.randrange(30))
        match dice.choice(["arise", "arise", "send", "acknowledge", "deliver", "back up", "let go"]):
            case "arise" | "send" as way:
                number += 1
                key = dice.choice("ABC")
                event = an_event(key, number, recorded=now)
                everything.append(event)
                [one] = admit(connection, event)
                latest[key] = one.seq
                if way == "send":
                    end = send(connection, hub, [one]).seq
                    item_of[one.seq] = end
                if dice.random() < 0.7:
                    owe(connection, lane, [one], at=now)
                    unsettled.add(one.seq)
            case "acknowledge" if end:
                acked = dice.randint(acked, end)
                acknowledge(connection, hub, Mark(acked, b""))
            case "deliver" if dice.random() < 0.5:
                deliver(connection, lane, [], at=now)
                settled_at.update(dict.fromkeys(unsettled, now))
                unsettled.clear()
            case "back up":
                back_up(connection, at=now)
                last_backup, before = Seq(number), now - SETTLED
            case "let go":
                let_go(connection, hub="n", now=now)
        here = set(numbers(connection))
        for seq, event in enumerate(everything, 1):
            if seq in here:
                continue
            assert seq not in unsettled
            assert seq not in latest.values()
            assert seq <= last_backup
            assert item_of.get(seq, 0) <= acked
            assert max(event.recordedtime, settled_at.get(seq, event.recordedtime)) < before
        held = [row[0] for row in connection.execute("SELECT seq FROM stream_items ORDER BY seq")]
        beginning = gaps.beginnings(connection, hub.id).get(1, {}).get(1)
        assert held == list(range((beginning.mark.seq if beginning else 0) + 1, end + 1))
    assert admit(connection, *everything) == []
    begins = gaps.beginnings(connection, hub.id)
    mark = begins[1][1].mark if begins else BEGINNING
    for event in streams.events_after(connection, hub.id, epoch=1, tier=1, seq=mark.seq, limit=10_000):
        mark = mark.after(event.id, event.data)
    assert end == 0 or mark == streams.sent(connection, hub.id, epoch=1)[1]
    assert [finding for finding in backup.findings(connection) if "counters" not in finding] == []
