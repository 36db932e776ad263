"""A hub and two sites through random trouble: in the end each event is where it belongs, once and in order.

`DISTCTL_SEEDS=n` tries n seeds. A failing seed names the command that runs it alone.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import pytest

from agent.estate.compiled import CompiledEstate
from state import estates
from state.model.event import Event
from tests.daemon.link_rig import (
    FROM_HQ,
    FROM_SOUTH,
    HUB,
    SITES,
    AgentAt,
    Estatewide,
    adopt_sealed,
    an_estate,
    estatewide,
    until,
)

_STEPS: Final = 150
_FURTHER: Final = {**FROM_HQ, **FROM_SOUTH}
_FLOWS: Final = {"north": ("reco", "bulk"), HUB: tuple(FROM_HQ), "south": tuple(FROM_SOUTH)}
_TARGETS: Final = {HUB: "hq/erp", "north": "north/planning", "south": "south/wms"}


def _seeds() -> Sequence[int]:
    if alone := os.environ.get("DISTCTL_SEED"):
        return [int(alone)]
    return range(1, int(os.environ.get("DISTCTL_SEEDS", "6")) + 1)


@pytest.mark.parametrize("seed", _seeds())
async def test_after_any_trouble_each_event_is_where_it_belongs_once_and_in_order(tmp_path: Path, seed: int) -> None:
    try:
        async with estatewide(tmp_path, further=_FURTHER) as whole:
            chaos = Chaos(whole, random.Random(seed))
            await chaos.run()
            await chaos.heal()
            await Judge(whole, chaos.arisen).judge()
    except BaseException as error:
        error.add_note(f"alone: DISTCTL_SEED={seed} pytest tests/daemon/test_sync_chaos.py")
        raise


class Chaos:
    """What happens, step by step."""

    def __init__(self, whole: Estatewide, dice: random.Random) -> None:
        self.whole = whole
        self.arisen: list[tuple[str, Event]] = []  # (site, event), in the order of each site
        self._dice = dice
        self._compiled = dict.fromkeys(SITES, whole.compiled)  # what each agent routes by
        self._revision = 0
        self._steps: dict[Callable[[], Awaitable[None]], int] = {
            self._arise: 60,
            self._settle: 25,
            self._cut_or_heal: 15,
            self._lose_replies: 15,
            self._stop_or_start: 15,
            self._reopen_one: 6,
            self._adopt_elsewhere: 4,
            self._adopt_everywhere: 4,
        }

    async def run(self) -> None:
        """Some trouble."""
        self.whole.start("north", "south")
        for step in self._dice.choices(list(self._steps), list(self._steps.values()), k=_STEPS):
            await step()
            await asyncio.sleep(self._dice.choice((0, 0, 0.002, 0.01)))

    async def heal(self) -> None:
        """No more of it: what is owed is delivered, and what is to be told is told."""
        for name, wire in self.whole.wires.items():
            wire.is_cut, wire.lost_replies = False, 0
            self._start(name)
        await until(self._is_quiet, seconds=30)

    async def _is_quiet(self) -> bool:
        for site in SITES:
            await self.whole.agents[site].delivers(_TARGETS[site])
        owed = [await agent.rows(_UNSETTLED) for agent in self.whole.agents.values()]
        settled = sum(len(rows) for rows in owed) == 0
        expected = sum(len(targets_of(self.whole, event)) for _, event in self.arisen)
        made = [await agent.rows("SELECT count(*) FROM deliveries") for agent in self.whole.agents.values()]
        return (
            settled and sum(rows[0][0] for rows in made) >= expected and await self.whole.is_in_step("north", "south")
        )

    # The steps.

    async def _arise(self) -> None:
        site = self._dice.choice(("north", "north", HUB, "south"))
        agent, events = self.whole.agents[site], []
        for _ in range(self._dice.randint(1, 6)):
            self._revision += 1
            flow, key = self._dice.choice(_FLOWS[site]), f"R-{self._dice.randint(1, 6)}"
            events.append(agent.event(key, self._revision, flow=flow))
        await agent.arises(*events)
        self.arisen += [(site, event) for event in events]

    async def _settle(self) -> None:
        site = self._dice.choice(SITES)
        await self.whole.agents[site].delivers(_TARGETS[site])

    async def _cut_or_heal(self) -> None:
        wire = self.whole.wires[self._site()]
        wire.is_cut = not wire.is_cut

    async def _lose_replies(self) -> None:
        self.whole.wires[self._site()].lost_replies = self._dice.randint(1, 3)

    async def _stop_or_start(self) -> None:
        site = self._site()
        if site in self.whole.running:
            await self.whole.stop(site)
        else:
            self._start(site)

    async def _reopen_one(self) -> None:
        await self._reopen(self._dice.choice(SITES))

    async def _reopen(self, name: str) -> None:
        running = [site for site in self.whole.running if name in (HUB, site)]
        cut = {site: wire.is_cut for site, wire in self.whole.wires.items()}
        for site in running:
            await self.whole.stop(site)
        await self.whole.close(name)
        agent = await self.whole.open(name)
        agent.compiled = self._compiled[name]
        for site in running:
            self.whole.wires[site].is_cut = cut[site]
            self._start(site)

    async def _adopt_elsewhere(self) -> None:
        """A site has an estate of the hub that the hub itself has lost."""
        site = self._dice.choice(("north", "south"))
        other = an_estate(owner=f"somebody {self._revision}", further=_FURTHER)
        await self.whole.agents[site].database.write(partial(adopt_sealed, other))
        self.whole.agents[site].compiled = self._compiled[site] = other

    async def _adopt_everywhere(self) -> None:
        """The others catch up by their own folders, each in its time; their links begin anew, as those of agents do."""
        site, later = self._dice.sample(("north", HUB, "south"), k=2)
        other = self._compiled[site]
        await self.whole.agents[later].database.write(partial(_adopt, other))
        self._compiled[later] = other
        await self._reopen(later)

    def _site(self) -> str:
        return self._dice.choice(("north", "south"))

    def _start(self, site: str) -> None:
        if site not in self.whole.running:
            self.whole.start(site)


_UNSETTLED: Final = "SELECT id FROM deliveries WHERE settled_at IS NULL"


def _adopt(compiled: CompiledEstate, connection: object) -> None:
    estates.adopt(connection, compiled.estate, now=1)  # type: ignore[arg-type]


def targets_of(whole: Estatewide, event: Event) -> list[str]:
    """Whom the event is owed to."""
    return sorted(lane.name for lane in whole.compiled.flows[event.flow].lanes)


class Judge:
    """Reads the stores, and nothing else, and says whether they are as they are to be."""

    def __init__(self, whole: Estatewide, arisen: list[tuple[str, Event]]) -> None:
        self._whole = whole
        self._arisen = arisen

    async def judge(self) -> None:
        """Everything."""
        for site, agent in self._whole.agents.items():
            assert await agent.rows("SELECT flow, partition_key, code FROM unapplied") == []
            assert await agent.rows("SELECT code, message FROM dead_letters") == []
            assert await agent.rows("SELECT fenced FROM life") == [("",)]
            assert await agent.rows("SELECT site FROM peers WHERE state <> 'open'") == []
            assert await agent.rows("SELECT id FROM streams_out WHERE acked_seq <> seq") == [], site
            await self._judge_events(site, agent)
            await self._judge_deliveries(site, agent)
            await self._judge_outcomes(site, agent)
        for site in ("north", "south"):
            await self._judge_chains(self._whole.agents[site], self._whole.agents[HUB])
            await self._judge_chains(self._whole.agents[HUB], self._whole.agents[site])

    async def _judge_events(self, site: str, agent: AgentAt) -> None:
        rows = await agent.rows("SELECT e.id FROM events e JOIN origins o ON o.id = e.origin_id WHERE o.op <> 'ack'")
        expected = [
            event.id
            for origin, event in self._arisen
            if site in {HUB, origin, *(target.partition("/")[0] for target in targets_of(self._whole, event))}
        ]
        assert Counter(row[0].hex() for row in rows) == Counter(expected), site

    async def _judge_deliveries(self, site: str, agent: AgentAt) -> None:
        rows = await agent.rows(
            "SELECT t.name, o.flow, e.partition_key, e.id, d.state FROM deliveries d JOIN events e ON e.seq = d.event_seq"
            " JOIN origins o ON o.id = e.origin_id JOIN lanes l ON l.id = d.lane_id JOIN targets t ON t.id = l.target_id"
            " ORDER BY d.id"
        )
        found, expected = defaultdict(list), defaultdict(list)
        for target, flow, key, event, state in rows:
            assert state == "delivered"
            found[target, flow, key].append(event.hex())
        for _, one in self._arisen:
            if _TARGETS[site] in targets_of(self._whole, one):
                expected[_TARGETS[site], one.flow, one.partitionkey].append(one.id)
        assert found == expected, site

    async def _judge_outcomes(self, site: str, agent: AgentAt) -> None:
        rows = await agent.rows(
            "SELECT e.causation_id, e.data FROM events e JOIN origins o ON o.id = e.origin_id WHERE o.op = 'ack'"
        )
        expected = [
            (event.id, target)
            for origin, event in self._arisen
            for target in targets_of(self._whole, event)
            if site in {HUB, origin, target.partition("/")[0]}
        ]
        assert Counter((cause.hex(), orjson.loads(data)["target"]) for cause, data in rows) == Counter(expected), site

    async def _judge_chains(self, sender: AgentAt, receiver: AgentAt) -> None:
        ends = "SELECT s.epoch, s.tier, s.seq, s.chain FROM {} s JOIN peers p ON p.id = s.peer_id WHERE p.site = ? ORDER BY 1, 2"
        sent = await sender.rows(ends.format("streams_out"), receiver.site)
        assert sent == await receiver.rows(ends.format("streams_in"), sender.site)
