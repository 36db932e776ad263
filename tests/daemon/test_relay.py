"""The relay against a scripted sink, on a real store: what each answer leads to, and what the target would have seen."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import orjson
import pytest

from agent.breaker import Breaker
from agent.clock import SystemClock
from agent.crash_points import ignore
from agent.leases import Leases
from agent.reaper import Reaper
from agent.relay import OpenLane, TargetRelay, TargetTerms
from agent.sync.outgoing import Outgoing
from connectors.base import Found, NotFound, Outcome, Parcel
from state import estates, inbox
from state.database import Database
from state.inbox import Arrival
from state.lanes import Lane, ensure_lane, is_due, list_lanes, next_due
from state.model.delivery import OrderMode, OutcomeKind, TargetMemory
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from state.model.estate import Estate, EstateSettings, LimitSpec
from state.model.event import Environment, Event, Op
from state.model.ids import Seq, event_id
from state.model.retry import RetryPolicy
from state.outbox import Outbox, Owed, next_fence
from state.reserve import Reserve
from state.testing import FrozenClock, temporary_database

ESTATE = Estate(settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR"), sites={}, flows={})
CLOCK = SystemClock()
QUICK = RetryPolicy(first=timedelta(milliseconds=5), longest=timedelta(milliseconds=20), attempts=3)
ACCEPTED = Outcome(kind=OutcomeKind.ACCEPTED, reference="4711")

FORGETFUL = TargetMemory()
THREE_AT_ONCE = LimitSpec(in_flight=3, deadline=timedelta(seconds=1))

Script = Callable[[Parcel, int], "Outcome | DistctlError"]


class ScriptedSink:
    """Answers as its script says and keeps what landed: the ledger that judges."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.ledger: list[tuple[str, bytes]] = []
        self.calls: list[Parcel] = []
        self.probes: list[Parcel] = []
        self.probe_answer: Callable[[Parcel], Found | NotFound] = self._look_up

    async def deliver(self, parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
        answers = []
        for parcel in parcels:
            self.calls.append(parcel)
            answer = self.script(parcel, len([call for call in self.calls if call.subject == parcel.subject]))
            if isinstance(answer, Outcome):
                self.land(parcel)
            answers.append(answer)
        return answers

    def land(self, parcel: Parcel) -> None:
        self.ledger.append((parcel.subject, parcel.payload))

    async def probe(self, parcel: Parcel) -> Found | NotFound:
        self.probes.append(parcel)
        return self.probe_answer(parcel)

    async def close(self) -> None:
        pass

    def _look_up(self, parcel: Parcel) -> Found | NotFound:
        return Found(outcome=ACCEPTED) if (parcel.subject, parcel.payload) in self.ledger else NotFound()


class Rig:
    """A store with one lane to one target, and its relay."""

    def __init__(self, database: Database, sink: ScriptedSink, *, memory: TargetMemory, limits: LimitSpec) -> None:
        self.database = database
        self.sink = sink
        self.memory = memory
        self.leases = Leases(CLOCK)
        self.terms = TargetTerms(name="n/erp", limits=limits, weights={1: 8, 2: 3, 3: 1})
        self.lanes: list[Lane] = []
        self.render: Callable[[Event], bytes] = lambda event: event.data
        self.turns: list[tuple[int, int]] = []  # settled, parked
        self.relay: TargetRelay

    async def start(self, mode: OrderMode) -> None:
        self.lanes = await self.database.write(partial(_open_lane, mode))
        self.relay = TargetRelay(
            self.terms,
            database=self.database,
            lanes=[OpenLane(lane=lane, sink=self.sink, memory=self.memory, policy=QUICK) for lane in self.lanes],
            render=lambda connection, lane, event: self.render(event),
            leases=self.leases,
            breaker=Breaker(QUICK, random.Random(1), CLOCK),
            clock=CLOCK,
            dice=random.Random(1),
            crash=ignore,
            outgoing=Outgoing("n", None),
            on_turn=lambda target, settled, parked: self.turns.append((settled, parked)),
            on_sent=lambda _: None,
        )

    async def owe(self, *events: Event) -> None:
        await self.database.write(partial(_owe, self.lanes[0], events))
        self.relay.wake()

    async def count(self, state: str) -> int:
        return await self.database.read(lambda c: int(c.execute(f"SELECT {state} FROM lanes").fetchone()[0]))

    async def until(self, wish: Callable[[], object], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not wish():  # noqa: ASYNC110 - the relay's progress is seen from outside
                await asyncio.sleep(0.005)

    async def until_counted(self, state: str, number: int, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while await self.count(state) != number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)


def _open_lane(mode: OrderMode, connection: sqlite3.Connection) -> list[Lane]:
    estates.adopt(connection, ESTATE, now=0)
    ensure_lane(connection, flow="f", target="n/erp", tier=1, order_mode=mode, order_domain="f", shadow_of=None)
    return list_lanes(connection)


def _owe(lane: Lane, events: Sequence[Event], connection: sqlite3.Connection, *, now: datetime | None = None) -> None:
    admitted = inbox.admit(connection, [Arrival(event) for event in events])
    with Outbox(connection, now=now or CLOCK.now()) as outbox:
        outbox.add([Owed(one.seq, lane, one.event.partitionkey, True) for one in admitted])


def an_event(key: str, number: int) -> Event:
    identity = event_id(source="/n/p", flow="f", batch="b", position=str(number), key=key, content=b"")
    return Event(
        id=identity,
        source="/n/p",
        type="distctl.purchase-order.snapshot",
        subject=key,
        time=CLOCK.now(),
        contract="purchase-order/1",
        data=b"%d" % number,
        partitionkey=key,
        sequence=0,
        recordedtime=CLOCK.now(),
        correlationid=identity,
        site="n",
        system="p",
        flow="f",
        op=Op.SNAPSHOT,
        environment=Environment.TEST,
        estate=ESTATE.hash,
    )


@asynccontextmanager
async def running(
    folder: Path,
    script: Script,
    *,
    memory: TargetMemory = FORGETFUL,
    limits: LimitSpec = THREE_AT_ONCE,
    mode: OrderMode = OrderMode.STRICT,
) -> AsyncIterator[Rig]:
    async with temporary_database(folder, now=CLOCK.now()) as database:
        rig = Rig(database, ScriptedSink(script), memory=memory, limits=limits)
        await rig.start(mode)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for slot in range(limits.in_flight):
                tasks.create_task(rig.relay.run(slot, stopping))
            try:
                yield rig
            finally:
                stopping.set()
                rig.relay.wake()


def always(answer: Outcome | DistctlError) -> Script:
    return lambda parcel, call: answer


def first(answer: Outcome | DistctlError, *, times: int = 1) -> Script:
    return lambda parcel, call: answer if call <= times else ACCEPTED


async def test_what_is_owed_arrives_once_and_in_order(tmp_path: Path) -> None:
    async with running(tmp_path, always(ACCEPTED)) as rig:
        await rig.owe(*[an_event(f"K{n % 7}", n) for n in range(140)])
        await rig.until_counted("delivered", 140)
    for key in range(7):
        numbers = [int(payload) for subject, payload in rig.sink.ledger if subject == f"K{key}"]
        assert numbers == list(range(key, 140, 7))


async def test_a_batch_takes_heads_of_different_keys_in_one_call(tmp_path: Path) -> None:
    limits = LimitSpec(in_flight=1, batch=50, deadline=timedelta(seconds=1))
    async with running(tmp_path, always(ACCEPTED), limits=limits) as rig:
        await rig.owe(*[an_event(f"K{n}", n) for n in range(100)], an_event("K0", 200))
        await rig.until_counted("delivered", 101)
    assert [p for s, p in rig.sink.ledger if s == "K0"] == [b"0", b"200"]


async def test_a_passing_failure_is_tried_again_with_the_same_key_and_payload(tmp_path: Path) -> None:
    async with running(tmp_path, first(TransientError("busy"), times=2)) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
    assert len({(call.idempotency_key, call.payload) for call in rig.sink.calls}) == 1
    assert len(rig.sink.calls) == 3


async def test_a_refusal_parks_the_record_and_holds_only_its_own_key(tmp_path: Path) -> None:
    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return RejectedError("no such item", hint="add the item") if parcel.payload == b"1" else ACCEPTED

    async with running(tmp_path, script) as rig:
        await rig.owe(an_event("K", 1), an_event("K", 2), an_event("L", 3))
        await rig.until_counted("delivered", 1)
        assert await rig.count("parked") == 1
        assert await rig.count("pending") == 1
    assert rig.sink.ledger == [("L", b"3")]


async def test_a_poison_record_is_parked_when_the_target_works_for_others(tmp_path: Path) -> None:
    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return TransientError("internal error") if parcel.subject == "poison" else ACCEPTED

    async with running(tmp_path, script) as rig:
        await rig.owe(an_event("poison", 1))
        for number in range(2, 200):
            await rig.owe(an_event(f"K{number}", number))
            if await rig.count("parked"):
                break
            await asyncio.sleep(0.01)
        assert await rig.count("parked") == 1


async def test_an_outage_parks_nothing_and_uses_up_no_attempts(tmp_path: Path) -> None:
    down = True

    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return NotConnectedError("connection refused") if down else ACCEPTED

    async with running(tmp_path, script) as rig:
        await rig.owe(*[an_event(f"K{n}", n) for n in range(20)])
        await rig.until(lambda: rig.relay.breaker.is_open)
        calls_when_open = len(rig.sink.calls)
        await asyncio.sleep(0.3)
        assert len(rig.sink.calls) <= calls_when_open + 40  # one trial at a time, not three slots as fast as they can
        down = False
        await rig.until_counted("delivered", 20, seconds=10)
        assert await rig.count("parked") == 0


async def test_a_target_that_fails_everything_counts_as_down_and_parks_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, always(TransientError("500"))) as rig:
        await rig.owe(*[an_event(f"K{n}", n) for n in range(20)])
        await rig.until(lambda: rig.relay.breaker.is_open)
        assert await rig.count("parked") == 0


async def test_a_doubt_inside_the_memory_is_sent_again_under_its_key(tmp_path: Path) -> None:
    memory = TargetMemory(key_lifetime=timedelta(hours=1))
    async with running(tmp_path, first(InDoubtError("timed out")), memory=memory) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
    assert [call.is_resend for call in rig.sink.calls] == [False, True]
    assert len({call.idempotency_key for call in rig.sink.calls}) == 1


async def test_a_doubt_without_memory_or_probe_waits_for_a_person(tmp_path: Path) -> None:
    async with running(tmp_path, always(InDoubtError("timed out"))) as rig:
        await rig.owe(an_event("K", 1), an_event("K", 2))
        await rig.until_counted("in_doubt", 1)
        await asyncio.sleep(0.1)
        assert len(rig.sink.calls) == 1


async def test_a_call_that_lands_after_the_first_probe_is_not_sent_twice(tmp_path: Path) -> None:
    memory = TargetMemory(lands_within=timedelta(milliseconds=300), can_probe=True)
    async with running(tmp_path, first(InDoubtError("timed out"), times=1), memory=memory) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until(lambda: rig.sink.calls)
        asyncio.get_running_loop().call_later(0.25, rig.sink.land, rig.sink.calls[0])
        await rig.until_counted("delivered", 1)
    assert rig.sink.ledger == [("K", b"1")]
    assert len(rig.sink.calls) == 1


async def test_what_was_denied_twice_late_enough_is_sent_again(tmp_path: Path) -> None:
    memory = TargetMemory(lands_within=timedelta(milliseconds=20), can_probe=True)
    async with running(tmp_path, first(InDoubtError("reset")), memory=memory) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
    assert len(rig.sink.probes) >= 2
    assert rig.sink.ledger == [("K", b"1")]


async def test_an_unreachable_target_during_a_resend_leaves_the_doubt(tmp_path: Path) -> None:
    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return InDoubtError("timed out") if call == 1 else NotConnectedError("connection refused")

    memory = TargetMemory(key_lifetime=timedelta(hours=1))
    async with running(tmp_path, script, memory=memory) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until(lambda: len(rig.sink.calls) >= 2)
        await rig.until_counted("in_doubt", 1)
        assert await rig.count("pending") == 0


async def test_a_hanging_call_ends_at_the_deadline_and_is_in_doubt(tmp_path: Path) -> None:
    limits = LimitSpec(in_flight=1, deadline=timedelta(milliseconds=50))
    async with running(tmp_path, always(ACCEPTED), limits=limits) as rig:

        async def hang(parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
            await asyncio.sleep(60)
            return []

        rig.sink.deliver = hang  # type: ignore[method-assign] # the sink of this test never answers
        await rig.owe(an_event("K", 1))
        await rig.until_counted("in_doubt", 1)


async def test_a_duplicate_is_settled_and_noted(tmp_path: Path) -> None:
    async with running(tmp_path, always(DuplicateError("exists", reference="77"))) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
        row = await rig.database.read(lambda c: c.execute("SELECT reference, outcome FROM deliveries").fetchone())
    assert row == ("77", "accepted")


async def test_what_the_target_answers_later_is_asked_for(tmp_path: Path) -> None:
    delayed = Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta(milliseconds=10))
    memory = TargetMemory(can_probe=True)
    async with running(tmp_path, always(delayed), memory=memory) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
    assert len(rig.sink.calls) == 1


async def test_a_target_that_answers_later_and_cannot_be_asked_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with running(tmp_path, always(Outcome(kind=OutcomeKind.DELAYED))) as rig:
        await rig.owe(an_event("K", 1), an_event("K", 2))
        await rig.until_counted("delivered", 2)
    assert rig.sink.probes == []


@pytest.mark.parametrize("fault", [ValueError("a bug"), KeyError("x")])
async def test_a_connector_that_fails_by_its_own_fault_leaves_a_doubt(tmp_path: Path, fault: Exception) -> None:
    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        raise fault

    async with running(tmp_path, script) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("in_doubt", 1)


async def test_the_outcome_is_an_event_written_with_the_settling(tmp_path: Path) -> None:
    async with running(tmp_path, always(ACCEPTED)) as rig:
        await rig.owe(an_event("K", 1))
        await rig.until_counted("delivered", 1)
        event = await rig.database.read(lambda c: inbox.get(c, Seq(2)))
    assert (event.contract, event.subject, event.op) == ("delivery-outcome/1", "K", Op.ACK)
    assert event.causationid == an_event("K", 1).id


async def test_what_cannot_be_rendered_is_parked_and_its_outcome_says_so(tmp_path: Path) -> None:
    def render(event: Event) -> bytes:
        if event.subject == "K":
            raise RejectedError("the unit has no counterpart there")
        return event.data

    async with running(tmp_path, always(ACCEPTED)) as rig:
        rig.render = render
        await rig.owe(an_event("K", 1), an_event("L", 2))
        await rig.until_counted("delivered", 1)
        outcomes = await rig.database.read(lambda c: [inbox.get(c, Seq(number)) for number in (3, 4)])
    assert [parcel.subject for parcel in rig.sink.calls] == ["L"]
    told = {one.subject: orjson.loads(one.data) for one in outcomes}
    assert (told["K"]["state"], told["K"]["revision"]) == ("parked", 0)
    assert told["K"]["detail"] == "the unit has no counterpart there"
    assert {one.causationid for one in outcomes} == {an_event("K", 1).id, an_event("L", 2).id}
    assert sum(parked for _, parked in rig.turns) == 1


async def test_lost_work_is_found_by_the_reaper_and_becomes_a_doubt(tmp_path: Path) -> None:
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        rig = Rig(database, ScriptedSink(always(ACCEPTED)), memory=TargetMemory(), limits=LimitSpec())
        await rig.start(OrderMode.STRICT)
        await rig.owe(an_event("K", 1))
        await database.write(partial(_claim_and_vanish, rig.lanes[0]))
        reaper = Reaper(database, rig.leases, Reserve(tmp_path / "reserve"), CLOCK, on_recovered=rig.relay.wake)
        assert await reaper.sweep() == 1
        assert await rig.count("in_doubt") == 1


@pytest.mark.parametrize("jump", [timedelta(minutes=-40), timedelta(days=-3650)], ids=["minutes", "years"])
async def test_a_clock_that_is_set_back_while_the_agent_runs_lengthens_no_wait(tmp_path: Path, jump: timedelta) -> None:
    clock = FrozenClock()
    async with temporary_database(tmp_path, now=clock.now()) as database:
        rig = Rig(database, ScriptedSink(always(ACCEPTED)), memory=TargetMemory(), limits=LimitSpec())
        await rig.start(OrderMode.STRICT)
        reaper = Reaper(database, rig.leases, Reserve(tmp_path / "reserve"), clock, on_recovered=rig.relay.wake)
        await database.write(partial(_owe, rig.lanes[0], [an_event("K", 1)], now=clock.now() + timedelta(minutes=1)))
        await database.write(_was_tried)
        assert await reaper.sweep() == 0, "a wait that is lawful is left alone at a start"
        clock.jump(jump)
        clock.advance(5)
        assert await reaper.sweep() == 1
        due = await database.read(lambda connection: next_due(connection, rig.lanes[0].id))
        assert due == clock.now() + timedelta(seconds=55)
        assert await reaper.sweep() == 0


async def test_what_was_never_tried_is_due_at_a_start_whatever_the_clock_said(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with temporary_database(tmp_path, now=clock.now()) as database:
        rig = Rig(database, ScriptedSink(always(ACCEPTED)), memory=TargetMemory(), limits=LimitSpec())
        await rig.start(OrderMode.STRICT)
        await database.write(partial(_owe, rig.lanes[0], [an_event("K", 1)], now=clock.now() + timedelta(minutes=40)))
        reaper = Reaper(database, rig.leases, Reserve(tmp_path / "reserve"), clock, on_recovered=rig.relay.wake)
        assert await reaper.sweep() == 1
        assert await database.read(lambda connection: is_due(connection, rig.lanes[0].id, now=clock.now()))


def _was_tried(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE deliveries SET attempts = 1")


def _claim_and_vanish(lane: Lane, connection: sqlite3.Connection) -> None:
    with Outbox(connection, now=CLOCK.now()) as outbox:
        outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=TargetMemory(),
            call_deadline=timedelta(0),
            render=lambda event: event.data,
        )
