"""Attacks on the promises: hostile connectors, clocks, words and moments. The ledger of the target judges."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from agent.breaker import Breaker
from agent.crash_points import ignore
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate.known import KnownEstates
from agent.intake import Intake
from agent.lanes import open_lanes
from agent.leases import Leases
from agent.raw_archive import RawArchive
from agent.rendering import Renderer
from agent.sync.outgoing import Outgoing
from agent.telemetry import Telemetry
from agent.works import Ground, open_works
from connectors.base import Batch, Found, NotFound, Outcome, Parcel, RawDocument, Source, SourceRecord
from state import estates, inbox, lanes
from state.database import Database
from state.inbox import Arrival
from state.lanes import Lane, list_lanes
from state.model.clock import to_millis
from state.model.delivery import OrderMode, OutcomeKind, TargetMemory
from state.model.errors import DistctlError, InDoubtError, NotConnectedError, RejectedError, TransientError
from state.model.estate import Estate, LimitSpec
from state.model.ids import LaneId
from state.model.retry import RetryPolicy
from state.outbox import Outbox, Owed
from state.testing import FrozenClock, temporary_database
from tests.daemon.test_estate_compiled import FLOW
from tests.daemon.test_relay import ACCEPTED, CLOCK, QUICK, always, an_event, first, running

A_LANE = Lane(
    id=LaneId(1),
    flow="reco",
    target="n/erp",
    target_id=1,
    tier=1,
    order_mode=OrderMode.STRICT,
    order_domain="reco",
    shadow_of=None,
)
SOURCE = {"pattern": "*.csv", "format": {"kind": "csv"}, "guard": {"kind": "stable-size", "rest": "100ms"}}
HALF_A_CHARACTER = os.fsdecode(b"caf\xe9.json")


@pytest.mark.parametrize("nonsense", [None, [None], ["accepted"], 7])
async def test_a_connector_that_answers_nonsense_in_the_trial_call_does_not_keep_its_target_shut(
    tmp_path: Path, nonsense: object
) -> None:
    limits = LimitSpec(in_flight=1, deadline=timedelta(seconds=1))
    async with running(tmp_path, always(NotConnectedError("refused")), limits=limits) as rig:
        answer = rig.sink.deliver
        is_nonsense = True

        async def deliver(parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
            nonlocal is_nonsense
            if is_nonsense and rig.relay.breaker.is_open:
                is_nonsense = False
                rig.sink.script = always(ACCEPTED)
                return cast("Sequence[Outcome | DistctlError]", nonsense)
            return await answer(parcels)

        rig.sink.deliver = deliver  # type: ignore[method-assign] # a third party's connector may be wrong
        await rig.owe(an_event("K", 1), an_event("L", 2))
        await rig.until_counted("in_doubt", 1)
        await rig.until_counted("delivered", 1)


@pytest.mark.parametrize(
    "answer",
    [
        Outcome(kind=OutcomeKind.ACCEPTED, reference=HALF_A_CHARACTER, detail=HALF_A_CHARACTER),
        InDoubtError(HALF_A_CHARACTER, code=HALF_A_CHARACTER),
        TransientError(HALF_A_CHARACTER),
        Outcome(kind=OutcomeKind.REJECTED, detail=HALF_A_CHARACTER),
        Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta.max),
    ],
)
async def test_words_and_wishes_that_no_store_can_hold_stop_nobody(
    tmp_path: Path, answer: Outcome | DistctlError
) -> None:
    limits = LimitSpec(in_flight=1, batch=10, deadline=timedelta(seconds=1))

    def script(parcel: Parcel, call: int) -> Outcome | DistctlError:
        return answer if parcel.subject == "hostile" else ACCEPTED

    async with running(tmp_path, script, limits=limits, memory=TargetMemory(can_probe=True)) as rig:
        rig.sink.probe_answer = lambda parcel: NotFound()
        await rig.owe(an_event("hostile", 1), an_event("K", 2), an_event("L", 3))
        await rig.until(lambda: len(rig.sink.ledger) >= 2)
        expected = 3 if isinstance(answer, Outcome) and answer.kind is OutcomeKind.ACCEPTED else 2
        await rig.until_counted("delivered", expected)


async def test_a_target_that_wants_to_be_asked_again_at_once_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    delayed = Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta(microseconds=1))
    async with running(tmp_path, always(delayed), memory=TargetMemory(can_probe=True)) as rig:
        rig.sink.probe_answer = lambda parcel: Found(outcome=delayed)
        await rig.owe(an_event("K", 1))
        await asyncio.sleep(0.3)
        assert len(rig.sink.probes) <= 0.3 / QUICK.first.total_seconds() + 1


async def test_many_slow_questions_in_one_call_end_at_its_deadline(tmp_path: Path) -> None:
    """Otherwise the lease ends first, every answer is refused, and the doubts are asked for ever."""
    limits = LimitSpec(in_flight=1, batch=40, deadline=timedelta(milliseconds=100))
    memory = TargetMemory(can_probe=True)
    async with running(tmp_path, first(InDoubtError("reset")), limits=limits, memory=memory) as rig:

        async def probe(parcel: Parcel) -> Found | NotFound:
            rig.sink.probes.append(parcel)
            await asyncio.sleep(0.04)
            return Found(outcome=ACCEPTED)

        rig.sink.probe = probe  # type: ignore[method-assign] # a slow target
        await rig.owe(*[an_event(f"K{n}", n) for n in range(40)])
        await rig.until(lambda: rig.sink.probes)
        await asyncio.sleep(0.3)
        assert await rig.count("delivered") >= 1
        assert len(rig.sink.probes) < 40


def test_while_one_call_tries_there_is_no_time_at_which_the_others_look_again() -> None:
    """A time that has passed would have every idle slot look fifty times a second until the trial ends."""
    clock = FrozenClock()
    breaker = Breaker(RetryPolicy(), random.Random(1), clock)
    breaker.fail(reason="refused", retry_after=None)
    clock.advance(timedelta(minutes=1))
    assert breaker.lets_through()
    assert breaker.next_try is None


def test_a_trial_given_back_leaves_its_time_as_it_was() -> None:
    clock = FrozenClock()
    breaker = Breaker(RetryPolicy(), random.Random(1), clock)
    breaker.fail(reason="refused", retry_after=None)
    retry_at = breaker.retry_at
    clock.advance(timedelta(minutes=1))
    assert breaker.lets_through()
    breaker.forgo()
    assert breaker.next_try == retry_at


def an_estate(*, connector: str = "files", targets: Sequence[Mapping[str, object]], folder: Path) -> CompiledEstate:
    """A flow from planning to `targets`; `connector` is how the ERP is reached."""
    reached = (
        {"folder": str(folder / "erp")} if connector == "files" else {"base_url": "http://127.0.0.1:9", "path": "/"}
    )
    systems = {
        "planning": {"connector": "files", "settings": {"folder": str(folder / "planning")}},
        "erp": {"connector": connector, "settings": reached},
        "archive": {"connector": "files", "settings": {"folder": str(folder / "archive")}},
    }
    fields = {"id": "string", "sku": "string", "qty": "decimal", "day": "date"}
    flow = {**FLOW, "source": {"system": "planning", "fields": fields, "settings": SOURCE}, "targets": list(targets)}
    settings = {"name": "acme", "environment": "test", "currency": "EUR"}
    sites = {"n": {"site": "n", "systems": systems}, "s": {"site": "s", "systems": {"mirror": systems["archive"]}}}
    return compile_estate(Estate.model_validate({"settings": settings, "sites": sites, "flows": {"reco": flow}}))


def the_ground(folder: Path, database: Database) -> Ground:
    return Ground(
        site="n",
        home=folder,
        database=database,
        archive=RawArchive(folder / "raw"),
        leases=Leases(CLOCK),
        clock=CLOCK,
        dice=random.Random(1),
        crash=ignore,
        telemetry=Telemetry(),
        on_sent=lambda _: None,
    )


def in_force(compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
    estates.adopt(connection, compiled.estate, now=to_millis(CLOCK.now()))
    open_lanes(connection, compiled, site="n")


def owed_to_the_erp(compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
    event = replace(an_event("K", 1), flow="reco", estate=compiled.estate.hash)
    lane = next(lane for lane in list_lanes(connection) if lane.target == "n/erp")
    (admitted,) = inbox.admit(connection, [Arrival(event)])
    with Outbox(connection, now=CLOCK.now()) as outbox:
        outbox.add([Owed(admitted.seq, lane, "K", is_snapshot=True)])


async def test_an_old_lane_whose_system_is_reached_in_another_way_by_now_goes_the_old_way(tmp_path: Path) -> None:
    before = an_estate(targets=[{"system": "n/erp", "settings": {"name": "{key}.json"}}], folder=tmp_path)
    after = an_estate(connector="http", targets=[{"system": "n/archive"}], folder=tmp_path)
    (tmp_path / "erp").mkdir()
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, before))
        await database.write(partial(owed_to_the_erp, before))
        await database.write(partial(in_force, after))
        works = await open_works(the_ground(tmp_path, database), after)
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(works.run(ending))
            async with asyncio.timeout(5):
                while not list((tmp_path / "erp").glob("*.json")):  # noqa: ASYNC110 - the partner's folder is looked into
                    await asyncio.sleep(0.01)
            ending.set()
        assert set(works.relays) == {"n/erp", "n/archive"}


@pytest.mark.parametrize("document", [b'{"flows": "of an older distctl"}', None], ids=["unreadable", "without it"])
async def test_an_old_lane_whose_estate_does_not_help_is_told_and_stops_no_other(
    tmp_path: Path, document: bytes | None
) -> None:
    before = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    after = an_estate(targets=[{"system": "n/archive"}], folder=tmp_path)
    old = document or after.estate.to_json()
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, before))
        await database.write(partial(owed_to_the_erp, before))
        await database.write(partial(in_force, after))
        change = "UPDATE estates SET document = ? WHERE hash = ?"
        await database.write(lambda connection: connection.execute(change, (old, before.estate.hash)).rowcount)
        works = await open_works(the_ground(tmp_path, database), after)
        assert [trouble.partition(":")[0] for trouble in works.troubles] == [
            "lane reco to n/erp left the estate and cannot be worked"
        ]
        assert set(works.relays) == {"n/archive"}
        assert not works.leave_out(await database.read(lanes.owing)), "it is known, and opening anew would not help"
        ending = asyncio.Event()
        ending.set()
        await works.run(ending)


async def test_works_know_when_a_lane_owes_that_owed_nothing_when_they_were_opened(tmp_path: Path) -> None:
    before = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    after = an_estate(targets=[{"system": "n/archive"}], folder=tmp_path)
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        for compiled in (before, after):
            await database.write(partial(in_force, compiled))
        works = await open_works(the_ground(tmp_path, database), after)
        assert not works.leave_out(await database.read(lanes.owing))
        await database.write(partial(owed_to_the_erp, before))
        assert works.leave_out(await database.read(lanes.owing))
        ending = asyncio.Event()
        ending.set()
        await works.run(ending)


async def test_an_old_lane_that_cannot_be_opened_any_more_stops_no_other(tmp_path: Path) -> None:
    before = an_estate(targets=[{"system": "n/erp", "settings": {"nmae": "{key}.json"}}], folder=tmp_path)
    after = an_estate(targets=[{"system": "n/archive"}], folder=tmp_path)
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, before))
        await database.write(partial(owed_to_the_erp, before))
        await database.write(partial(in_force, after))
        works = await open_works(the_ground(tmp_path, database), after)
        assert [trouble.partition(":")[0] for trouble in works.troubles] == [
            "lane reco to n/erp left the estate and cannot be worked"
        ]
        ending = asyncio.Event()
        ending.set()
        await works.run(ending)


async def test_a_mapping_that_makes_no_json_parks_its_record_and_no_other(tmp_path: Path) -> None:
    mapping = {"fields": {"kind": "record.sku == 'bad' ? dyn(type(1)) : dyn('good')"}}
    compiled = an_estate(targets=[{"system": "n/erp", "mapping": mapping}], folder=tmp_path)
    render = Renderer(KnownEstates(compiled)).render
    event = replace(an_event("K", 1), flow="reco", estate=compiled.estate.hash)
    with sqlite3.connect(":memory:") as connection:
        assert render(connection, A_LANE, replace(event, data=b'{"sku":"fine"}')) == b'{"kind":"good"}'
        with pytest.raises(RejectedError) as refused:
            render(connection, A_LANE, replace(event, data=b'{"sku":"bad"}'))
    connection.close()
    assert refused.value.code == "mapping-fault"


async def test_an_outage_outlasts_an_edit_of_the_estate_unless_the_target_is_reached_in_another_way(
    tmp_path: Path,
) -> None:
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        clock = FrozenClock()
        ground = replace(the_ground(tmp_path, database), clock=clock)

        async def breaker_under(connector: str) -> Breaker:
            compiled = an_estate(connector=connector, targets=[{"system": "n/erp"}], folder=tmp_path)
            await database.write(partial(in_force, compiled))
            return (await open_works(ground, compiled)).relays["n/erp"].breaker

        first = await breaker_under("http")
        first.fail(reason="503", retry_after=timedelta(minutes=10))
        second = await breaker_under("http")
        assert second.retry_at == clock.now() + timedelta(minutes=10)
        assert not second.lets_through()
        clock.advance(timedelta(minutes=10))
        assert second.lets_through(), "one call tries, and its works end before it is answered"
        assert (await breaker_under("http")).lets_through(), "the next one may try"
        assert not (await breaker_under("files")).is_open


class SourceThatCannotWait:
    """Reads nothing, and cannot be waited for: a third party's connector."""

    def __init__(self) -> None:
        self.readings = 0

    async def read(self) -> AsyncGenerator[Batch, None]:
        self.readings += 1
        nothing: tuple[Batch, ...] = ()
        for batch in nothing:
            yield batch

    async def settle(self, batch: Batch) -> None:
        pass

    async def wait(self, longest: timedelta) -> None:
        raise NotConnectedError("no notices from there")

    async def close(self) -> None:
        pass


