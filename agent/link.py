"""What an agent does about other agents, by its estate: it is the hub and listens, it is a site and dials, or it stands alone.

Which of the three it is holds until a restart; everything else follows the estate in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.errand import Answered, Elsewhere, Question
from agent.estate.compiled import CompiledEstate

if TYPE_CHECKING:
    from agent.identity.hub import HubIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedAgent:
    """What a link tells the agent that it is of, and asks of it."""

    on_owed: Callable[[Collection[str]], None]  # targets have new deliveries
    on_life: Callable[[], None]  # this store may not go on, begins to gather, or was answered
    on_bundle: Callable[[], None]  # an estate of the hub may be there to be judged
    answer: Callable[[Question], Awaitable[Answered]]  # what its own control API answers to somebody at the hub


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
