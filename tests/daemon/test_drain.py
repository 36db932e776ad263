"""An agent that drains: it says what it owes, is drained while that is nothing, and each change is one person's, audited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.control.schema import AgentRow
from agent.drain import Drain
from agent.sync.heartbeat import heard, told
from console.presenters import agent_facts, agent_state
from state import audit
from state.model.errors import ConflictError
from state.testing import NOON, FrozenClock
from tests.daemon.link_rig import AgentAt, Estatewide, estatewide


class Rig:
    """A drain over the store of one agent of an estate."""

    def __init__(self, whole: Estatewide, site: str) -> None:
        self.agent: AgentAt = whole.agents[site]
        self.changes = 0
        self.drain = Drain(
            self.agent.database, clock=FrozenClock(NOON), sources=lambda: 2, on_changed=self._note_change
        )

    def _note_change(self) -> None:
        self.changes += 1

    async def audited(self) -> list[tuple[str, str, str]]:
        entries = await self.agent.database.read(audit.entries)
        return [(one.actor, one.action, one.reason) for one in entries if one.target == "agent"]


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Estatewide]:
    async with estatewide(tmp_path) as made:
        yield made


async def test_an_agent_is_drained_while_it_owes_nothing(whole: Estatewide) -> None:
    rig = Rig(whole, "hq")
    assert (await rig.drain.look()).state == "open"
    begun = await rig.drain.begin(by="ada via hq", reason="it moves")
    assert (begun.state, begun.since, begun.reason, begun.sources) == ("drained", NOON, "it moves", 2)
    north = whole.agents["north"]
    await north.arises(north.event("R-1", 1), north.event("R-2", 1))
    whole.start("north")
    await whole.in_step("north")
    busy = await rig.drain.look()
    assert (busy.state, busy.deliveries, busy.targets) == ("draining", 2, ["hq/erp"])
    assert busy.events > 0, "the south does not have them"
    whole.start("south")
    await whole.in_step("north", "south")
    await rig.agent.delivers("hq/erp")
    await whole.in_step("north", "south")
    assert (await rig.drain.look()).state == "drained"
    ended = await rig.drain.end(by="bo", reason="it stays")
    assert (ended.state, ended.since) == ("open", None)
    assert await rig.audited() == [("bo", "undrain", "it stays"), ("ada via hq", "drain", "it moves")]
    assert rig.changes == 2


async def test_what_a_site_did_not_hand_up_is_owed(whole: Estatewide) -> None:
    rig = Rig(whole, "north")
    await rig.drain.begin(by="ada", reason="it moves")
    await rig.agent.arises(rig.agent.event("R-1", 1))
    assert ((found := await rig.drain.look()).state, found.events) == ("draining", 1)
    whole.start("north")
    await whole.in_step("north")
    assert (await rig.drain.look()).state == "drained"


async def test_a_dry_run_and_whoever_comes_second_change_nothing(whole: Estatewide) -> None:
    rig = Rig(whole, "north")
    with pytest.raises(ConflictError, match="does not drain"):
        await rig.drain.end(by="ada", reason="x", dry_run=True)
    assert (await rig.drain.begin(by="ada", reason="x", dry_run=True)).state == "open"
    assert (await rig.audited(), rig.changes) == ([], 0)
    await rig.drain.begin(by="ada", reason="it moves")
    for dry_run in (False, True):
        with pytest.raises(ConflictError, match="drained since 2026"):
            await rig.drain.begin(by="bo", reason="me too", dry_run=dry_run)
    assert (await rig.drain.end(by="bo", reason="x", dry_run=True)).state == "drained"
    assert (len(await rig.audited()), rig.changes) == (1, 1)


async def test_the_heartbeat_says_what_is_owed_and_the_hub_how_far_the_clocks_are_apart(whole: Estatewide) -> None:
    rig = Rig(whole, "north")
    await rig.agent.arises(rig.agent.event("R-1", 1))
    said = await rig.agent.database.read(told)
    assert said == {"queues": {"deliveries": 0, "parked": 0, "events": 1, "unapplied": 0}}
    await rig.drain.begin(by="ada", reason="it moves")
    said = await rig.agent.database.read(told)
    assert said["drain"] == {"state": "draining", "since": NOON.isoformat(), "reason": "it moves"}
    clock = (NOON + timedelta(seconds=3)).isoformat()
    known = heard({**said, "clock": clock}, NOON)
    assert known["clock_skew_seconds"] == 3.0
    for odd in ({}, {"clock": None}, {"clock": "noon"}, {"clock": "2026-03-02T09:00:00"}, {"clock": 7}):
        assert heard(odd, NOON) == odd
    row = AgentRow(agent="north", state="open", said=known)
    assert agent_state(row) == "open, draining"
    facts = agent_facts(row)
    assert facts["owes events to other agents"] == 1
    assert (facts["drain state"], facts["its clock is ahead by seconds"]) == ("draining", 3.0)