def an_intake(compiled: CompiledEstate, ground: Ground, source: Source) -> Intake:
    return Intake(
        compiled.flows["reco"],
        lambda: source,
        lanes={("f", "n/erp"): A_LANE},
        outgoing=Outgoing("n", None),
        database=ground.database,
        archive=ground.archive,
        clock=CLOCK,
        dice=ground.dice,
        crash=ignore,
        on_owed=lambda targets: None,
        on_sent=lambda _: None,
        on_read=lambda flow, accepted, refused: None,
    )


async def test_a_source_that_cannot_be_waited_for_is_read_after_a_pause(tmp_path: Path) -> None:
    compiled = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    source = SourceThatCannotWait()
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        ground = the_ground(tmp_path, database)
        intake = an_intake(compiled, ground, source)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.run(stopping))
            await asyncio.sleep(0.2)
            stopping.set()
    assert source.readings == 1


async def test_a_record_that_breaks_our_own_code_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    compiled = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    good = {"id": "R-1", "sku": "S-1", "qty": "12", "day": "2026-03-02"}
    rows = [
        SourceRecord(position="1", place="line 1", fields={**good, "day": b"not what a format gives"}, raw=b"1"),
        SourceRecord(position="2", place="line 2", fields=good, raw=b"2"),
    ]
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, compiled))
        intake = an_intake(compiled, the_ground(tmp_path, database), SourceThatCannotWait())
        document = RawDocument(name="reco.csv", sha256="0" * 64, size=2, content=b"12")
        await intake.take_in(Batch(document=document, records=rows))
        letters = await database.read(lambda c: c.execute("SELECT place, code FROM dead_letters").fetchall())
        events = await database.read(lambda c: c.execute("SELECT subject FROM events").fetchall())
    assert letters == [("line 1", "intake-fault")]
    assert events == [("R-1",)]


