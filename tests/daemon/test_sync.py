"""A hub and its sites kept in step, through the real codec and real stores; the wire between them is the test's."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest

from agent.estate.compiled import CompiledEstate
from agent.identity.seal import Seal
from agent.sync.fencing import LinkFencedError
from agent.sync.frames import decode, encode
from agent.sync.needs import Reason
from state import bundles, estates, life, peers, unapplied
from state.bundles import Bundle, BundleState
from state.model.errors import RejectedError, TransientError
from state.model.estate import hash_of
from state.model.event import Environment, Event
from state.model.ids import EstateHash
from tests.daemon.link_rig import (
    CLOCK,
    FROM_SOUTH,
    HUB,
    AgentAt,
    Estatewide,
    Wire,
    adopt_sealed,
    an_estate,
    estatewide,
    holds,
    until,
)

_OLD = {Reason.REWOUND, Reason.FORKED, Reason.CLONED}
"""Why a store is fenced that is an old copy: which of its marks the hub looks at first depends on what was sent since."""


def story(key: str, *revisions: int) -> list[tuple[str, int]]:
    return [(key, revision) for revision in revisions]


async def grow(whole: Estatewide, *revisions: int, name: str = "north", key: str = "R-1", content: str = "") -> None:
    """Events arise at the store of that name, and reach the hub."""
    agent = whole.agents[name]
    await agent.arises(*[agent.event(key, revision, content=content) for revision in revisions])


async def refused(whole: Estatewide, name: str) -> tuple[str, Reason]:
    """Who is fenced when that store says hello."""
    with pytest.raises(LinkFencedError) as caught:
        await whole.links[name].greet()
    return caught.value.fence.site, caught.value.fence.reason


# --- the way of an event ------------------------------------------------------------------------------------------


async def test_what_arises_at_one_site_is_owed_where_its_targets_are_and_nowhere_else(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, south, hub = (whole.agents[site] for site in ("north", "south", HUB))
        await grow(whole, 1, 2)
        whole.start("north", "south")
        await grow(whole, 3)
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1, 2, 3)))
        assert await hub.owes("hq/erp") == story("R-1", 1, 2, 3)
        assert await north.rows("SELECT count(*) FROM deliveries") == [(0,)]
        await whole.in_step()


async def test_an_outcome_goes_back_to_where_its_event_arose(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, south, hub = (whole.agents[site] for site in ("north", "south", HUB))
        await grow(whole, 1)
        whole.start("north", "south")
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1)))
        await south.delivers("south/wms")
        await hub.delivers("hq/erp")
        both = [("R-1", "hq/erp"), ("R-1", "south/wms")]
        await until(lambda: holds(north.outcomes(), both))
        assert await hub.outcomes() == both
        assert await south.outcomes() == [("R-1", "south/wms")]
        await whole.in_step()


async def test_an_urgent_event_does_not_wait_behind_a_backlog(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await north.arises(*[north.event(f"B-{number}", 1, flow="bulk") for number in range(1500)])
        await grow(whole, 1)
        whole.start("north")
        await until(lambda: holds(hub.rows("SELECT count(*) FROM deliveries"), [(1501,)]))
        assert (await hub.owes("hq/erp"))[0] == ("R-1", 1)


async def test_where_a_raw_document_lies_is_known_at_the_hub(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await north.arises(replace(north.event("R-1", 1), rawref="ab" * 32))
        whole.start("north")
        await whole.in_step()
        assert await hub.rows("SELECT raw_elsewhere FROM events") == [(b"\xab" * 32,)]


# --- poor lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_replies_that_are_lost_double_nothing_and_fence_nobody(tmp_path: Path, lost: int) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        hub = whole.agents[HUB]
        for revision in range(1, 10):
            whole.wires["north"].lost_replies = lost if revision % 3 == 0 else 0
            await grow(whole, revision)
            await until(partial(_has_all, whole, revision))
        await whole.in_step()
        assert await hub.owes("hq/erp") == story("R-1", *range(1, 10))
        assert await whole.fence_of("north") == ("open", "")


async def _has_all(whole: Estatewide, revision: int) -> bool:
    return await whole.agents[HUB].owes("hq/erp") == story("R-1", *range(1, revision + 1))


async def test_a_site_whose_line_is_cut_goes_on_and_catches_up(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        south = whole.agents["south"]
        whole.start("north", "south")
        await grow(whole, 1)
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1)))
        for wire in whole.wires.values():
            wire.is_cut = True
        await grow(whole, 2, 3)
        await until(lambda: whole.links["north"].trouble)
        for wire in whole.wires.values():
            wire.is_cut = False
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1, 2, 3)))
        await until(lambda: whole.links["north"].trouble is None)


# --- old copies and second stores ---------------------------------------------------------------------------------


async def test_an_idle_clone_is_fenced_at_its_first_call(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy("north", "copy")
        await until(lambda: _calls(whole, "north") >= 4)  # the original goes on, with nothing to tell
        whole.hub.wake(["north"])
        await until(lambda: _calls(whole, "north") >= 5)
        await whole.open("copy", site="north")
        assert await refused(whole, "copy") == ("north", Reason.CLONED)
        assert await whole.fence_of("north") == ("fenced", "cloned")
        await until(lambda: whole.links["north"].trouble)
        assert isinstance(whole.links["north"].trouble, LinkFencedError)


async def test_a_pull_that_was_given_up_and_overtaken_does_not_fence_its_site(tmp_path: Path) -> None:
    """A hub goes on holding a pull whose caller has hung up; the site is long some nonces further when it is answered."""
    async with estatewide(tmp_path) as whole:
        wire = whole.wires["north"]
        whole.start("north")
        await until(lambda: _is_held(wire))
        [abandoned] = wire.under_way
        await whole.stop("north")
        before, whole.hub = whole.hub, whole.make_hub(whole.agents[HUB])  # which adopted an estate
        whole.start("north")
        await until(lambda: _calls(whole, "north") >= 6)
        before.wake(["north"])
        await until(abandoned.done)
        assert isinstance(abandoned.exception(), TransientError)
        assert await whole.fence_of("north") == ("open", "")


async def test_the_first_pull_of_a_life_may_be_given_up_and_asked_again(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        wire = whole.wires["north"]
        whole.start("north")
        await until(lambda: _is_held(wire))
        await whole.stop("north")
        whole.start("north")
        await until(lambda: wire.calls == ["hello", "pull"] * 2 and len(wire.under_way) == 2)
        await until(lambda: wire.calls[-1:] == ["pull"] and len(wire.under_way) == 2)
        assert _calls(whole, "north") == 4, "a hello and a pull, twice"
        await until(lambda: _calls(whole, "north") >= 8)
        assert await whole.fence_of("north") == ("open", "")


def _is_held(wire: Wire) -> bool:
    return wire.calls[-1:] == ["pull"] and len(wire.under_way) == 1


def _calls(whole: Estatewide, name: str) -> int:
    whole.hub.wake(["north"])
    return len(whole.wires[name].calls)


async def test_a_site_put_back_from_a_copy_is_fenced_and_its_new_events_come_after_a_person_adopted_it(
    tmp_path: Path,
) -> None:
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy("north", "copy")
        await grow(whole, 2, 3)
        await whole.in_step()
        await whole.close("north")
        await whole.open("copy", site="north")
        await grow(whole, 4, 3, name="copy")
        site, reason = await refused(whole, "copy")
        assert (site, reason in _OLD) == ("north", True)
        assert await hub.owes("hq/erp") == story("R-1", 1, 2, 3)
        await whole.adopt("north")
        whole.start("copy")
        await until(lambda: holds(hub.owes("hq/erp"), story("R-1", 1, 2, 3, 4)))
        assert await whole.agents["copy"].rows("SELECT epoch FROM life") == [(2,)]
        assert await whole.fence_of("north") == ("open", "")
        await whole.open("north")
        assert await refused(whole, "north") == ("north", Reason.ENDED)
        assert await whole.fence_of("north") == ("open", ""), "the life that goes on is in its right"


async def test_two_stores_that_used_one_sequence_are_found(tmp_path: Path) -> None:
    """Both come with a nonce that could be theirs: only the chain tells."""
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.close("north")
        for name, content in (("first", "A"), ("second", "B")):
            (tmp_path / name).mkdir()
            for file in (tmp_path / "north").iterdir():
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
            await whole.open(name, site="north")
            await grow(whole, 2, name=name, content=content)
        whole.start("first")
        await whole.in_step()
        await whole.stop("first")
        site, reason = await refused(whole, "second")
        assert (site, reason in _OLD) == ("north", True)


async def test_a_hub_that_is_an_old_copy_fences_itself(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.stop("north")
        await whole.copy(HUB, "old")
        whole.start("north")
        await grow(whole, 2)
        await whole.in_step()
        await whole.stop("north")
        await whole.close(HUB)
        await whole.open("old", site=HUB)
        whole.agents[HUB] = whole.agents["old"]
        assert await refused(whole, "north") == (HUB, Reason.REWOUND)
        assert whole.hub_fenced == 1
        [(fenced,)] = await whole.agents["old"].rows("SELECT fenced FROM life")
        assert fenced
        assert await whole.fence_of("north") == ("open", ""), "the site is in its right"


async def test_a_hub_that_was_restored_gets_again_what_it_lost(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await whole.in_step()
        await whole.stop("north")
        await whole.stop("south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await grow(whole, 2, 3)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story("R-1", 1, 2, 3)))
        await whole.in_step()
        await whole.stop("north")
        await whole.stop("south")
        await whole.close(HUB)
        restored = await whole.open("old", site=HUB)
        whole.agents[HUB] = restored
        await restored.database.write(lambda connection: life.begin_epoch(connection, now=0))
        whole.start("north", "south")
        await grow(whole, 4)
        await until(lambda: holds(restored.owes("hq/erp"), story("R-1", 1, 2, 3, 4)))
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story("R-1", 1, 2, 3, 4)))
        await whole.in_step()
        assert await whole.fence_of("north") == await whole.fence_of("south") == ("open", "")


# --- what cannot be taken in --------------------------------------------------------------------------------------


async def test_an_event_of_an_estate_that_is_not_here_waits_for_it_with_the_newer_ones_of_its_key(
    tmp_path: Path,
) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        other = an_estate(owner="somebody else")
        await north.database.write(partial(adopt_sealed, other))
        north.compiled, known = other, north.compiled
        await grow(whole, 1)
        north.compiled = known
        await grow(whole, 2)
        await grow(whole, 1, key="R-2")
        whole.start("north")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-2", 1), ("R-1", 1), ("R-1", 2)]))
        assert await hub.database.read(unapplied.count) == 0
        await whole.in_step()


async def test_an_estate_is_asked_for_again_where_the_frame_that_brought_it_was_lost(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        other = an_estate(owner="somebody else")
        await north.database.write(partial(adopt_sealed, other))
        north.compiled = other
        await grow(whole, 1)
        await _push_once(whole, "north")
        assert await hub.database.read(unapplied.count) == 1
        whole.start("north")  # which has nothing new to hand up
        await until(lambda: holds(hub.owes("hq/erp"), story("R-1", 1)))


def _adopt(compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
    estates.adopt(connection, compiled.estate, now=1)


async def test_an_event_of_the_other_environment_is_set_aside_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        await north.arises(replace(north.event("R-1", 1), environment=Environment.PRODUCTION), north.event("R-1", 2))
        whole.start("north")
        await until(lambda: holds(hub.owes("hq/erp"), story("R-1", 2)))
        assert await hub.rows("SELECT code, site FROM dead_letters") == [("environment", "north")]


async def test_the_first_reply_of_a_life_may_be_lost(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.wires["north"].lost_replies = 2
        whole.start("north")
        await grow(whole, 1)
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), story("R-1", 1)))
        assert await whole.fence_of("north") == ("open", "")


async def test_a_stream_with_a_hole_is_not_sent(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        await grow(whole, 1, 2)
        await north.database.write(_skip_the_first)
        whole.start("north")
        trouble = await until(lambda: whole.links["north"].trouble)
        assert trouble.code == "stream-hole"
        assert await hub.owes("hq/erp") == []
        assert await hub.rows("SELECT count(*) FROM streams_in") == [(0,)]


def _skip_the_first(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM stream_items WHERE seq = 1")


# --- what a site may not say --------------------------------------------------------------------------------------


async def test_a_site_that_hands_up_what_arose_elsewhere_is_refused_that_event_and_no_other(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        await south.arises(
            south.event("R-1", 1),  # of the north
            replace(south.event("R-1", 2), site="south", system="wms", source="/south/wms"),  # of a flow of the north
            south.event("R-1", 3, flow="south-reco"),
        )
        whole.start("south")
        await until(lambda: holds(hub.owes("hq/erp"), story("R-1", 3)))
        letters = await hub.rows("SELECT code, site, field FROM dead_letters ORDER BY id")
        assert letters == [("not-its-own", "south", "site"), ("not-its-own", "south", "source")]
        assert await hub.rows("SELECT count(*) FROM events") == [(1,)]
        await whole.in_step()


async def test_an_outcome_is_heard_only_of_the_site_of_its_target(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north, south = (whole.agents[site] for site in (HUB, "north", "south"))
        await grow(whole, 1)
        whole.start("north", "south")
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1)))
        forged = orjson.dumps({"flow": "reco", "target": "hq/erp", "state": "delivered", "revision": 1})
        await south.delivers("south/wms", says=forged)
        await until(lambda: holds(hub.rows("SELECT code, site FROM dead_letters"), [("not-its-own", "south")]))
        assert await north.outcomes() == await hub.outcomes() == []


async def test_a_site_that_gives_another_name_in_its_hello_is_refused_and_nobody_is_fenced(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await whole.links["north"].greet()
        await whole.agents["north"].database.write(
            lambda connection: connection.execute("UPDATE life SET site = 'nord'")
        )
        await whole.agents[HUB].database.write(lambda connection: connection.execute("UPDATE peers SET epoch = 2"))
        with pytest.raises(RejectedError, match="nord"):
            await whole.links["north"].greet()
        assert whole.hub_fenced == 0
        assert await whole.agents[HUB].rows("SELECT fenced FROM life") == [("",)]


# --- what waits, and is not waited for any more -------------------------------------------------------------------


async def test_what_waits_for_an_estate_is_taken_in_when_that_was_adopted_here_meanwhile(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north, south = (whole.agents[site] for site in (HUB, "north", "south"))
        other = an_estate(owner="somebody else")
        await north.database.write(partial(_adopt, other))
        north.compiled = other
        await grow(whole, 1)
        await _push_once(whole, "north")
        assert await hub.database.read(unapplied.count) == 1
        await hub.database.write(partial(_adopt, other))
        whole.hub = whole.make_hub(hub)
        whole.start("north")
        await until(lambda: holds(hub.owes("hq/erp"), story("R-1", 1)))
        await _pull_once(whole, "south")
        assert await south.database.read(unapplied.count) == 1
        await south.database.write(partial(_adopt, other))
        whole.start("south")
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1)))
        assert [await one.database.read(unapplied.count) for one in (hub, south)] == [0, 0]


async def test_an_idle_site_is_asked_to_say_hello_to_a_hub_that_began_anew(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        link, south = whole.links["south"], whole.agents["south"]
        await link.greet()
        whole.hub = whole.make_hub(whole.agents[HUB])
        with pytest.raises(TransientError, match="hello"):
            await whole.wires["south"].pull(await south.database.read(link._pull))


async def test_a_hub_that_is_over_lets_nobody_wait_who_comes_after(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await whole.in_step()
        link, south = whole.links["south"], whole.agents["south"]
        await link.greet()
        pull = await south.database.read(link._pull)
        whole.hub.retire()
        for _ in range(2):
            async with asyncio.timeout(pull.wait_seconds / 2):
                await whole.wires["south"].pull(pull)


async def test_an_estate_of_a_later_version_is_kept_and_its_events_wait(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        document = orjson.dumps({**orjson.loads(whole.compiled.estate.to_json()), "weather": "fine"})
        later = hash_of(document)
        await north.database.write(lambda connection: estates.keep(connection, later, document))
        await north.database.write(partial(_seal, later, whole.seal))
        await north.arises(replace(north.event("R-1", 1), estate=later), north.event("R-2", 1))
        whole.start("north")
        await until(lambda: holds(hub.rows("SELECT count(*) FROM estates"), [(2,)]))
        await grow(whole, 2, key="R-2")
        await until(lambda: holds(hub.owes("hq/erp"), story("R-2", 1, 2)))
        await whole.in_step()
        assert await hub.rows("SELECT code FROM unapplied") == [("no-estate",)]
        assert whole.links["north"].trouble is None


def _seal(estate: EstateHash, seal: Seal, connection: sqlite3.Connection) -> None:
    bundle = Bundle(number=1, estate=estate, adopted_by="ada", adopted_at=CLOCK.now(), state=BundleState.CAME)
    bundles.receive(connection, replace(bundle, seal=seal.put_on(bundle)))


async def _push_once(whole: Estatewide, site: str) -> None:
    link = whole.links[site]
    nonce, needs = await link.greet()
    frame = await whole.agents[site].database.read(partial(link._frame, nonce, needs.after, ()))
    await whole.wires[site].push(encode(frame))


async def _pull_once(whole: Estatewide, site: str) -> None:
    link, database = whole.links[site], whole.agents[site].database
    await link.greet()
    pull = await database.read(link._pull)
    frame = decode(await whole.wires[site].pull(pull))
    await database.write(partial(link._take_in, pull, frame))


# --- two lives ended ----------------------------------------------------------------------------------------------


async def test_a_restored_hub_gets_again_what_it_lost_of_a_site_that_has_begun_an_epoch_since(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy(HUB, "old")
        await grow(whole, 2, 3)
        await _come_in_step_and_stop(whole, "north")
        await whole.agents["north"].database.write(_begin_epoch)
        whole.start("north")
        await grow(whole, 4)
        await _come_in_step_and_stop(whole, "north")
        await whole.close(HUB)
        restored = whole.agents[HUB] = await whole.open("old", site=HUB)
        await restored.database.write(_begin_epoch)
        await grow(whole, 5)
        whole.wires["north"].lost_replies = 1
        whole.start("north")
        await until(lambda: holds(restored.owes("hq/erp"), story("R-1", 1, 2, 3, 4, 5)))
        await whole.in_step()
        assert await whole.fence_of("north") == ("open", "")


async def test_a_restored_site_gets_again_what_it_lost_of_a_hub_that_was_restored_since(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story("R-1", 1)))
        await whole.in_step()
        await whole.copy("south", "old")
        await grow(whole, 2, 3)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story("R-1", 1, 2, 3)))
        await _come_in_step_and_stop(whole, "north", "south")
        await whole.close(HUB)
        await (await whole.open(HUB)).database.write(_begin_epoch)
        whole.start("north", "south")
        await grow(whole, 4)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story("R-1", 1, 2, 3, 4)))
        await _come_in_step_and_stop(whole, "north", "south")
        await whole.close("south")
        restored = await whole.open("old", site="south")
        await restored.database.write(_begin_epoch)
        whole.start("north", "old")
        await grow(whole, 5)
        await until(lambda: holds(restored.owes("south/wms"), story("R-1", 1, 2, 3, 4, 5)))
        await whole.in_step()
        assert await whole.fence_of("south") == ("open", "")


async def _come_in_step_and_stop(whole: Estatewide, *names: str) -> None:
    await whole.in_step()
    for name in names:
        await whole.stop(name)


def _begin_epoch(connection: sqlite3.Connection) -> None:
    """What `distctl restore` does."""
    life.begin_epoch(connection, now=0)


# --- many estates -------------------------------------------------------------------------------------------------


async def test_more_estates_than_fit_a_frame_come_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estates, "TOGETHER_BYTES", 1)
    async with estatewide(tmp_path) as whole:
        hub, north, south = (whole.agents[site] for site in (HUB, "north", "south"))
        for revision in range(1, 6):
            north.compiled = an_estate(owner=f"somebody {revision}")
            await north.database.write(partial(adopt_sealed, north.compiled))
            await grow(whole, revision, key=f"R-{revision}")
        hashes = [known for (known,) in await north.rows("SELECT hash FROM estates")]
        assert len(await north.database.read(partial(estates.documents, hashes=hashes))) == 1
        whole.start("north", "south")
        await until(lambda: _has_each(hub, "hq/erp"))
        await until(lambda: _has_each(south, "south/wms"))


async def _has_each(agent: AgentAt, target: str) -> bool:
    return sorted(await agent.owes(target)) == [(f"R-{revision}", revision) for revision in range(1, 6)]


async def test_a_pull_that_wants_what_the_hub_has_not_waits_as_any_other(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, wire = whole.agents["north"], whole.wires["north"]
        await whole.links["north"].greet()
        await north.database.write(partial(_let_wait, replace(north.event("R-1", 1), estate=EstateHash("ab" * 16))))
        whole.start("north")
        await until(lambda: _is_held(wire))
        await asyncio.sleep(0.1)
        assert wire.calls == ["hello", "hello", "pull"]


def _let_wait(event: Event, connection: sqlite3.Connection) -> None:
    hub = peers.ensure(connection, HUB)
    unapplied.add(connection, [event], peer=hub.id, tier=1, code="no-estate", detail="", now=0)


async def test_an_outcome_finds_its_way_through_a_restored_hub_that_has_lost_its_event(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, south = whole.agents["north"], whole.agents["south"]
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await grow(whole, 1)
        await until(lambda: holds(south.owes("south/wms"), story("R-1", 1)))
        await _come_in_step_and_stop(whole, "north", "south")
        whole.start("south")
        await south.delivers("south/wms")
        await until(lambda: holds(whole.agents[HUB].outcomes(), [("R-1", "south/wms")]))
        await whole.stop("south")
        await whole.close(HUB)
        restored = whole.agents[HUB] = await whole.open("old", site=HUB)
        await restored.database.write(_begin_epoch)
        whole.start("south")
        await until(lambda: holds(restored.outcomes(), [("R-1", "south/wms")]))
        whole.start("north")
        await until(lambda: holds(north.outcomes(), [("R-1", "south/wms")]))


async def test_a_flow_that_gets_another_tier_does_not_overtake_itself(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, south = whole.agents["north"], whole.agents["south"]
        await north.arises(*[north.event("R-1", revision, flow="bulk") for revision in range(1, 1201)])
        urgent = an_estate(bulk_tier=1)
        await north.database.write(partial(adopt_sealed, urgent))
        north.compiled = urgent
        await north.arises(north.event("R-1", 1201, flow="bulk"))
        whole.start("north", "south")
        await until(lambda: holds(south.owes("south/wms"), story("R-1", *range(1, 1202))))
        await whole.in_step()
        await north.arises(north.event("R-1", 1202, flow="bulk"))
        await whole.in_step()
        tiers = await north.rows("SELECT tier, seq FROM streams_out ORDER BY tier")
        assert tiers == [(1, 1), (3, 1201)], "once all is there it goes by its new tier"


async def test_a_site_that_fenced_its_hub_goes_on_once_the_right_store_answers(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north = whole.agents["north"]
        whole.start("north")
        await grow(whole, 1)
        await _come_in_step_and_stop(whole, "north")
        await north.database.write(
            lambda connection: peers.fence(connection, peers.ensure(connection, HUB), reason="rewound", detail="older")
        )
        whole.start("north")
        await until(lambda: holds(north.rows("SELECT state, reason FROM peers"), [("open", "")]))
