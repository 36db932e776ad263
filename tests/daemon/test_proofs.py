"""What a hub knows again of its own word, and what no site can put into its mouth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.identity.certificates import make_key
from agent.identity.seal import Seal
from agent.identity.site import SiteIdentity
from agent.sync.fencing import LinkFencedError
from agent.sync.https import HttpsExchange
from agent.sync.needs import Fence, Reason
from agent.sync.proofs import Proofs
from agent.sync.wire import Receipt, Welcome
from state.model.estate import EstateSettings
from state.model.event import Environment
from state.model.stream import Mark, Nonce
from state.testing import FrozenClock
from tests.daemon.liar import Liar
from tests.daemon.link_rig import FROM_HQ, HUB, Estatewide, estatewide, holds, until
from tests.daemon.test_gathering import begin_again
from tests.daemon.test_sync_https import Rig, rig

SETTINGS = EstateSettings(name="acme", environment=Environment.TEST, currency="EUR")
SEAL = Seal.of_hub(make_key(), SETTINGS)
CHANCE = "0123456789abcdef" * 2
FAR = Mark(60, b"\7" * 32)


# --- marks --------------------------------------------------------------------------------------------------------


def proofs_of(seal: Seal | None = SEAL) -> Proofs:
    return Proofs(lambda: seal, lambda: CHANCE)


def test_a_nonce_is_known_by_what_it_was_issued_for_and_by_no_other() -> None:
    proofs = proofs_of()
    nonce = proofs.next_nonce(Nonce(16, "x"), site="north", epoch=2)
    assert (nonce.count, len(nonce.secret)) == (17, 64), "what travelled before takes no more"
    assert proofs_of(Seal.of_hub(SEAL.key, SETTINGS)).has_issued(nonce, site="north", epoch=2)  # type: ignore[arg-type]
    assert not proofs.has_issued(nonce, site="south", epoch=2)
    assert not proofs.has_issued(nonce, site="north", epoch=3)
    assert not proofs.has_issued(Nonce(18, nonce.secret), site="north", epoch=2)
    assert not proofs.has_issued(Nonce(17, "f" + nonce.secret[1:]), site="north", epoch=2)
    assert not proofs_of(Seal.of_hub(make_key(), SETTINGS)).has_issued(nonce, site="north", epoch=2)


def test_a_hub_with_another_authority_knows_nothing_of_what_the_one_before_gave() -> None:
    seals = [SEAL]
    proofs = Proofs(lambda: seals[-1], lambda: CHANCE)
    nonce = proofs.next_nonce(Nonce(16, "x"), site="north", epoch=2)
    seals.append(Seal.of_hub(make_key(), SETTINGS))
    assert not proofs.has_issued(nonce, site="north", epoch=2)
    seals.append(SEAL)
    assert proofs.has_issued(nonce, site="north", epoch=2)


@pytest.mark.parametrize("secret", ["", "a", CHANCE, "é" * 32, CHANCE * 2])
def test_no_secret_that_was_made_up_is_known(secret: str) -> None:
    assert not proofs_of().has_issued(Nonce(1, secret), site="north", epoch=1)
    assert not proofs_of(None).has_issued(Nonce(1, secret), site="north", epoch=1)


def test_a_receipt_is_for_these_marks_of_this_site_in_these_lives() -> None:
    proofs, received = proofs_of(), {1: Mark(7, b"\1" * 32), 3: Mark(2, b"\2" * 32)}
    said = {"site": "north", "epoch": 2, "of": 4, "received": received}
    receipt = proofs.receipt(**said)  # type: ignore[arg-type]
    assert proofs.has_received(receipt, **said)  # type: ignore[arg-type]
    for other in ({"site": "south"}, {"epoch": 3}, {"of": 5}, {"received": {1: received[1]}}, {"received": {1: FAR}}):
        assert not proofs.has_received(receipt, **{**said, **other})  # type: ignore[arg-type]
    assert not proofs_of(None).has_received("", **said)  # type: ignore[arg-type]


# --- what a site says of the hub's store, over TLS ------------------------------------------------------------------


@asynccontextmanager
async def a_liar(folder: Path) -> AsyncIterator[tuple[Rig, Liar]]:
    """A hub behind TLS, and the north in the hands of somebody; it has pulled twice."""
    async with rig(folder) as made:
        liar = Liar(made.exchange, "dc-north")
        await liar.hello()
        await liar.pull()
        await liar.pull()
        yield made, liar


async def fence_of(call: Any) -> Fence:
    with pytest.raises(LinkFencedError) as caught:
        await call
    assert "distctl restore" in caught.value.hint
    assert "distctl agents adopt dc-north" in caught.value.hint
    return caught.value.fence


@pytest.mark.parametrize(
    "lie",
    [
        {"received": {1: FAR}},
        {"acknowledged": {1: FAR}},
        {"peer_epoch": 9},
        {"peer_epoch": 2**63 - 1, "received": {1: FAR}},
        {"nonce": Nonce(99, "f" * 64)},
        {"nonce": Nonce(99, "f" * 64), "peer_epoch": 9},
        {"receipt": Receipt(epoch=1, of=1, received={1: FAR}, mark="f" * 32), "acknowledged": {1: FAR}},
        {"epoch": 2, "nonce": Nonce(99, "f" * 64), "received": {2: FAR}},
    ],
)
async def test_what_a_site_says_of_the_hub_closes_its_own_link_and_no_other(
    tmp_path: Path, lie: dict[str, Any]
) -> None:
    async with a_liar(tmp_path) as (made, liar):
        for _ in range(3):
            fence = await fence_of(liar.hello(**{"nonce": liar.nonce, **lie}))
            assert (fence.site, fence.reason) == ("dc-north", Reason.UNPROVEN)
        assert await made.hub_agent.rows("SELECT fenced FROM life") == [("",)]
        assert await made.hub_agent.rows("SELECT state, reason FROM peers") == [("fenced", "unproven")]
        assert await made.hub_agent.rows("SELECT action, target FROM audit WHERE action = 'fence'") == [
            ("fence", "agent dc-north")
        ]
        await _is_served(made, tmp_path)


async def _is_served(made: Rig, folder: Path) -> None:
    """The site next to it says hello and pulls."""
    identity: SiteIdentity = await made.door.enrol(folder / "south", clock=FrozenClock(), site="dc-south")
    exchange = HttpsExchange(identity.client(), hub=HUB)
    try:
        other = Liar(exchange, "dc-south")
        await other.hello()
        assert (await other.pull()).epoch == 1
    finally:
        await exchange.close()


async def test_a_pull_with_a_nonce_that_was_made_up_closes_its_own_link(tmp_path: Path) -> None:
    async with a_liar(tmp_path) as (made, liar):
        mark = liar.nonce.secret[32:]
        fence = await fence_of(liar.pull(nonce=Nonce(liar.nonce.count + 1, CHANCE + mark)))
        assert (fence.site, fence.reason) == ("dc-north", Reason.UNPROVEN)
        assert await made.hub_agent.rows("SELECT fenced FROM life") == [("",)]


async def test_an_old_receipt_and_a_nonce_of_before_prove_nothing(tmp_path: Path) -> None:
    async with a_liar(tmp_path) as (made, liar):
        await liar.hello(nonce=liar.nonce)
        first = (await liar.push(made.north.event("R-1", 1))).to_receipt()
        assert first is not None
        sent = (await liar.push(made.north.event("R-1", 2))).received
        await liar.hello(nonce=liar.nonce, receipt=first, sent=sent)
        with pytest.raises(LinkFencedError) as caught:
            await liar.hello(nonce=Nonce(1, liar.nonce.secret), receipt=first, sent=sent)
        assert (caught.value.fence.site, caught.value.fence.reason) == ("dc-north", Reason.CLONED)
        assert await made.hub_agent.rows("SELECT fenced FROM life") == [("",)]


async def test_a_chain_that_the_hub_never_sent_closes_its_own_link(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_HQ) as whole:
        hub = whole.agents[HUB]
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await hub.arises(hub.event("R-1", 1, flow="hq-reco"), hub.event("R-1", 2, flow="hq-reco"))
        await liar.pull()
        for mark in (Mark(1, FAR.chain), Mark(2, FAR.chain)):
            with pytest.raises(LinkFencedError) as caught:
                await liar.hello(nonce=liar.nonce, received={1: mark})
            assert caught.value.fence.site == "north"
        assert await hub.rows("SELECT fenced FROM life") == [("",)]


# --- a hub that did forget -----------------------------------------------------------------------------------------


async def rewound(whole: Estatewide) -> None:
    """The hub's store is the copy `old`, and nobody told it."""
    await whole.close(HUB)
    await whole.open("old", site=HUB)
    whole.agents[HUB] = whole.agents["old"]


