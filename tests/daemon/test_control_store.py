"""The desk on a real store: what each answer says about events, deliveries, dead letters and doubts that are really there."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.control.desk import Slice
from agent.control.schema import BackupRow
from agent.control.store_desk import Running, StoreDesk
from agent.drain import Drain
from agent.fleet import Fleet
from console.presenters import step_in_short
from state import audit, checkpoints, dead_letters, estates, inbox
from state.database import Database
from state.dead_letters import Letter
from state.inbox import Arrival
from state.lanes import ensure_lane, list_lanes
from state.model.clock import to_millis
from state.model.delivery import DeliveryState, Doubt, OrderMode, OutcomeKind, TargetMemory
from state.model.errors import ConfigError, NotFoundError, RejectedError
from state.model.estate import Estate
from state.model.event import Environment, Event, Op
from state.model.ids import event_id, sha256
from state.outbox import Outbox, Owed, Release, Settlement, next_fence
from state.queries import load
from state.testing import NOON, FrozenClock, temporary_database

ESTATE = Estate.model_validate(
    {
        "settings": {"name": "acme", "environment": "test", "currency": "EUR"},
        "sites": {"n": {"site": "n", "systems": {"planning": {"connector": "files"}, "erp": {"connector": "http"}}}},
        "flows": {
            "f": {
                "flow": "f",
                "owner": "planning@acme.example",
                "tier": 1,
                "source": {"system": "planning", "fields": {"sku": {"type": "string"}}},
                "contract": "purchase-order/1",
                "mapping": {"fields": {}},
                "targets": [{"system": "erp"}],
            }
        },
    }
)
RAW = b"sku;qty\nSKU-1;40\n"
LATER = NOON + timedelta(minutes=5)


def an_event(key: str, number: int) -> Event:
    identity = event_id(source="/n/planning", flow="f", batch="b", position=str(number), key=key, content=b"{}")
    return Event(
        id=identity,
        source="/n/planning",
        type="distctl.purchase-order.snapshot",
        subject=key,
        time=NOON,
        contract="purchase-order/1",
        data=b'{"lines":[{"sku":"SKU-1","quantity":"40"}]}',
        partitionkey=key,
        sequence=number,
        recordedtime=NOON,
        correlationid=identity,
        site="n",
        system="planning",
        flow="f",
        op=Op.SNAPSHOT,
        environment=Environment.TEST,
        estate=ESTATE.hash,
        place=f"line {number}",
    )


EVENTS = [an_event(key, number) for number, key in enumerate(["PO-1", "PO-2", "PO-3", "PO-3", "PO-4"], start=1)]
BEHIND_PO_2 = an_event("PO-2", 6)


def fill(connection: sqlite3.Connection) -> None:
    """PO-1 is delivered, PO-2 is parked, the first of PO-3 is in doubt with the second behind it, PO-4 is pending."""
    now = to_millis(NOON)
    estates.adopt(connection, ESTATE, now=now)
    raw = inbox.keep_raw(connection, sha256=sha256(RAW), name="plan.csv", size=len(RAW), content=RAW, now=now)
    ensure_lane(
        connection, flow="f", target="n/erp", tier=1, order_mode=OrderMode.STRICT, order_domain="f", shadow_of=None
    )
    [lane] = list_lanes(connection)
    admitted = inbox.admit(connection, [Arrival(event, [("product", "SKU-1")]) for event in EVENTS], raw_id=raw)
    with Outbox(connection, now=NOON) as outbox:
        outbox.add([Owed(one.seq, lane, one.event.partitionkey, False) for one in admitted])
        claims = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=3,
            memory=TargetMemory(),
            call_deadline=timedelta(seconds=5),
            render=lambda event: event.data,
        )
        outbox.settle([(claims[0], Settlement(kind=OutcomeKind.ACCEPTED, reference="4711"))])
        outbox.park(
            claims[1],
            RejectedError(
                "no such supplier", rule="the supplier exists", shown="ACME\x1b[2J", hint="create it", code="xref"
            ),
            lane=lane,
        )
        outbox.release(
            claims[2],
            Release(
                state=DeliveryState.IN_DOUBT,
                due_at=None,
                code="timeout",
                detail="no answer in 5 s",
                doubt=Doubt(first_sent_at=NOON, last_sent_at=NOON),
            ),
        )
    checkpoints.advance(connection, "f@n/planning", checkpoint=None, remember=[], records=6, unreadable=1, now=now)
    dead_letters.add(connection, [_letter()], now=now, raw_id=raw)
    audit.append(connection, at_ms=now, actor="ada", action="hold", target="lane f/n/erp", reason="stocktaking")
    audit.append(connection, at_ms=now, actor="bo", action="resume", target="lane f/n/erp", reason="done")


def add_behind_po_2(connection: sqlite3.Connection) -> None:
    """A newer event of the key whose oldest is parked."""
    [lane] = list_lanes(connection)
    [admitted] = inbox.admit(connection, [Arrival(BEHIND_PO_2, [])], raw_id=None)
    with Outbox(connection, now=NOON) as outbox:
        outbox.add([Owed(admitted.seq, lane, "PO-2", False)])


def _letter() -> Letter:
    return Letter(
        record_id=event_id(source="s", flow="f", batch="b", position="6", key="", content=b""),
        site="n",
        system="planning",
        flow="f",
        place="plan.csv line 7",
        field="qty",
        rule="a decimal number",
        code="not-a-number",
        shown="'4o'",
        message="qty is no number",
        hint="correct line 7 and send it again",
        raw=b"\xff\xfe" + b"x" * 100_000,
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with temporary_database(tmp_path) as database:
        await database.write(fill)
        yield database


@pytest.fixture
def troubles() -> list[str]:
    return []


@pytest.fixture
def desk(database: Database, troubles: list[str]) -> StoreDesk:
    return StoreDesk(database, running(database, troubles=troubles))


def running(database: Database, *, estate: Estate = ESTATE, troubles: Sequence[str] = ()) -> Running:
    async def reload(caller: str) -> bool:
        return caller == "ada"

    async def resume(caller: str, reason: str, dry_run: bool) -> None:
        assert not dry_run
        assert (caller, reason) == ("ada", "done␛[2J␊by bob")

    async def back_up(caller: str, folder: str) -> BackupRow:
        raise AssertionError(f"{caller} was not asked for a backup in {folder}")

    clock = FrozenClock(LATER)
    return Running(
        site="n",
        started_at=NOON,
        clock=clock,
        estate=lambda: estate,
        origin=lambda: "",
        troubles=lambda: troubles,
        metrics=lambda: b"distctl_up 1.0\n",
        reload=reload,
        resume=resume,
        back_up=back_up,
        drain=Drain(database, clock=clock, sources=lambda: 1, on_changed=lambda: None),
        fleet=Fleet(
            database, site="n", estate=lambda: estate, identity=lambda: None, on_life=lambda: None, clock=clock
        ),
    )


async def test_the_status_adds_up(desk: StoreDesk) -> None:
    status = await desk.status()
    assert (status.totals.delivered, status.totals.parked, status.totals.in_doubt, status.totals.pending) == (
        1,
        1,
        1,
        2,
    )
    assert (status.events, status.open_dead_letters) == (5, 2)
    assert (status.as_of, status.site, status.environment, status.estate_hash) == (LATER, "n", "test", ESTATE.hash)


async def test_a_lane_says_since_when_its_longest_waiting_key_could_go(desk: StoreDesk) -> None:
    [lane] = (await desk.lanes()).items
    assert lane.due_since == NOON
    assert (lane.backlog, lane.waiting_behind, lane.owed) == (2, 1, 4)


async def test_conditions_name_what_needs_a_person(desk: StoreDesk, troubles: list[str]) -> None:
    troubles.append("the relay restarts")
    conditions = {condition.name: condition.count for condition in (await desk.status()).conditions}
    assert conditions == {"trouble": 1, "in-doubt": 1, "parked": 2, "waiting-behind": 1, "backlog": 2}


async def test_a_flow_shows_its_owner_and_what_its_source_yielded(desk: StoreDesk) -> None:
    [flow] = (await desk.flows()).items
    assert (flow.owner, flow.source, flow.targets) == ("planning@acme.example", "n/planning", ["n/erp"])
    assert (flow.records, flow.unreadable, flow.delivered, flow.in_force) == (6, 1, 1, True)


async def test_a_flow_that_went_away_is_listed_while_it_owes(database: Database) -> None:
    desk = StoreDesk(database, running(database, estate=ESTATE.model_copy(update={"flows": {}})))
    [flow] = (await desk.flows()).items
    assert (flow.flow, flow.in_force, flow.owed) == ("f", False, 4)


async def test_events_come_newest_first_page_by_page(desk: StoreDesk) -> None:
    first = await desk.events(Slice(limit=3))
    rest = await desk.events(Slice(limit=3, cursor=first.next))
    assert [row.seq for row in first.items] == [5, 4, 3]
    assert ([row.seq for row in rest.items], rest.next) == ([2, 1], None)
    assert first.items[2].deliveries[0].state == "in_doubt"


async def test_events_are_found_by_flow_and_by_any_key_they_name(desk: StoreDesk) -> None:
    assert len((await desk.events(Slice(), key="SKU-1")).items) == 5
    assert [row.seq for row in (await desk.events(Slice(), key="PO-3", flow="f")).items] == [4, 3]
    assert (await desk.events(Slice(), flow="f", key="PO-99")).items == []


async def test_a_flow_that_never_was_is_not_found_and_its_neighbour_is_named(database: Database) -> None:
    orders = ESTATE.flows["f"].model_copy(update={"flow": "orders"})
    desk = StoreDesk(database, running(database, estate=ESTATE.model_copy(update={"flows": {"orders": orders}})))
    for ask in (desk.events, desk.dead_letters, desk.in_doubt):
        with pytest.raises(NotFoundError, match="there is no flow ordrs") as refused:
            await ask(Slice(), flow="ordrs")
        assert refused.value.hint == "did you mean orders?"
        assert (await ask(Slice(), flow="orders")).items == []
    assert (await desk.events(Slice(), flow="f", key="PO-99")).items == []  # gone from the estate, and known


async def test_one_event_is_found_by_number_and_by_id(desk: StoreDesk) -> None:
    by_number, by_id = await desk.event("3"), await desk.event(EVENTS[2].id)
    assert by_number == by_id
    assert by_number.data == {"lines": [{"sku": "SKU-1", "quantity": "40"}]}
    assert by_number.document is not None
    assert by_number.document.sha256 == sha256(RAW)
    assert (by_number.correlation_id, by_number.causation_id) == (EVENTS[2].id, None)
    [delivery] = by_number.history
    assert [(one.code, one.verdict, one.result) for one in delivery.tries] == [("timeout", "send", "in_doubt")]


@pytest.mark.parametrize("name", ["99", "x", "f" * 32, "zz" * 16, "1" * 40, "-1", "٣"])
async def test_an_event_that_is_not_there_is_not_found(desk: StoreDesk, name: str) -> None:
    with pytest.raises(NotFoundError):
        await desk.event(name)


async def test_a_trace_is_one_timeline_oldest_first(desk: StoreDesk) -> None:
    view = await desk.trace("PO-3")
    assert [(step.seq, step.is_subject) for step in view.steps] == [(3, True), (4, True)]
    assert [step.history[0].state for step in view.steps] == ["in_doubt", "pending"]
    named = await desk.trace("SKU-1")
    assert {step.is_subject for step in named.steps} == {False}


async def test_a_trace_says_what_another_site_said_of_a_delivery_there(desk: StoreDesk, database: Database) -> None:
    def told(connection: sqlite3.Connection) -> None:
        for number, said in enumerate(
            [b'{"target":"s/wms","state":"delivered","reference":"W-\\u001b7"}', b"[]", b"nothing"], 1
        ):
            told = replace(an_event("PO-1", 6 + number), contract="delivery-outcome/1", op=Op.ACK, data=said, site="s")
            inbox.admit(connection, [Arrival(told)])

    await database.write(told)
    own, *steps = (await desk.trace("PO-1")).steps
    assert [step.said is not None for step in (own, *steps)] == [False, True, False, False]
    assert step_in_short(own) == "n/erp delivered 4711"
    assert step_in_short(steps[0]) == "s/wms delivered W-␛7"
    assert step_in_short(steps[1]) == ""


async def test_what_waits_behind_a_dead_letter_is_no_backlog_and_says_so(desk: StoreDesk, database: Database) -> None:
    await database.write(add_behind_po_2)
    [lane] = (await desk.lanes()).items
    assert (lane.pending, lane.waiting_behind, lane.backlog, lane.owed) == (3, 2, 2, 5)
    [letter] = (await desk.dead_letters(Slice(), code="xref")).items
    parked, pending = (await desk.trace("PO-2")).steps
    [at_first], [at_last] = parked.deliveries, pending.deliveries
    assert (at_first.letter, at_first.reason, at_first.behind) == (letter.id, "no such supplier", None)
    assert (at_last.behind, at_last.behind_letter, at_last.letter) == (letter.delivery, letter.id, None)
    assert pending.history[0].behind_letter == letter.id
    assert (await desk.events(Slice(limit=1))).items[0].deliveries == pending.deliveries


async def test_what_stands_behind_one_that_will_be_tried_again_is_backlog(desk: StoreDesk, database: Database) -> None:
    def will_be_asked(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE deliveries SET due_at = 1 WHERE state = 'in_doubt'")
        connection.execute("UPDATE key_queues SET state = 'due', due_at = 1 WHERE partition_key = 'PO-3'")

    await database.write(will_be_asked)
    [lane] = (await desk.lanes()).items
    assert (lane.waiting_behind, lane.backlog) == (0, 3)
    [_, newer] = (await desk.trace("PO-3")).steps
    assert (newer.deliveries[0].behind, newer.deliveries[0].behind_letter) == (3, None)


async def test_a_key_nobody_spoke_of_is_not_found(desk: StoreDesk) -> None:
    with pytest.raises(NotFoundError, match="PO-99") as refused:
        await desk.trace("PO-99")
    assert "distctl dlq list" in refused.value.hint


async def test_dead_letters_say_where_which_rule_and_what_to_do(desk: StoreDesk) -> None:
    letters = {letter.kind: letter for letter in (await desk.dead_letters(Slice())).items}
    assert letters["record"].place == "plan.csv line 7"
    assert letters["record"].rule == "a decimal number"
    assert letters["delivery"].hint == "create it"
    assert [row.code for row in (await desk.dead_letters(Slice(), code="xref")).items] == ["xref"]


async def test_closed_dead_letters_are_shown_only_on_demand(desk: StoreDesk, database: Database) -> None:
    [letter] = (await desk.dead_letters(Slice(), code="xref")).items
    assert letter.delivery is not None
    number = letter.delivery

    def close(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE dead_letters SET state = 'discarded', closed_at = 1 WHERE delivery_id = ?", (number,)
        )

    await database.write(close)
    assert (await desk.dead_letters(Slice(), code="xref")).items == []
    assert [row.state for row in (await desk.dead_letters(Slice(), code="xref", closed=True)).items] == ["discarded"]


async def test_raw_bytes_that_are_no_text_come_as_base64_and_say_that_they_are_cut(desk: StoreDesk) -> None:
    [row] = [row for row in (await desk.dead_letters(Slice())).items if row.kind == "record"]
    letter = await desk.dead_letter(row.id)
    assert (letter.raw.size, letter.raw.text, letter.raw.is_cut) == (100_002, None, True)
    assert letter.raw.base64 is not None
    assert letter.document is not None
    assert letter.document.name == "plan.csv"


async def test_bytes_that_are_no_text_go_over_the_wire_once(desk: StoreDesk, database: Database) -> None:
    """0xFC is the u with two dots of Windows-1252."""

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE dead_letters SET raw = ?", (b"M\xfcller;40\n",))
        connection.execute("UPDATE deliveries SET payload = ?", (b"M\xfcller;40\n",))

    await database.write(spoil)
    [letter, *_] = (await desk.dead_letters(Slice())).items
    [doubt] = (await desk.in_doubt(Slice())).items
    for shown, name in (
        (await desk.dead_letter(letter.id), "raw"),
        (await desk.in_doubt_delivery(doubt.delivery), "payload"),
    ):
        answer = json.loads(shown.model_dump_json())
        assert answer[name] == {"size": 10, "text": None, "base64": "TfxsbGVyOzQwCg==", "is_cut": False}
        assert {"size", "bytes"} & set(answer) == set()


async def test_a_parked_delivery_shows_the_payload_that_was_refused(desk: StoreDesk) -> None:
    [row] = (await desk.dead_letters(Slice(), code="xref")).items
    letter = await desk.dead_letter(row.id)
    assert letter.raw.text == '{"lines":[{"sku":"SKU-1","quantity":"40"}]}'
    assert letter.event == EVENTS[1].id


async def test_what_is_in_doubt_comes_with_its_evidence(desk: StoreDesk) -> None:
    [row] = (await desk.in_doubt(Slice(), flow="f")).items
    assert (row.subject, row.first_sent_at, row.due_at) == ("PO-3", NOON, None)
    doubt = await desk.in_doubt_delivery(row.delivery)
    assert (doubt.waiting_behind, doubt.tries[0].detail) == (1, "no answer in 5 s")
    assert doubt.payload.text == EVENTS[2].data.decode()


async def test_a_delivery_that_is_settled_is_not_in_doubt(desk: StoreDesk) -> None:
    with pytest.raises(NotFoundError, match="not in doubt"):
        await desk.in_doubt_delivery(1)


async def test_the_audit_is_listed_and_verified(desk: StoreDesk, database: Database) -> None:
    page = await desk.audit(Slice(limit=1))
    assert [(row.actor, row.action) for row in page.items] == [("bo", "resume")]
    rest = await desk.audit(Slice(limit=1, cursor=page.next))
    assert ([row.actor for row in rest.items], rest.next) == (["ada"], None)
    verdict = await desk.audit_verdict()
    assert (verdict.ok, verdict.entries) == (True, 2)

    def tamper(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TRIGGER audit_refuses_update")
        connection.execute("UPDATE audit SET actor = 'eve' WHERE seq = 1")

    await database.write(tamper)
    verdict = await desk.audit_verdict()
    assert (verdict.ok, verdict.first_bad) == (False, 1)


async def test_a_cursor_of_somewhere_else_is_refused(desk: StoreDesk) -> None:
    with pytest.raises(ConfigError, match="cursor"):
        await desk.events(Slice(cursor="1; DROP TABLE events"))


async def test_health_looks_at_the_store(desk: StoreDesk, database: Database) -> None:
    assert (await desk.health()).ok
    await database.close()
    health = await desk.health()
    assert not health.ok
    assert "store" in health.troubles[0]


async def test_prometheus_gets_the_process_and_the_store(desk: StoreDesk) -> None:
    text = (await desk.metrics()).decode()
    assert "distctl_up 1.0" in text
    assert 'distctl_deliveries{flow="f",state="in_doubt",target="n/erp"} 1.0' in text
    assert 'distctl_lane_wait_seconds{flow="f",target="n/erp"} 300.0' in text
    assert 'distctl_deliveries_waiting_behind{flow="f",target="n/erp"} 1.0' in text
    assert 'state="waiting_behind"' not in text


async def test_a_reload_says_whether_anything_changed(desk: StoreDesk) -> None:
    assert (await desk.reload(caller="ada")).changed


async def test_a_reason_is_made_visible_before_it_is_kept(desk: StoreDesk) -> None:
    await desk.resume(caller="ada", reason="done\x1b[2J\nby bob")
    assert not (await desk.reload(caller="bo")).changed


@pytest.mark.parametrize(
    "name", [name for name in load("views") if name not in {"events", "dead_letters", "newest_instant"}]
)
async def test_no_view_walks_a_history_to_find_the_few_rows_it_shows(database: Database, name: str) -> None:
    sql = load("views")[name]
    wanted = {
        parameter: "[]" if parameter in {"seqs", "deliveries"} else 1 for parameter in re.findall(r":([a-z]+)", sql)
    }

    def plan(connection: sqlite3.Connection) -> list[str]:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", wanted)]

    walks = re.compile(r"SCAN (e|d|m|q|doubt|events|deliveries|dead_letters|attempts|trace|key_queues)$|.*\(rowid<\?\)")
    assert [step for step in await database.read(plan) if walks.match(step)] == []