def grouped_flow(folder: Path) -> CompiledEstate:
    """The flow of `an_estate`, its rows being the lines of purchase orders."""
    spec = an_estate(targets=[{"system": "n/erp"}], folder=folder).estate.model_dump(mode="json")
    flow = spec["flows"]["reco"]
    flow["contract"], flow["order"] = "purchase-order/1", {}
    flow["mapping"] = {
        "group_by": ["record.id"],
        "fields": {"po_no": "record.id"},
        "lines": {"line_no": "line_number", "sku": "record.sku", "quantity": {"value": "record.qty", "unit": "'EA'"}},
    }
    return compile_estate(Estate.model_validate(spec))


def order_rows(*quantities: tuple[int, str]) -> list[SourceRecord]:
    return [
        SourceRecord(
            position=str(line),
            place=f"best.csv line {line}",
            fields={"id": "P-1", "sku": "S-1", "qty": quantity, "day": "2026-03-02"},
            raw=b"P-1;%d" % line,
        )
        for line, quantity in quantities
    ]


async def the_letter(tmp_path: Path, rows: Sequence[SourceRecord]) -> tuple[str, str, str, bytes]:
    """Place, field, message and raw bytes of the one dead letter that the rows of a document become."""
    compiled = grouped_flow(tmp_path)
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, compiled))
        intake = an_intake(compiled, the_ground(tmp_path, database), SourceThatCannotWait())
        document = RawDocument(name="best.csv", sha256="0" * 64, size=2, content=b"12")
        await intake.take_in(Batch(document=document, records=rows))
        [letter] = await database.read(
            lambda c: c.execute("SELECT place, field, message, raw FROM dead_letters").fetchall()
        )
    return cast("tuple[str, str, str, bytes]", letter)


