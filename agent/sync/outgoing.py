"""Puts events into the streams of those who are to have them, in the transaction that admits them."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from agent.sync.recipients import recipients
from state import life, peers, streams
from state.inbox import Admitted
from state.streams import Item, PeerId


@dataclass(frozen=True, slots=True)
class Departure:
    """An event that was admitted, and where it is wanted."""

    event: Admitted
    tier: int
    wanted_at: Collection[str]
    domain: str = ""  # in which the order of its key is kept; the flow's name where that is its own
    came_from: str | None = None  # the site that sent it here; None where it arose here, also where it was given back


class Outgoing:
    """What leaves one agent."""

    def __init__(self, here: str, hub: str | None, *, second: str | None = None) -> None:
        """`hub` is the site of the hub, None where the agent stands alone; `second` that of its second agent, if it has one."""
        self._here = here
        self._hub = hub
        self._second = second

    @property
    def is_hub(self) -> bool:
        """Whether this agent passes on what others hand up."""
        return self._here == self._hub

    @property
    def is_second(self) -> bool:
        """Whether this agent keeps a copy of what the hub has."""
        return self._here == self._second

    @property
    def keeps_others(self) -> bool:
        """Whether this agent gives back to others what they have lost of their own: every other has its own alone."""
        return self.is_hub or self.is_second

    @property
    def second(self) -> str | None:
        """The site of the hub's second agent."""
        return self._second

    def send(self, connection: sqlite3.Connection, departures: Collection[Departure]) -> frozenset[str]:
        """Append each event to the streams of its recipients, in the order given; returns who is to have something."""
        if self._hub is None or not departures:
            return frozenset()
        epoch = life.get(connection).epoch
        leaving: defaultdict[tuple[PeerId, int], list[Item]] = defaultdict(list)
        tiers: dict[tuple[str, str], tuple[PeerId, int]] = {}
        for one in departures:
            sites = recipients(
                here=self._here, hub=self._hub, second=self._second, wanted_at=one.wanted_at, came_from=one.came_from
            )
            for site in sites:
                event, domain = one.event.event, one.domain or one.event.event.flow
                if (site, domain) not in tiers:
                    peer = peers.number(connection, site)
                    tiers[site, domain] = peer, streams.tier_for(connection, peer, domain, epoch=epoch, tier=one.tier)
                leaving[tiers[site, domain]].append((one.event.seq, event.id, event.data))
        for (peer, tier), items in sorted(leaving.items()):
            streams.append(connection, peer, epoch=epoch, tier=tier, items=items)
        for (_, domain), (peer, tier) in tiers.items():
            streams.note_domain(connection, peer, domain, epoch=epoch, tier=tier)
        return frozenset(site for site, _ in tiers)