async def hub_fences_itself(whole: Estatewide, liar: Liar, **said: Any) -> None:
    with pytest.raises(LinkFencedError) as caught:
        await liar.hello(nonce=liar.nonce, **said)
    assert (caught.value.fence.site, caught.value.fence.reason) == (HUB, Reason.REWOUND)
    [(fenced,)] = await whole.agents[HUB].rows("SELECT fenced FROM life")
    assert "not known here" in fenced


@pytest.mark.parametrize("said", [{}, {"epoch": 2}])
async def test_a_rewound_hub_is_found_by_a_nonce_alone_whichever_life_of_its_site_shows_it(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    async with estatewide(tmp_path) as whole:
        site = Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        await site.hello(nonce=site.nonce, **said)
        await site.pull(**said)
        await rewound(whole)
        await hub_fences_itself(whole, site, **said)


async def test_a_rewound_hub_that_went_on_meanwhile_is_found_by_two_nonces_of_one_number(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        site = Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        before = site.nonce
        await site.hello(nonce=before)
        await site.pull()
        await rewound(whole)
        other = Liar(whole.wires["north"])
        await other.hello(nonce=before)
        await other.pull()
        assert other.nonce.count == site.nonce.count
        await hub_fences_itself(whole, site)


async def test_a_rewound_hub_is_found_through_a_link_that_is_fenced(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        site = Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        await site.hello(nonce=site.nonce)
        await site.pull()
        await rewound(whole)
        with pytest.raises(LinkFencedError):
            await site.hello(nonce=None, received={1: FAR})
        assert await whole.fence_of("north") != ("open", "")
        await hub_fences_itself(whole, site)


async def test_a_rewound_hub_is_found_by_its_receipt_alone(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, site = whole.agents["north"], Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        await site.hello(nonce=site.nonce)
        receipt = (await site.push(north.event("R-1", 1))).to_receipt()
        await rewound(whole)
        await hub_fences_itself(whole, site, receipt=receipt)


async def test_the_hubs_next_life_asks_anew_what_nothing_proved_of_the_last(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        liar = Liar(whole.wires["north"])
        await liar.hello()
        with pytest.raises(LinkFencedError):
            await liar.hello(nonce=liar.nonce, received={1: FAR})
        await whole.agents[HUB].database.write(begin_again)
        welcome: Welcome = await liar.hello(nonce=liar.nonce, received={1: FAR})
        assert welcome.epoch == 2
        assert await whole.fence_of("north") == ("open", "")


async def test_a_restored_hub_is_not_told_of_what_it_knows_that_it_forgot(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, site = whole.agents["north"], Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        await site.hello(nonce=site.nonce)
        reply = await site.push(north.event("R-1", 1))
        await site.pull()
        await rewound(whole)
        await whole.agents[HUB].database.write(begin_again)
        welcome = await site.hello(nonce=site.nonce, receipt=reply.to_receipt(), sent=reply.received)
        assert welcome.epoch == 2
        assert await whole.agents[HUB].rows("SELECT fenced FROM life") == [("",)]


async def test_a_nonce_of_a_life_of_the_hub_that_ended_is_an_old_copys(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        site = Liar(whole.wires["north"])
        await site.hello()
        for _ in range(5):
            await site.pull()
        before = site.nonce
        await whole.agents[HUB].database.write(begin_again)
        await site.hello(nonce=before)
        await site.pull(peer_epoch=2)
        with pytest.raises(LinkFencedError) as caught:
            await site.hello(nonce=before)
        assert (caught.value.fence.site, caught.value.fence.reason) == ("north", Reason.CLONED)


# --- before and after ----------------------------------------------------------------------------------------------


async def test_a_nonce_of_before_there_were_marks_is_good_for_its_exchange(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        seal, whole.seal = whole.seal, None  # type: ignore[assignment]
        site = Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        plain = site.nonce
        assert len(plain.secret) == 32
        whole.seal = seal
        await whole.close(HUB)
        await whole.open(HUB)
        await site.hello(nonce=plain)
        await site.pull(attempt="lost")
        site.nonce = plain
        await site.pull(attempt="lost")
        assert len(site.nonce.secret) == 64
        await site.hello(nonce=site.nonce)
        assert await whole.fence_of("north") == ("open", "")
        assert await whole.agents[HUB].rows("SELECT fenced FROM life") == [("",)]


async def test_what_another_authority_marked_is_good_for_its_exchange_and_proves_nothing(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        site = Liar(whole.wires["north"])
        await site.hello()
        await site.pull()
        await whole.copy(HUB, "old")
        await site.hello(nonce=site.nonce)
        known = site.nonce
        await site.pull()
        whole.seal = Seal.of_hub(make_key(), SETTINGS)
        await rewound(whole)
        with pytest.raises(LinkFencedError) as caught:
            await site.hello(nonce=site.nonce)
        assert (caught.value.fence.site, caught.value.fence.reason) == ("north", Reason.UNPROVEN)
        await whole.adopt("north")
        site.nonce = known
        assert (await site.hello(nonce=known)).begin_epoch == 2


async def test_a_site_shows_the_receipt_for_its_last_push_after_its_own_restart(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north = whole.agents["north"]
        whole.start("north")
        await north.arises(north.event("R-1", 1))
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), [("R-1", 1)]))
        await whole.in_step()
        await whole.close("north")
        await whole.open("north")
        hello = await whole.agents["north"].database.write(whole.links["north"]._hello)
        assert hello.receipt is not None
        mark = hello.receipt.received[1]
        proofs = Proofs(lambda: whole.seal, lambda: "")
        assert mark.seq == 1
        assert proofs.has_received(hello.receipt.mark, site="north", epoch=1, of=1, received={1: mark})
