"""The hub's estate on its way to the sites, and the estates of sites that the hub does not take."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.estate.compiled import CompiledEstate
from agent.identity.certificates import make_key
from agent.identity.seal import Seal
from state import bundles, estates
from state.bundles import Bundle, BundleState
from tests.daemon.link_rig import CLOCK, HUB, AgentAt, Estatewide, adopt_sealed, an_estate, estatewide, holds, until

OTHER = an_estate(owner="somebody else")


def _put_in_force(compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
    """What a hub does with an estate that its folder has."""
    estates.adopt(connection, compiled.estate, now=1)
    bundles.issue(connection, compiled.estate.hash, by="ada", now=CLOCK.now())


async def put_in_force_at_hub(whole: Estatewide, compiled: CompiledEstate) -> None:
    hub = whole.agents[HUB]
    await hub.database.write(partial(_put_in_force, compiled))
    before, whole.hub = whole.hub, whole.make_hub(hub)
    before.retire()


async def last(agent: AgentAt) -> tuple[int, str] | None:
    """Number and estate of the bundle that the agent knows last."""
    bundle = await agent.database.read(bundles.last)
    return (bundle.number, bundle.estate) if bundle else None


def use(whole: Estatewide, site: str, compiled: CompiledEstate) -> None:
    """Let what arises at the site be of that estate."""
    whole.agents[site].compiled = compiled


async def arises(whole: Estatewide, site: str, *keys: str) -> None:
    await whole.agents[site].arises(*(whole.agents[site].event(key, 1) for key in keys))


# --- down ---------------------------------------------------------------------------------------------------------


async def test_what_the_hub_puts_in_force_comes_to_every_site_under_its_seal(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await until(lambda: all("pull" in wire.calls for wire in whole.wires.values()))
        await put_in_force_at_hub(whole, OTHER)
        for site in ("north", "south"):
            agent = whole.agents[site]
            bundle = await until(partial(agent.database.read, bundles.to_judge))
            assert (bundle.number, bundle.estate, bundle.adopted_by) == (1, OTHER.estate.hash, "ada")
            assert whole.seal.is_on(bundle)
            assert (
                await agent.database.read(partial(estates.find, estate_hash=OTHER.estate.hash))
            ).hash == bundle.estate
            assert await agent.database.read(estates.last) == whole.compiled.estate.hash, "it is not in force by itself"


async def test_a_site_that_was_away_gets_the_last_one_alone(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        for owner in ("ada", "bob", "eve"):
            await put_in_force_at_hub(whole, an_estate(owner=owner))
        whole.start("north")
        north, newest = whole.agents["north"], an_estate(owner="eve").estate.hash
        bundle = await until(lambda: north.database.read(bundles.to_judge))
        assert (bundle.number, bundle.estate) == (3, newest)
        assert await north.rows("SELECT count(*) FROM bundles") == [(1,)]


async def test_a_site_that_has_the_last_one_waits_for_news(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, OTHER)
        whole.start("north")
        await until(lambda: holds(last(whole.agents["north"]), (1, OTHER.estate.hash)))
        await asyncio.sleep(0.2)
        assert whole.wires["north"].calls.count("pull") < 5


async def test_an_agent_that_knows_no_bundles_is_given_none_and_asked_nothing(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, OTHER)
        link, north = whole.links["north"], whole.agents["north"]
        await link.greet()
        older = (await north.database.read(link._pull)).model_copy(update={"bundle": None, "wait_seconds": 0.05})
        assert not await north.database.read(partial(whole.hub._bundles.news, pull=older))
        assert await whole.wires["north"].pull(older)


async def test_a_hub_that_was_put_back_goes_on_above_the_number_that_a_site_has(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, whole.compiled)
        north = whole.agents["north"]
        for owner in ("ada", "bob", "eve"):
            await north.database.write(partial(adopt_sealed, an_estate(owner=owner)))
        whole.start("north")
        await until(lambda: holds(last(north), (4, whole.compiled.estate.hash)))
        assert await last(whole.agents[HUB]) == (4, whole.compiled.estate.hash)
        [reason] = await whole.agents[HUB].rows("SELECT reason FROM audit WHERE action = 'issue'")
        assert reason == ("north has bundle 3 of a life of this hub that ended",)


async def test_a_number_that_nobody_sealed_does_not_move_the_hub(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, whole.compiled)
        await whole.agents["north"].database.write(partial(_forge, OTHER, 7))
        await whole.links["north"].greet()
        assert await last(whole.agents[HUB]) == (1, whole.compiled.estate.hash)


# --- up -----------------------------------------------------------------------------------------------------------


async def test_events_of_an_estate_of_the_sites_own_wait_until_the_hub_puts_it_in_force(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        await north.database.write(lambda connection: estates.adopt(connection, OTHER.estate, now=1))
        use(whole, "north", OTHER)
        await arises(whole, "north", "R-1")
        use(whole, "north", whole.compiled)
        await north.arises(north.event("R-1", 2), north.event("R-2", 1))
        whole.start("north")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-2", 1)]))
        await arises(whole, "north", "R-3")  # behind whatever was brought
        await until(lambda: holds(hub.owes("hq/erp"), [("R-2", 1), ("R-3", 1)]))
        await asyncio.sleep(0.2)
        assert await hub.rows("SELECT code FROM unapplied ORDER BY id") == [("no-estate",), ("waiting-behind",)]
        assert await hub.rows("SELECT count(*) FROM estates") == [(1,)], "the hub keeps no estate of a site's own"
        assert whole.wires["north"].calls.count("push") < 8, "what is not taken is not brought again and again"
        await put_in_force_at_hub(whole, OTHER)
        await until(lambda: holds(hub.owes("hq/erp"), [("R-2", 1), ("R-3", 1), ("R-1", 1), ("R-1", 2)]))


async def test_a_seal_of_another_key_opens_nothing(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        await north.database.write(lambda connection: estates.adopt(connection, OTHER.estate, now=1))
        await north.database.write(partial(_forge, OTHER, 1))
        use(whole, "north", OTHER)
        await arises(whole, "north", "R-1")
        whole.start("north")
        await until(lambda: holds(hub.rows("SELECT count(*) FROM unapplied"), [(1,)]))
        await whole.in_step()
        assert await hub.rows("SELECT count(*) FROM estates") == [(1,)]


def _forge(compiled: CompiledEstate, number: int, connection: sqlite3.Connection) -> None:
    """A bundle under the seal of somebody else's hub."""
    bundle = Bundle(
        number=number, estate=compiled.estate.hash, adopted_by="eve", adopted_at=CLOCK.now(), state=BundleState.CAME
    )
    forged = Seal.of_hub(make_key(), compiled.estate.settings).put_on(bundle)
    bundles.receive(connection, replace(bundle, seal=forged))


def test_a_seal_is_for_one_number_one_estate_and_one_environment() -> None:
    settings, key = OTHER.estate.settings, make_key()
    seal = Seal.of_hub(key, settings)
    bundle = Bundle(
        number=3, estate=OTHER.estate.hash, adopted_by="ada", adopted_at=CLOCK.now(), state=BundleState.CAME
    )
    sealed = replace(bundle, seal=seal.put_on(bundle))
    assert seal.is_on(sealed)
    assert not seal.is_on(replace(sealed, number=4))
    assert not seal.is_on(replace(sealed, estate=an_estate().estate.hash))
    for other in ({"environment": "production"}, {"name": "bolt"}):
        assert not Seal.of_hub(key, type(settings).model_validate({**settings.model_dump(), **other})).is_on(sealed)
