"""The outbox: order, single flight, supersession, counters, fences and recovery, on a real store."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from state import dead_letters, estates, inbox
from state.engine import connect_writer
from state.inbox import Arrival
from state.key_queues import bring_dues_near
from state.lanes import Lane, ensure_lane, is_due, list_lanes, next_due
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.delivery import (
    SETTLED,
    TRANSITIONS,
    Claim,
    DeliveryState,
    Doubt,
    OrderMode,
    OutcomeKind,
    TargetMemory,
    Verdict,
)
from state.model.errors import FencedError, RejectedError
from state.model.estate import Estate, EstateSettings
from state.model.event import Environment, Event, Op
from state.model.ids import DeliveryId, Fence, event_id
from state.outbox import Outbox, Owed, Release, Settlement, next_fence
from state.testing import NOON

ESTATE = Estate(settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR"), sites={}, flows={})
FORGETFUL = TargetMemory()
REMEMBERS = TargetMemory(key_lifetime=timedelta(hours=1))
DONE = Settlement(kind=OutcomeKind.ACCEPTED, reference="4711")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    estates.adopt(connection, ESTATE, now=0)
    yield connection
    connection.close()


def an_event(key: str, number: int, *, op: Op = Op.SNAPSHOT) -> Event:
    return Event(
        id=event_id(source="/n/planning", flow="f", batch="b", position=str(number), key=key, content=b"{}"),
        source="/n/planning",
        type="distctl.purchase-order.snapshot",
        subject=key,
        time=NOON,
        contract="purchase-order/1",
        data=b'{"n":%d}' % number,
        partitionkey=key,
        sequence=0,
        recordedtime=NOON,
        correlationid=event_id(source="/n/planning", flow="f", batch="b", position=str(number), key=key, content=b"{}"),
        site="n",
        system="planning",
        flow="f",
        op=op,
        environment=Environment.TEST,
        estate=ESTATE.hash,
    )


def a_lane(
    connection: sqlite3.Connection, mode: OrderMode = OrderMode.STRICT, *, flow: str = "f", domain: str = "f"
) -> Lane:
    ensure_lane(connection, flow=flow, target="n/erp", tier=1, order_mode=mode, order_domain=domain, shadow_of=None)
    return next(lane for lane in list_lanes(connection) if lane.flow == flow)


def owe(connection: sqlite3.Connection, lane: Lane, *events: Event, now: datetime = NOON) -> None:
    admitted = inbox.admit(connection, [Arrival(event) for event in events])
    with Outbox(connection, now=now) as outbox:
        outbox.add([Owed(one.seq, lane, one.event.partitionkey, one.event.op is Op.SNAPSHOT) for one in admitted])


def claim(
    connection: sqlite3.Connection,
    lane: Lane,
    *,
    limit: int = 10,
    memory: TargetMemory = FORGETFUL,
    now: datetime = NOON,
) -> list[Claim]:
    with Outbox(connection, now=now) as outbox:
        return outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=limit,
            memory=memory,
            call_deadline=timedelta(seconds=5),
            render=lambda event: event.data,
        )


def settle(connection: sqlite3.Connection, *claims: Claim, now: datetime = NOON) -> set[DeliveryId]:
    with Outbox(connection, now=now) as outbox:
        return outbox.settle([(one, DONE) for one in claims])


def later(claim: Claim, *, after: timedelta, counts: bool = False) -> Release:
    return Release(state=DeliveryState.PENDING, due_at=NOON + after, code="busy", detail="try later", counts=counts)


def states(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT state FROM deliveries ORDER BY id")]


def check_invariants(connection: sqlite3.Connection) -> None:
    """What must hold after every unit of work."""
    for lane, *counted in connection.execute(
        "SELECT id, pending, inflight, in_doubt, delayed, parked, delivered, superseded, discarded FROM lanes"
    ).fetchall():
        actual = dict(
            connection.execute("SELECT state, count(*) FROM deliveries WHERE lane_id = ? GROUP BY state", (lane,))
        )
        assert counted == [actual.get(state, 0) for state in _IN_ORDER]
    unsettled = {
        row[0] for row in connection.execute("SELECT DISTINCT key_id FROM deliveries WHERE settled_at IS NULL")
    }
    assert unsettled == {row[0] for row in connection.execute("SELECT id FROM key_queues")}
    for state, due, head_state, head_due in connection.execute(
        "SELECT q.state, q.due_at, d.state, d.due_at FROM key_queues q JOIN deliveries d ON d.id = q.head"
    ):
        assert (state == "inflight") == (head_state == "inflight")
        assert (state == "due") == (head_due is not None)
        assert state != "due" or due == head_due


_IN_ORDER = ("pending", "inflight", "in_doubt", "delayed", "parked", "delivered", "superseded", "discarded")


def test_the_schema_and_the_state_machine_name_the_same_states(connection: sqlite3.Connection) -> None:
    table = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'deliveries'").fetchone()[0]
    for state in DeliveryState:
        assert f"'{state}'" in table
    assert set(TRANSITIONS) == set(DeliveryState)
    assert {state for state, after in TRANSITIONS.items() if not after} <= SETTLED


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO deliveries (event_seq, lane_id, key_id, is_snapshot) VALUES (1, 1, 1, 1)",
        "UPDATE deliveries SET state = 'delivered', settled_at = 1, outcome = 'accepted' WHERE id = 1",
        "INSERT INTO key_queues VALUES (1, 1, 'f', 'k', 1, 1, 'due', 1)",
    ],
)
def test_to_check_a_row_the_store_builds_no_table(connection: sqlite3.Connection, statement: str) -> None:
    opcodes = [row[1] for row in connection.execute(f"EXPLAIN {statement}")]
    assert "OpenEphemeral" not in opcodes


def test_a_newer_event_of_a_strict_key_waits_for_the_older_one(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-2", 3))
    first = claim(connection, lane)
    assert [(one.event.subject, one.payload) for one in first] == [("PO-1", b'{"n":1}'), ("PO-2", b'{"n":3}')]
    assert claim(connection, lane) == []
    settle(connection, first[0])
    assert [one.payload for one in claim(connection, lane)] == [b'{"n":2}']
    check_invariants(connection)


def test_two_flows_of_one_order_domain_share_the_order(connection: sqlite3.Connection) -> None:
    one, other = a_lane(connection, flow="f", domain="orders"), a_lane(connection, flow="g", domain="orders")
    owe(connection, one, an_event("PO-1", 1))
    owe(connection, other, an_event("PO-1", 2))
    assert claim(connection, other) == []
    settle(connection, *claim(connection, one))
    assert [c.payload for c in claim(connection, other)] == [b'{"n":2}']
    check_invariants(connection)


def test_a_newer_snapshot_supersedes_older_ones_but_never_a_delta(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.LATEST)
    owe(connection, lane, an_event("SKU", 1), an_event("SKU", 2, op=Op.DELTA), an_event("SKU", 3))
    assert states(connection) == ["superseded", "pending", "pending"]
    assert [one.payload for one in claim(connection, lane)] == [b'{"n":2}']
    check_invariants(connection)


def test_a_snapshot_in_flight_is_settled_before_a_newer_one_goes(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.LATEST)
    owe(connection, lane, an_event("SKU", 1))
    flying = claim(connection, lane)
    owe(connection, lane, an_event("SKU", 2))
    assert states(connection) == ["inflight", "pending"]
    assert claim(connection, lane) == []
    settle(connection, *flying)
    assert [one.payload for one in claim(connection, lane)] == [b'{"n":2}']
    check_invariants(connection)


def test_a_parked_snapshot_that_a_newer_one_supersedes_closes_its_letter(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.LATEST)
    owe(connection, lane, an_event("SKU", 1))
    refused = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.park(refused[0], RejectedError("unknown sku"), lane=lane)
    owe(connection, lane, an_event("SKU", 2))
    assert states(connection) == ["superseded", "pending"]
    assert connection.execute("SELECT state FROM dead_letters").fetchall() == [("superseded",)]
    check_invariants(connection)


def test_without_order_a_parked_event_holds_nobody_up(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.ANY)
    owe(connection, lane, an_event("K", 1), an_event("K", 2))
    with Outbox(connection, now=NOON) as outbox:
        held = outbox.claim(
            lane, fence=next_fence(connection), limit=1, memory=FORGETFUL, call_deadline=timedelta(0), render=_data
        )
        outbox.park(held[0], RejectedError("no"), lane=lane)
    assert [one.payload for one in claim(connection, lane)] == [b'{"n":2}']
    check_invariants(connection)


def test_without_order_an_event_that_backs_off_holds_nobody_up(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.ANY)
    owe(connection, lane, an_event("K", 1))
    held = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.release(held[0], later(held[0], after=timedelta(minutes=1)))
    owe(connection, lane, an_event("K", 2))
    assert [one.payload for one in claim(connection, lane)] == [b'{"n":2}']
    check_invariants(connection)


def test_a_parked_head_makes_its_strict_key_wait_and_no_other(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-2", 3))
    first, other = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.park(first, RejectedError("unit unknown", place="uom", hint="use EA", code="unit"), lane=lane)
        outbox.settle([(other, DONE)])
    assert claim(connection, lane) == []
    letter = connection.execute("SELECT kind, subject, field, hint, raw, state FROM dead_letters").fetchone()
    assert letter == ("delivery", "PO-1", "uom", "use EA", b'{"n":1}', "open")
    check_invariants(connection)


@pytest.mark.parametrize("payload", [b'{"n":1}', b"the target's own record", b""])
def test_the_payload_is_frozen_at_the_first_attempt(connection: sqlite3.Connection, payload: bytes) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    with Outbox(connection, now=NOON) as outbox:
        [first] = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=FORGETFUL,
            call_deadline=timedelta(0),
            render=lambda event: payload,
        )
        assert first.payload == payload
        outbox.release(first, later(first, after=timedelta(0)))
        again = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=FORGETFUL,
            call_deadline=timedelta(0),
            render=lambda event: b"something else",
        )
    assert again[0].payload == first.payload
    assert again[0].idempotency_key == first.idempotency_key
    assert again[0].attempt == 2


def test_one_that_cannot_be_rendered_is_parked_and_the_rest_goes(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-2", 2))

    def render(event: Event) -> bytes:
        if event.subject == "PO-1":
            raise RejectedError("the mapping fails", hint="mend the mapping")
        return event.data

    with Outbox(connection, now=NOON) as outbox:
        claims = outbox.claim(
            lane, fence=next_fence(connection), limit=10, memory=FORGETFUL, call_deadline=timedelta(0), render=render
        )
    assert [one.event.subject for one in claims] == ["PO-2"]
    assert states(connection) == ["parked", "inflight"]
    check_invariants(connection)


def test_a_result_under_a_lost_lease_changes_nothing(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    lost = claim(connection, lane)[0]
    with Outbox(connection, now=NOON) as outbox:
        assert len(outbox.recover(lambda fence: False)) == 1
    assert settle(connection, lost) == set()
    with Outbox(connection, now=NOON) as outbox:
        with pytest.raises(FencedError):
            outbox.release(lost, later(lost, after=timedelta(0)))
        with pytest.raises(FencedError):
            outbox.discard(lost, DONE)
    assert states(connection) == ["in_doubt"]
    check_invariants(connection)


def test_a_lost_lease_keeps_no_other_result_of_its_turn_from_being_settled(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, *[an_event(f"PO-{n}", n) for n in range(4)])
    claims = claim(connection, lane)
    connection.execute("UPDATE deliveries SET fence = fence + 1 WHERE id = ?", (claims[1].delivery,))
    assert settle(connection, *claims) == {one.delivery for one in claims if one is not claims[1]}
    assert states(connection) == ["delivered", "inflight", "delivered", "delivered"]
    check_invariants(connection)


def test_recovery_leaves_alone_what_a_worker_holds(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    held = claim(connection, lane)[0]
    with Outbox(connection, now=NOON) as outbox:
        assert outbox.recover(lambda fence: fence == held.fence) == []
    settle(connection, held)
    assert states(connection) == ["delivered"]


def test_what_was_in_flight_at_a_crash_is_sent_again_under_its_key_while_the_target_remembers(
    connection: sqlite3.Connection,
) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    first = claim(connection, lane, memory=REMEMBERS)[0]
    with Outbox(connection, now=NOON) as outbox:
        outbox.recover(lambda fence: False)
    again = claim(connection, lane, memory=REMEMBERS)[0]
    assert (again.verdict, again.idempotency_key, again.payload) == (
        Verdict.RESEND,
        first.idempotency_key,
        first.payload,
    )


def test_what_nobody_can_say_blocks_its_key_for_a_person(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-1", 2))
    claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.recover(lambda fence: False)
    assert claim(connection, lane) == []
    assert connection.execute("SELECT state FROM key_queues").fetchall() == [("blocked",)]
    assert states(connection) == ["in_doubt", "pending"]
    check_invariants(connection)


def test_an_event_is_taken_in_once(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    owe(connection, lane, an_event("PO-1", 1), an_event("PO-1", 2), an_event("PO-1", 2))
    assert len(states(connection)) == 2


def test_an_event_comes_back_as_it_went_in(connection: sqlite3.Connection) -> None:
    event = an_event("PO-1", 1)
    admitted = inbox.admit(connection, [Arrival(event)])
    found = inbox.get(connection, admitted[0].seq)
    assert found == replace(event, sequence=admitted[0].seq)


def test_a_wall_clock_that_went_back_leaves_nothing_waiting_for_years(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1), now=NOON + timedelta(days=3650))
    assert not is_due(connection, lane.id, now=NOON)
    assert bring_dues_near(connection, now=NOON, longest=timedelta(hours=1)) == 1
    assert is_due(connection, lane.id, now=NOON)
    assert next_due(connection, lane.id) == NOON


def test_a_record_is_set_aside_once(connection: sqlite3.Connection) -> None:
    letter = dead_letters.Letter(
        record_id=event_id(source="s", flow="f", batch="b", position="1", key="", content=b"x"),
        site="n",
        system="planning",
        flow="f",
        place="a.csv line 2",
        rule="a number",
        code="number",
        message="qty is no number",
        hint="correct the file",
        raw=b"x",
    )
    dead_letters.add(connection, [letter, letter], now=0)
    assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (1,)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", list(OrderMode))
def test_whatever_happens_order_counters_and_keys_hold(
    connection: sqlite3.Connection, mode: OrderMode, seed: int
) -> None:
    """A random night: arrivals, claims, every kind of ending, lost leases. The judge is what the target would have seen."""
    dice = random.Random(seed)
    lane = a_lane(connection, mode)
    now, number = NOON, 0
    held: list[Claim] = []
    seen: dict[str, list[int]] = {}
    for _ in range(120):
        now += timedelta(seconds=dice.choice((0, 1, 30)))
        if dice.random() < 0.4:
            arrivals = [
                an_event(f"K{dice.randrange(4)}", number + n, op=dice.choice((Op.SNAPSHOT, Op.DELTA))) for n in range(3)
            ]
            number += 3
            owe(connection, lane, *arrivals, now=now)
        elif not held or dice.random() < 0.5:
            claimed = claim(connection, lane, limit=dice.randrange(1, 4), memory=REMEMBERS, now=now)
            held.extend(claimed)
        else:
            _end(connection, held.pop(dice.randrange(len(held))), lane, dice, now, seen)
        if dice.random() < 0.03:
            with Outbox(connection, now=now) as outbox:
                outbox.recover(lambda fence: False)
            held.clear()
        check_invariants(connection)
    if mode is OrderMode.STRICT:
        assert all(numbers == sorted(numbers) for numbers in seen.values())
    everything = connection.execute("SELECT count(*) FROM deliveries").fetchone()[0]
    assert everything == number


def _end(
    connection: sqlite3.Connection,
    one: Claim,
    lane: Lane,
    dice: random.Random,
    now: datetime,
    seen: dict[str, list[int]],
) -> None:
    with Outbox(connection, now=now) as outbox:
        match dice.randrange(5):
            case 0 | 1:
                outbox.settle([(one, DONE)])
                seen.setdefault(one.event.subject, []).append(int(one.payload[5:-1]))
            case 2:
                soon = now + timedelta(seconds=dice.randrange(60))
                outbox.release(one, Release(state=DeliveryState.PENDING, due_at=soon, code="busy", detail=""))
            case 3:
                due = dice.choice((now, None))
                outbox.release(
                    one, Release(state=DeliveryState.IN_DOUBT, due_at=due, code="late", detail="", doubt=one.doubt)
                )
            case _:
                outbox.park(one, RejectedError("no"), lane=lane)


def _data(event: Event) -> bytes:
    return event.data


def test_a_fence_only_rises(connection: sqlite3.Connection) -> None:
    assert next_fence(connection) < next_fence(connection)
    assert Fence(2) == connection.execute("SELECT value FROM counters WHERE name = 'fence'").fetchone()[0]


def test_what_waited_for_a_person_is_judged_again_when_the_target_is_given_a_memory(
    connection: sqlite3.Connection,
) -> None:
    lane = a_lane(connection)
    owe(connection, lane, an_event("PO-1", 1))
    claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.recover(lambda fence: False)
    assert claim(connection, lane) == []
    with Outbox(connection, now=NOON) as outbox:
        outbox.reconsider()
    check_invariants(connection)
    assert [one.verdict for one in claim(connection, lane, memory=REMEMBERS)] == [Verdict.RESEND]


def test_a_shadow_that_was_never_sent_is_not_like_what_the_target_refused(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    ensure_lane(
        connection,
        flow="f",
        target="n/new",
        tier=1,
        order_mode=OrderMode.STRICT,
        order_domain="f",
        shadow_of="n/erp",
    )
    shadow = next(one for one in list_lanes(connection) if one.shadow_of)
    admitted = inbox.admit(connection, [Arrival(an_event("PO-1", 1))])
    with Outbox(connection, now=NOON) as outbox:
        outbox.add([Owed(one.seq, to, "PO-1", is_snapshot=True) for one in admitted for to in (lane, shadow)])
    [refused] = claim(connection, lane)
    with Outbox(connection, now=NOON) as outbox:
        outbox.park(refused, RejectedError("no"), lane=lane)
        fence = next_fence(connection)
        claimed = outbox.claim(
            shadow, fence=fence, limit=1, memory=FORGETFUL, call_deadline=timedelta(0), render=_unmappable
        )
    assert claimed == []
    assert connection.execute("SELECT alike, different FROM lanes WHERE id = ?", (shadow.id,)).fetchone() == (0, 1)
    check_invariants(connection)


def test_what_is_in_doubt_and_cannot_be_rendered_is_parked(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    admitted = inbox.admit(connection, [Arrival(an_event("PO-1", 1))])
    doubt = Doubt(first_sent_at=NOON, last_sent_at=NOON)
    with Outbox(connection, now=NOON) as outbox:
        outbox.add([Owed(one.seq, lane, "PO-1", is_snapshot=True, doubt=doubt) for one in admitted])
    with Outbox(connection, now=NOON) as outbox:
        claimed = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=TargetMemory(key_lifetime=timedelta(hours=1)),
            call_deadline=timedelta(0),
            render=_unmappable,
        )
    assert (claimed, [one.event.subject for one in outbox.unsent]) == ([], ["PO-1"])
    assert connection.execute("SELECT in_doubt, parked FROM lanes").fetchone() == (0, 1)
    check_invariants(connection)


def _unmappable(event: Event) -> bytes:
    raise RejectedError("the mapping fails")
