"""Fences: an agent whose store cannot be trusted to go on is kept out, here and at the next exchange, until a person decides."""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime
from typing import Final

from agent.sync.needs import Fence, Reason
from state import audit, life, peers
from state.life import Life
from state.model.clock import to_millis
from state.model.errors import FencedError
from state.peers import Peer, PeerState

_log = logging.getLogger("distctl.sync")

_ADOPT: Final = "`distctl agents adopt {site} --reason ...` at the hub"
_RESTORE: Final = "`distctl restore BACKUP --reason ...` at the hub"
_CURE: Final = {
    Reason.REWOUND: f"its store is an old copy: make sure that no other runs, then {_ADOPT}",
    Reason.FORKED: f"two stores wrote under its name: stop one of them, then {_ADOPT}",
    Reason.CLONED: f"two stores have its identity: stop one of them, then {_ADOPT}",
    Reason.ENDED: "{site} began a later epoch with another store: stop the one that is refused; or, where that is to go on, stop "
    f"every other, and a minute later {_ADOPT}",
    Reason.GAP: "it says hello again by itself",
    Reason.UNPROVEN: f"nothing proves what it says of the store of {{hub}}: where that was put back, {_RESTORE}; where not, "
    f"its own is at fault: {_ADOPT}, or deny it and enrol it anew",
}
_CURE_OF_THE_HUB: Final = f"its store is older than what it said: {_RESTORE} begins its next epoch"


class LinkFencedError(FencedError):
    """Nothing is exchanged between two agents, because of one of them."""

    def __init__(self, fence: Fence, *, hint: str) -> None:
        super().__init__(f"{fence.site} is fenced: {fence.detail}", hint=hint, code=f"fenced:{fence.reason}")
        self.fence = fence


def cure(fence: Fence, *, hub: str) -> str:
    """What a person does about it; `hub` is the site of the hub."""
    return _CURE_OF_THE_HUB if fence.site == hub else _CURE[fence.reason].format(site=fence.site, hub=hub)


def own_cure(here: str, *, hub: str) -> str:
    """What a person does about a store that fenced itself: of a site, that finds its own events to be others at the hub."""
    return cure(Fence(here, Reason.FORKED, ""), hub=hub)


def held_against(peer: Peer, fence: Fence) -> Fence:
    """The fence that a hub puts up: what only the words of a site say against its store is held against that link alone."""
    return fence if fence.site == peer.site else Fence(peer.site, Reason.UNPROVEN, fence.detail)


def standing_fence(here: Life, peer: Peer) -> Fence | None:
    """The fence that is up between this store and `peer`, if one is."""
    if here.fenced:
        return Fence(here.site, Reason.REWOUND, here.fenced)
    if peer.state is PeerState.FENCED:
        return Fence(peer.site, Reason(peer.reason), peer.detail)
    return None


def put_up(connection: sqlite3.Connection, peer: Peer, fence: Fence, *, now: datetime) -> None:
    """Keep the fence, audited once: against `peer`, or against this store itself where that is at fault.

    A store whose life has ended is refused without one, and that is noted: the site's later life is another store, and in its
    right until a person decides otherwise.
    """
    if fence.site != peer.site:
        is_new, action = life.fence(connection, fence.detail), "fence"
    elif fence.reason is Reason.ENDED:
        is_new, action = peers.refuse(connection, peer, detail=fence.detail, now=now), "refuse"
    else:
        is_new, action = peers.fence(connection, peer, reason=fence.reason, detail=fence.detail), "fence"
    if is_new:
        _log.error("%s is %sd (%s): %s", fence.site, action, fence.reason, fence.detail, extra={"site": fence.site})
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor="agent",
            action=action,
            target=f"agent {fence.site}",
            reason=fence.detail,
            details={"reason": fence.reason, "peer": peer.site},
        )
