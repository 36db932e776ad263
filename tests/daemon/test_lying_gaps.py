"""What a site that lies can put into the hub's books: gaps and numbers of bundles, which stay within what can be true."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.identity.hub import begin_anew
from agent.sync import beyond
from agent.sync.fencing import LinkFencedError
from agent.sync.needs import Reason
from agent.sync.wire import BundleHead, WireBeginning, WireGap
from state import bundles
from state.bundles import Bundle, BundleState
from state.model.ids import EstateHash
from state.model.stream import Mark
from state.testing import FrozenClock
from tests.daemon.liar import Liar
from tests.daemon.link_rig import CLOCK, FROM_HQ, HUB, Estatewide, estatewide
from tests.daemon.test_retention import back_up, begin_again, gaps_of, let_go, noted
from tests.daemon.test_sync_bundles import last, put_in_force_at_hub
from tests.daemon.test_sync_https import Rig, rig

THEN = datetime(2026, 10, 1, tzinfo=UTC)


def beginning(seq: int, *, epoch: int = 1, tier: int = 1) -> WireBeginning:
    return WireBeginning(epoch=epoch, tier=tier, mark=Mark(seq, b"\7" * 32), until=THEN)


def gap(first: int, last_: int, *, epoch: int = 1, tier: int = 1) -> WireGap:
    return WireGap(epoch=epoch, tier=tier, first=first, last=last_, until=THEN)


async def refused(liar: Liar, match: str, **said: Any) -> None:
    """It says so twice, and its link is closed once."""
    for _ in range(2):
        with pytest.raises(LinkFencedError, match=match) as caught:
            await liar.hello(nonce=liar.nonce, **said)
        assert caught.value.fence.reason is Reason.UNPROVEN
        assert "distctl agents adopt" in caught.value.hint


async def in_its_second_life(whole: Estatewide, liar: Liar) -> None:
    """The hub was put back, and the site has met it since."""
    await liar.hello()
    await whole.agents[HUB].database.write(begin_again)
    await liar.hello(nonce=liar.nonce, peer_epoch=1)


# --- gaps of what a site sends --------------------------------------------------------------------------------------


@asynccontextmanager
async def a_liar(folder: Path) -> AsyncIterator[tuple[Rig, Liar]]:
    async with rig(folder) as made:
        liar = Liar(made.exchange, "dc-north")
        await liar.hello()
        yield made, liar


async def test_a_hub_that_lost_nothing_passes_over_nothing(tmp_path: Path) -> None:
    async with a_liar(tmp_path) as (made, liar):
        far = Mark(9, b"\7" * 32)
        await refused(liar, "hq has 0 and has lost nothing", begins=[beginning(9)], sent={1: far})
        hub = made.hub_agent
        assert (await gaps_of(hub, "dc-north"), await noted(hub)) == ([], 0)
        assert await hub.rows("SELECT count(*) FROM audit WHERE action = 'fence'") == [(1,)]
        assert await hub.rows("SELECT count(*) FROM streams_in") == [(0,)]


async def test_a_stream_is_passed_over_once_for_each_life_that_ended(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        liar, hub = Liar(whole.wires["north"]), whole.agents[HUB]
        await in_its_second_life(whole, liar)
        far = {1: Mark(99, b"\7" * 32)}
        await liar.hello(nonce=liar.nonce, begins=[beginning(5)], sent=far, peer_epoch=1)
        await liar.hello(nonce=liar.nonce, begins=[beginning(5)], sent=far, peer_epoch=1)
        assert await gaps_of(hub, "north") == [(1, 1, 5, False)]
        await refused(liar, "begin behind 6, of which hq has 5", begins=[beginning(6)], sent=far, peer_epoch=1)
        assert (await gaps_of(hub, "north"), await noted(hub)) == ([(1, 1, 5, False)], 1)


async def test_of_one_agent_no_more_gaps_are_kept_than_there_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beyond, "_MOST", 6)
    async with estatewide(tmp_path) as whole:
        liar, hub = Liar(whole.wires["north"]), whole.agents[HUB]
        await in_its_second_life(whole, liar)
        for epoch in (2, 3):
            begins = [beginning(5, epoch=epoch, tier=tier) for tier in (1, 2, 3)]
            sent = {tier: Mark(9, b"\7" * 32) for tier in (1, 2, 3)}
            await liar.hello(nonce=liar.nonce, epoch=epoch, begins=begins, sent=sent, peer_epoch=1)
        assert await noted(hub) == 6
        more = [beginning(5, epoch=4)]
        await refused(liar, "7 gaps", epoch=4, begins=more, sent={1: Mark(9, b"\7" * 32)}, peer_epoch=1)
        assert await noted(hub) == 6


async def test_a_stream_that_begins_behind_its_end_closes_its_link(tmp_path: Path) -> None:
    async with a_liar(tmp_path) as (made, liar):
        await refused(liar, "begins behind its end: 9 of 0", begins=[beginning(9)])
        assert await gaps_of(made.hub_agent, "dc-north") == []


# --- gaps of what the hub sends -------------------------------------------------------------------------------------


async def test_a_site_misses_of_the_hub_what_was_let_go_there_and_no_more(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_HQ) as whole:
        hub = whole.agents[HUB]
        whole.start("south")
        await hub.arises(*[hub.event("R-1", revision, flow="hq-reco") for revision in (1, 2, 3)])
        await whole.in_step("south")
        await whole.stop("south")
        await hub.delivers("hq/erp")
        await back_up(hub)
        await let_go(hub)
        [(nonce,)] = await whole.agents["south"].rows("SELECT nonce FROM peers")
        marks = await whole.agents["south"].rows("SELECT tier, seq, chain FROM streams_in")
        has = {tier: Mark(seq, chain) for tier, seq, chain in marks}
        [(seq,)] = await hub.rows("SELECT let_go_seq FROM streams_out WHERE let_go_seq > 0 AND tier = 1")
        liar = Liar(whole.wires["south"], "south")
        liar.nonce = nonce
        await liar.hello(nonce=nonce, received=has, gaps=[gap(1, seq)])
        await liar.hello(nonce=nonce, received=has, gaps=[gap(1, seq)])
        assert await gaps_of(hub, "south") == [(1, 1, seq, True)]
        await refused(liar, f"those up to {seq} are", received=has, gaps=[gap(2, seq + 1)])
        assert (await gaps_of(hub, "south"), await noted(hub)) == ([(1, 1, seq, True)], 1)


@pytest.mark.parametrize("lie", [gap(1, 2**62), gap(1, 1), gap(7, 7, tier=3), gap(1, 1, epoch=2)])
async def test_gaps_of_what_was_never_let_go_are_not_kept(tmp_path: Path, lie: WireGap) -> None:
    async with a_liar(tmp_path) as (made, liar):
        await refused(liar, "are said to be let go", gaps=[lie])
        assert (await gaps_of(made.hub_agent, "dc-north"), await noted(made.hub_agent)) == ([], 0)


# --- numbers of bundles ---------------------------------------------------------------------------------------------


def claimed(number: int, estate: EstateHash) -> BundleHead:
    return BundleHead(number=number, estate=estate, adopted_by="ada", adopted_at=THEN, seal="ab" * 70)


async def test_numbers_that_nobody_sealed_do_not_move_the_hub_and_are_told_of_once(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, whole.compiled)
        hub, liar = whole.agents[HUB], Liar(whole.wires["north"])
        known = whole.compiled.estate.hash
        await liar.hello(bundle=claimed(2, known))
        for number in range(1, 20):
            other = EstateHash(f"{number:032x}")
            await liar.hello(nonce=liar.nonce, bundle=claimed(number, other))
        assert await last(hub) == (1, known)
        [(reason,)] = await hub.rows("SELECT reason FROM audit WHERE action = 'refuse'")
        assert reason.startswith("it says that it has bundle 2 ")
        assert await whole.fence_of("north") == ("open", ""), "its events go on"


async def test_a_number_under_the_seal_counts_again_and_again(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await put_in_force_at_hub(whole, whole.compiled)
        head = Bundle(
            number=7, estate=EstateHash("7" * 32), adopted_by="a", adopted_at=CLOCK.now(), state=BundleState.CAME
        )
        sealed = BundleHead.of(replace(head, seal=whole.seal.put_on(head)))
        liar = Liar(whole.wires["north"])
        for _ in range(3):
            await liar.hello(bundle=sealed)
            assert await last(whole.agents[HUB]) == (8, whole.compiled.estate.hash)


async def test_a_hub_that_begins_another_authority_numbers_above_all_that_the_last_one_sealed(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        hub, estate = made.hub_agent, made.hub_agent.compiled.estate.hash
        await hub.database.write(lambda connection: bundles.issue(connection, estate, by="ada", now=THEN))
        await begin_anew(tmp_path / "hub", hub.database, reason="lost", by="ada", clock=FrozenClock())
        assert await last(hub) == (10_002, estate)
