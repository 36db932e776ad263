"""What the agent of a machine that was taken over can do to others with the certificate of its site: it says what it likes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.outcomes import ANSWERED_SITE, CONTRACT
from agent.sync.admission import MOST_LIVES
from agent.sync.audit_word import AuditWord, Returned, ToldBreak
from agent.sync.outgoing import Departure
from state import inbox
from state.audit import AuditHead, Row
from state.inbox import Arrival
from state.model.errors import RejectedError
from state.model.event import Event, Op, event_type
from state.model.ids import EstateHash, EventId
from tests.daemon.liar import Liar
from tests.daemon.link_rig import FROM_SOUTH, HUB, AgentAt, estatewide, holds, until
from tests.daemon.test_gathering import _met, gathering_of, put_back, rest, states

# --- the audit ----------------------------------------------------------------------------------------------------


async def test_decisions_come_back_from_nobody_but_who_was_given_copies(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        liar = Liar(whole.wires["north"])
        await liar.hello()
        reply = await liar.pull(audit=AuditWord())
        assert reply.audit is not None
        row = _forged(reply.audit.head, "deny", "agent south")
        known = AuditHead(seq=row[0], hash=row[-1].hex())
        told = ToldBreak(kind="restored", epoch=1, known=known, after=0, found=0)
        await liar.pull(audit=AuditWord(breaks=[told], returned=Returned(known=known, rows=[row])))
        assert whole.denied == []
        hub = whole.agents[HUB]
        assert await hub.rows("SELECT action, target FROM audit") == [
            ("recognise", "agent north"),
            ("notice", "audit hq"),
        ]


def _forged(head: AuditHead, action: str, target: str) -> Row:
    """An entry that continues the hub's audit and that nobody wrote there."""
    covered = (
        head.seq + 1, 10**13, "ada", action, target, "stolen", None, None, "", "{}", head.hash,
    )  # fmt: skip
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    return (*covered[:-1], bytes.fromhex(head.hash), hashlib.sha256(text.encode()).digest())


async def test_an_agent_that_tells_another_past_with_each_word_does_not_fill_the_hubs_audit(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        liar = Liar(whole.wires["north"])
        await liar.hello()
        for number in range(150):
            other = AuditHead(seq=5, hash=f"{number:064x}")
            await liar.pull(audit=AuditWord(head=other, rungs=[other]))
        hub = whole.agents[HUB]
        assert await hub.rows("SELECT count(*) FROM audit_breaks") == [(100,)]
        assert await hub.rows("SELECT count(*) FROM audit WHERE action = 'notice'") == [(100,)]


# --- what waits for an estate ---------------------------------------------------------------------------------------


def _of_no_estate(event: Event, number: int = 1) -> Event:
    return replace(event, estate=EstateHash(f"{number:032x}"))


@pytest.mark.parametrize("site", ["north", "south"])
async def test_what_one_site_made_up_keeps_no_event_of_another_waiting(tmp_path: Path, site: str) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south, north = whole.agents[HUB], whole.agents["south"], whole.agents["north"]
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await liar.push(
            replace(_of_no_estate(north.event("R-0", 1)), site=site, flow="south-reco", partitionkey="R-1"),
            replace(_of_no_estate(_an_answer(north.event("R-9", 1), "north")), flow="south-reco", partitionkey="R-1"),
        )
        await south.arises(south.event("R-1", 1, flow="south-reco"))
        whole.start("south")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1)]))
        refused = [] if site == "north" else [("not-its-own", "north")]
        assert await hub.rows("SELECT code, site FROM dead_letters") == refused


async def test_an_event_waits_behind_one_that_waits_since_an_earlier_frame(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await liar.push(_of_no_estate(north.event("R-1", 1)))
        await liar.push(north.event("R-1", 2), north.event("R-2", 1))
        await liar.push(north.event("R-1", 3))
        assert await hub.owes("hq/erp") == [("R-2", 1)]
        assert [code for (code,) in await hub.rows("SELECT code FROM unapplied ORDER BY id")] == [
            "no-estate",
            "waiting-behind",
            "waiting-behind",
        ]


async def test_estates_that_one_site_made_up_are_asked_of_no_other(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, liar = whole.agents["north"], Liar(whole.wires["north"])
        await liar.hello()
        reply = await liar.push(*[_of_no_estate(north.event(f"R-{number}", 1), number) for number in range(300)])
        assert len(reply.wanted) == 100
        assert (await Liar(whole.wires["south"], "south").hello()).wanted == []


# --- outcomes -----------------------------------------------------------------------------------------------------


def _an_answer(cause: Event, answered_site: str) -> Event:
    """What the hub's system never said: that it has the event."""
    said = {"flow": cause.flow, "target": "hq/erp", "state": "delivered", "outcome": "accepted", "revision": 1}
    return replace(
        cause,
        id=EventId("ab" * 16),
        source="/hq/erp",
        site=HUB,
        system="erp",
        type=event_type(CONTRACT, Op.ACK),
        contract=CONTRACT,
        op=Op.ACK,
        data=orjson.dumps(said),
        causationid=cause.id,
        extensions={ANSWERED_SITE: answered_site},
    )


async def test_a_site_answers_for_no_event_of_another_site(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        event = south.event("R-1", 1, flow="south-reco")
        await south.arises(event)
        whole.start("south")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1)]))
        liar = Liar(whole.wires["north"])
        await liar.hello()
        await liar.push(_an_answer(event, "north"))
        assert await hub.rows("SELECT code, site FROM dead_letters") == [("not-its-own", "north")]
        assert await hub.outcomes() == []


async def test_what_one_site_says_settles_no_doubt_about_an_event_of_another_at_a_restored_hub(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        north, south = whole.agents["north"], whole.agents["south"]
        whole.start("north", "south")
        await until(lambda: holds(_met(whole), ["north", "south"]))
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        event = south.event("R-1", 1, flow="south-reco")
        await south.arises(event)
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), [("R-1", 1)]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        await _sends(north, [_an_answer(event, "north")])
        whole.start("north")
        await until(lambda: holds(restored.outcomes(), [("R-1", "hq/erp")]))
        whole.start("south")
        await until(lambda: gathering_of(restored).is_over())
        assert await states(restored, "hq/erp") == {1: "in_doubt"}


async def _sends(agent: AgentAt, events: Collection[Event]) -> None:
    def unit(connection: Any) -> None:
        admitted = inbox.admit(connection, [Arrival(event) for event in events])
        agent.outgoing.send(connection, [Departure(one, 1, {HUB}) for one in admitted])

    await agent.database.write(unit)


# --- epochs -------------------------------------------------------------------------------------------------------


async def test_an_epoch_that_leaves_no_number_for_the_store_that_follows_is_refused(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        liar = Liar(whole.wires["north"])
        await liar.hello()
        for epoch in (2**63 - 1, MOST_LIVES + 2):
            with pytest.raises(RejectedError, match="epoch"):
                await liar.hello(epoch=epoch, nonce=liar.nonce)
        assert await whole.agents[HUB].rows("SELECT epoch FROM peers") == [(1,)]
        await liar.hello(epoch=MOST_LIVES + 1, nonce=liar.nonce)
        await whole.adopt("north")
        assert (await Liar(whole.wires["north"]).hello()).begin_epoch == MOST_LIVES + 2
