"""What happens in a seed: records arise, things go wrong, all is mended, and what was owed comes to rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.simulation.estate import ROUTES
from tests.simulation.faults import Faults
from tests.simulation.person import Person
from tests.simulation.world import World

EVENTS: Final = 200
FAULTS: Final = 10
_FLOWS: Final = tuple(ROUTES)
_KEYS: Final = 5
_RECORDS: Final = (4, 16)
"""Of a document."""
_REST: Final = 900.0


class Story:
    """The story of one seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events = 0
        self.dice = world.dice
        self.faults = Faults(world)
        self.person = Person(world, self.faults)
        self._revisions: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """All of it."""
        self.world.start()
        looking = asyncio.create_task(self.person.look_now_and_then(), name="person")
        try:
            while self.events < EVENTS or self.faults.count < FAULTS:
                await self._happen()
            self.faults.mend()
            await self.rest()
        finally:
            looking.cancel()
            if looking.done() and not looking.cancelled():
                await looking  # which says why it ended

    async def _happen(self) -> None:
        """A moment of the story."""
        if (night := self.faults.over_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(night)
        if self.events < EVENTS:
            self.arise()
        throw = self.dice.random()
        if throw < 0.6:
            self.faults.strike()
        elif throw < 0.85:
            self.faults.remember()
        await asyncio.sleep(self.dice.choice((0.0, 0.0, 0.0, 1.0, 4.0)))

    async def rest(self) -> None:
        """Wait until nothing is owed."""
        await self.world.until(self.is_at_rest, seconds=_REST, step=2.0)

    def is_at_rest(self) -> bool:
        """Whether nothing is owed to anybody."""
        return next(self.world.unsettled(), None) is None

    def troubles(self) -> Iterator[str]:
        """What does not come to rest."""
        yield from self.world.unsettled()
        yield from self.person.findings()

    def arise(self) -> None:
        """A document of some flow, with a few records."""
        flow = self.dice.choice(_FLOWS)
        records = []
        for _ in range(self.dice.randint(*_RECORDS)):
            key = f"K{self.dice.randint(1, _KEYS)}"
            self._revisions[flow, key] += 1
            records.append((flow, key, self._revisions[flow, key]))
        self.events += len(records)
        self.world.trace.note("arise", flow, len(records))
        self.world.counterparts.producers[flow].produce(records)
