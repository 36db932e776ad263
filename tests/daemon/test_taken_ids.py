"""A site makes up an event under the id of another's: the other's is set aside in the open, and nothing is lost in silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Batch, RawDocument, SourceRecord
from state import inbox, retention
from state.inbox import Arrival
from state.model.clock import to_millis
from state.model.errors import InvariantError
from state.model.event import Event
from state.model.ids import EstateHash, EventId, Seq, outcome_id
from state.retention import Bound
from state.testing import temporary_database
from tests.daemon.liar import Liar
from tests.daemon.link_rig import FROM_SOUTH, HUB, AgentAt, Estatewide, estatewide, holds, until
from tests.daemon.test_attacks import SourceThatCannotWait, an_estate, an_intake, in_force, the_ground
from tests.daemon.test_relay import ACCEPTED, CLOCK, always, an_event, running


async def letters(agent: AgentAt) -> list[tuple[Any, ...]]:
    return await agent.rows("SELECT code, site, subject FROM dead_letters ORDER BY id")


async def squat(whole: Estatewide, victim: Event) -> Liar:
    """The north hands up an event of its own under the id of another's."""
    liar = Liar(whole.wires["north"])
    await liar.hello()
    await liar.push(replace(whole.agents["north"].event("R-9", 1), id=victim.id))
    return liar


# --- from one site and from another --------------------------------------------------------------------------------


async def test_an_event_whose_id_another_site_has_used_is_set_aside_and_its_stream_goes_on(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        first, second = (south.event("R-1", revision, flow="south-reco") for revision in (1, 2))
        await squat(whole, first)
        await south.arises(first, second)
        whole.start("south")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-9", 1), ("R-1", 2)]))
        assert await letters(hub) == [("id-taken", "south", "R-1")]
        [(raw, message, hint)] = await hub.rows("SELECT raw, message, hint FROM dead_letters")
        assert b'"R-1"' in raw
        assert message == "this event of south has the id of one of north: one of the two was made up"
        assert "distctl agents deny" in hint
        await whole.in_step("south")


async def test_what_is_sent_again_is_still_known(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await liar.push(north.event("R-1", 1))
        await liar.push(north.event("R-1", 1), north.event("R-1", 1))
        assert await hub.owes("hq/erp") == [("R-1", 1)]
        assert await letters(hub) == []


async def test_an_id_that_was_let_go_is_still_of_the_site_that_had_it(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        event = south.event("R-1", 1, flow="south-reco")
        liar = await squat(whole, event)
        await hub.database.write(_let_go)
        assert await hub.rows("SELECT count(*) FROM events") == [(0,)]
        await south.arises(event)
        whole.start("south")
        await until(lambda: holds(letters(hub), [("id-taken", "south", "R-1")]))
        await liar.push(replace(whole.agents["north"].event("R-9", 1), id=event.id))
        assert len(await letters(hub)) == 1, "what is sent again of the same site was here"


def _let_go(connection: Any) -> None:
    """As if all of it were old, and not the latest of its key."""
    for statement in (
        "DELETE FROM deliveries",
        "DELETE FROM key_queues",
        "DELETE FROM stream_items",
        "DELETE FROM trace",
    ):
        connection.execute(statement)
    bound = Bound(before=to_millis(CLOCK.now() + timedelta(days=1)), backup="b", own=Seq(99))
    assert retention.let_go_events(connection, bound, [Seq(1)]) == 1


async def test_two_that_wait_for_estates_under_one_id_are_two(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub = whole.agents[HUB]
        unknown = EstateHash("7" * 32)
        true = replace(whole.agents["south"].event("R-1", 1, flow="south-reco"), estate=unknown)
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await liar.push(replace(whole.agents["north"].event("R-9", 1), id=true.id, estate=unknown))
        honest = Liar(whole.wires["south"], "south")
        await honest.hello()
        await honest.push(true)
        assert await letters(hub) == [("id-taken", "south", "R-1")]
        assert await hub.rows("SELECT count(*) FROM unapplied") == [(1,)]


async def test_what_is_set_aside_of_one_site_hides_nothing_of_another(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        foreign = replace(south.event("R-1", 1, flow="south-reco"), site="hq")
        for site in ("north", "south"):
            liar = Liar(whole.wires[site], site)
            await liar.hello()
            await liar.push(foreign)
            await liar.push(foreign)
        assert await hub.rows("SELECT code, site FROM dead_letters ORDER BY id") == [
            ("not-its-own", "north"),
            ("not-its-own", "south"),
        ]


# --- what arises here ----------------------------------------------------------------------------------------------


def _admit(event: Event, connection: Any) -> None:
    inbox.admit(connection, [Arrival(event)])


def _of_elsewhere(identity: EventId) -> Event:
    return replace(an_event("X", 99), id=identity, site="liar", system="planning")


async def test_an_outcome_whose_id_somebody_made_up_is_set_aside_and_its_delivery_is_settled(tmp_path: Path) -> None:
    async with running(tmp_path, always(ACCEPTED)) as rig:
        event = an_event("K", 1)
        taken = outcome_id(delivery_event=event.id, target="n/erp", life=1, revision=1)
        await rig.database.write(partial(_admit, _of_elsewhere(taken)))
        await rig.owe(event, an_event("L", 2))
        await rig.until_counted("delivered", 2)
        found = await rig.database.read(
            lambda c: c.execute("SELECT code, site, subject, message FROM dead_letters").fetchall()
        )
    assert found == [("id-taken", "n", "K", "this event of n has the id of one of liar: one of the two was made up")]


async def test_a_record_whose_id_somebody_made_up_is_set_aside_and_the_others_are_taken_in(tmp_path: Path) -> None:
    compiled = an_estate(targets=[{"system": "n/erp"}], folder=tmp_path)
    rows = [
        SourceRecord(
            position=str(number),
            place=f"line {number}",
            fields={"id": f"R-{number}", "sku": "S-1", "qty": "12", "day": "2026-03-02"},
            raw=b"%d" % number,
        )
        for number in (1, 2)
    ]
    batch = Batch(document=RawDocument(name="reco.csv", sha256="0" * 64, size=2, content=b"12"), records=rows)
    ids: list[bytes] = []
    found: list[tuple[bytes, str]] = []
    aside: list[tuple[str, str]] = []
    for folder in ("as it is", "squatted"):
        (tmp_path / folder).mkdir()
        async with temporary_database(tmp_path / folder, now=CLOCK.now()) as database:
            await database.write(partial(in_force, compiled))
            if ids:
                estate = compiled.estate.hash
                await database.write(partial(_admit, replace(_of_elsewhere(EventId(ids[0].hex())), estate=estate)))
            await an_intake(compiled, the_ground(tmp_path / folder, database), SourceThatCannotWait()).take_in(batch)
            found = await database.read(lambda c: c.execute("SELECT id, subject FROM events ORDER BY seq").fetchall())
            aside = await database.read(lambda c: c.execute("SELECT code, subject FROM dead_letters").fetchall())
            ids = [identity for identity, _ in found]
    assert [subject for _, subject in found] == ["X", "R-2"]
    assert aside == [("id-taken", "R-1")]


async def test_who_does_not_say_what_becomes_of_it_is_stopped(tmp_path: Path) -> None:
    async with running(tmp_path, always(ACCEPTED)) as rig:
        event = an_event("K", 1)
        await rig.database.write(partial(_admit, event))
        with pytest.raises(InvariantError, match="has the id of one of n"):
            await rig.database.write(partial(_admit, replace(event, site="m")))
