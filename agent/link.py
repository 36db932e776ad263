"""What an agent does about other agents, by its estate: it is the hub and listens, it is a site and dials, or it stands alone.

Which of the three it is holds until a restart; everything else follows the estate in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.errand import Answered, Elsewhere, Question
from agent.estate.compiled import CompiledEstate
from agent.works import Ground

if TYPE_CHECKING:
    from agent.identity.hub import HubIdentity

OnOwed = Callable[[Collection[str]], None]
"""Told of targets with new deliveries."""

AnswersHub = Callable[[Question], Awaitable[Answered]]
"""Answers somebody at the hub."""


class Link(Protocol):
    """The link of an agent with others. Changes of the estate are told by `adopt`."""

    @property
    def identity(self) -> HubIdentity | None:
        """Who may call; of a hub that listens."""
        ...

    @property
    def elsewhere(self) -> Elsewhere | None:
        """The other sites, of a hub."""
        ...

    @property
    def troubles(self) -> list[str]:
        """What does not work at the moment, one sentence each."""
        ...

    def adopt(self, compiled: CompiledEstate) -> None:
        """This estate is in force."""
        ...

    def wake(self, sites: Iterable[str]) -> None:
        """There is something for these sites."""
        ...

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep it up until the agent stops."""
        ...


def link_of(
    ground: Ground,
    compiled: CompiledEstate,
    data: Path,
    *,
    on_owed: OnOwed,
    on_life: Callable[[], None],
    on_bundle: Callable[[], None],
    answer: AnswersHub,
) -> Link:
    """The link of the agent of `ground.site`, with its identity in the folder `data`.

    `on_life`: this store may not go on, begins to gather or was answered. `on_bundle`: an estate of the hub may be there to be
    judged. `answer` puts what somebody at the hub asks to this agent's own control API.
    """
    hub = compiled.estate.settings.hub
    if hub is None:
        return NoLink()
    from agent.linked import HubDialler, HubLink  # 13 MB of TLS and HTTP that an agent alone does without

    if hub.site == ground.site:
        return HubLink(ground, compiled, data, hub, on_owed=on_owed, on_life=on_life)
    return HubDialler(ground, compiled, data, hub, on_owed=on_owed, on_life=on_life, on_bundle=on_bundle, answer=answer)


class NoLink:
    """An agent that stands alone."""

    identity: HubIdentity | None = None
    elsewhere: Elsewhere | None = None
    troubles: list[str] = []  # noqa: RUF012  nothing is ever added

    def adopt(self, compiled: CompiledEstate) -> None:
        """Nothing changes."""

    def wake(self, sites: Iterable[str]) -> None:
        """Nobody is there."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Wait."""
        await stopping.wait()
