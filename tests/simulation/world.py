"""Everything of one seed: the machines, the systems at both ends, the lines between, and what was counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator

from agent.sync.hub import Hub
from connectors import registry
from state import peers, streams, unapplied
from state.life import find as find_life
from tests.simulation.counterparts import Counterparts
from tests.simulation.estate import HUB, ROUTES, SITES
from tests.simulation.loop import Life
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.store import Disk
from tests.simulation.trace import Trace

registry.BUILT_IN["simulated"] = f"{Counterparts.__module__}:CONNECTOR"


class World:
    """A hub, its sites, and all systems. Dice of its own for each part, so that one more throw here changes nothing there."""

    def __init__(self, seed: int | str) -> None:
        self.trace = Trace()
        self.counts: Counter[str] = Counter()  # of faults that took effect, by kind
        self.cures: Counter[str] = Counter()  # what people did about those that only people can cure
        self.dice = random.Random(f"{seed} world")
        self.counterparts = Counterparts(random.Random(f"{seed} targets"), self.trace, self.counts)
        self.network = Network(random.Random(f"{seed} network"), self.trace, self.counts, _HubOf(self))
        self._dice_of_agents = random.Random(f"{seed} agents")
        self.machines: dict[str, Machine] = {}
        self.disks: list[Disk] = []
        for site in SITES:
            self.machines[site] = self.machine(site, site)

    def machine(self, name: str, site: str, content: bytes | None = None) -> Machine:
        """A machine at a site, with an empty disk or a copy of one."""
        return Machine(
            name,
            site,
            self.disk(content),
            counterparts=self.counterparts,
            network=self.network,
            dice=self._dice_of_agents,
            trace=self.trace,
        )

    def disk(self, content: bytes | None = None) -> Disk:
        """A disk, closed with the world."""
        made = Disk(content)
        self.disks.append(made)
        return made

    @property
    def hub(self) -> Machine:
        """The hub's machine."""
        return self.machines[HUB]

    def start(self) -> None:
        """Start every machine."""
        for machine in self.machines.values():
            machine.start()

    def end(self) -> None:
        """End everything."""
        for machine in self.machines.values():
            for one in (machine, machine.twin):
                if one is not None:
                    one.retire()

    async def until(self, claim: Callable[[], bool], *, seconds: float, step: float = 1.0) -> bool:
        """Wait until `claim` holds, for at most `seconds` of virtual time; answers whether it does."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while not claim():
            if loop.time() >= ends_at:
                return False
            await asyncio.sleep(step)
        return True

    def unsettled(self) -> Iterator[str]:
        """What keeps the world from rest, one sentence each. Asked of stores, and no judgement: that is the ledgers'."""
        for machine in self.machines.values():
            yield from _unsettled(machine)


class _HubOf:
    """Whoever is the hub now."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def life(self) -> Life | None:
        """Of the agent of the hub."""
        agent = self._world.hub.agent
        return agent.life if agent is not None and agent.hub is not None else None

    @property
    def hub(self) -> Hub:
        """Who answers there."""
        return self._world.hub.hub


_WAITING = """
SELECT t.name, l.flow, d.state, e.partition_key, count(*) FROM deliveries d JOIN lanes l ON l.id = d.lane_id
JOIN targets t ON t.id = l.target_id JOIN events e ON e.seq = d.event_seq
WHERE d.settled_at IS NULL AND d.state <> 'parked' GROUP BY 1, 2, 3, 4
"""


def _unsettled(machine: Machine) -> Iterator[str]:
    if machine.twin is not None:
        yield f"two stores of {machine.site} run, and nobody was told"
    if not machine.is_running:
        yield f"{machine.name} does not run"
        return
    connection = machine.disk.connection
    here = find_life(connection)
    if here is None:
        yield f"{machine.name} has not begun"
        return
    if here.fenced:
        yield f"{machine.name} is fenced: {here.fenced}"
    if here.is_gathering:
        yield f"{machine.name} gathers"
    for name, flow, state, key, count in connection.execute(_WAITING):
        yield f"{machine.name} owes {count} of {flow} {key} to {name} ({state})"
    if waiting := unapplied.count(connection):
        yield f"{machine.name} has {waiting} that cannot be taken in yet"
    known = peers.list_all(connection)
    if machine.site != HUB and not known:
        yield f"{machine.name} never met the hub"
    for peer in known:
        if peer.state is not peers.PeerState.OPEN:
            yield f"{machine.name} sees {peer.site} {peer.state}: {peer.detail}"
        owed = streams.owed(connection, peer.id, epoch=here.epoch)
        if sum(owed.values()):
            yield f"{machine.name} has {owed} for {peer.site}"
    for flow, producer in machine.counterparts.producers.items():
        source = ROUTES[flow].source
        if source.startswith(f"{machine.site}/") and producer.documents:
            row = connection.execute("SELECT checkpoint FROM sources WHERE name = ?", (f"{flow}@{source}",)).fetchone()
            if row is None or int(row[0] or b"0") < len(producer.documents):
                yield f"{machine.name} has not read all of {flow}"
