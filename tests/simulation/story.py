"""What happens in a seed: records arise, things go wrong, all is mended, and what was owed comes to rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.simulation.estate import ROUTES
from tests.simulation.world import World

EVENTS: Final = 200
_FLOWS: Final = tuple(ROUTES)
_KEYS: Final = 5
_REST: Final = 1800.0


class Story:
    """The story of one seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events = 0
        self.dice = world.dice
        self._revisions: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """All of it."""
        self.world.start()
        while self.events < EVENTS:
            self._arise()
            await asyncio.sleep(self.dice.choice((0.0, 0.0, 0.0, 1.0, 4.0)))
        await self.rest()

    async def rest(self) -> None:
        """Wait until nothing is owed."""
        await self.world.until(self.is_at_rest, seconds=_REST)

    def is_at_rest(self) -> bool:
        """Whether nothing is owed to anybody."""
        return next(self.world.unsettled(), None) is None

    def troubles(self) -> Iterator[str]:
        """What does not come to rest."""
        yield from self.world.unsettled()

    def _arise(self) -> None:
        flow = self.dice.choice(_FLOWS)
        records = []
        for _ in range(self.dice.randint(2, 10)):
            key = f"K{self.dice.randint(1, _KEYS)}"
            self._revisions[flow, key] += 1
            records.append((flow, key, self._revisions[flow, key]))
        self.events += len(records)
        self.world.trace.note("arise", flow, len(records))
        self.world.counterparts.producers[flow].produce(records)