async def test_the_rows_of_a_refused_document_stay_lines(tmp_path: Path) -> None:
    *_, raw = await the_letter(tmp_path, order_rows((12, "many"), (13, "1")))
    assert raw == b"P-1;12\nP-1;13"


async def test_a_refused_document_is_placed_once_with_its_lines_and_its_field(tmp_path: Path) -> None:
    place, field, message, _ = await the_letter(tmp_path, order_rows((12, "1"), (13, "many"), (20, "1")))
    assert (place, field) == ("best.csv lines 12-13, 20", "qty")
    assert message.startswith("best.csv line 13: field qty must be a decimal")


async def test_the_log_tells_the_place_of_what_is_set_aside_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await the_letter(tmp_path, order_rows((6, "many")))
    assert [one.getMessage().count("best.csv line 6") for one in caplog.records if "set aside" in one.getMessage()] == [
        1
    ]


async def test_a_file_whose_column_was_renamed_is_refused_once_and_not_row_by_row(tmp_path: Path) -> None:
    compiled = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    (tmp_path / "planning").mkdir()
    (tmp_path / "erp").mkdir()
    rows = "".join(f"R-{number},S-1,1,2026-03-02\n" for number in range(20))
    (tmp_path / "planning/reco.csv").write_text(f"id,sku,quantity,day\n{rows}", encoding="utf-8")
    async with temporary_database(tmp_path, now=CLOCK.now()) as database:
        await database.write(partial(in_force, compiled))
        works = await open_works(the_ground(tmp_path, database), compiled)
        ending = asyncio.Event()
        letters: list[tuple[str, str]] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(works.run(ending))
            async with asyncio.timeout(5):
                while not letters:
                    await asyncio.sleep(0.05)
                    letters = await database.read(lambda c: c.execute("SELECT code, rule FROM dead_letters").fetchall())
            ending.set()
    assert letters == [("csv-header-missing", "the header does not name qty")]
