"""Whether an agent has given back what it had of a life of this store that ended.

What it has to hand over is what its streams held when it first spoke in this life; what arises there later is not waited for.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

from agent.sync.outgoing import Outgoing
from state import peers, streams, unapplied
from state.life import Life
from state.model.stream import BEGINNING
from state.peers import Peer, Promise
from state.streams import Marks

_log: Final = logging.getLogger("distctl.sync")


def ends(connection: sqlite3.Connection, here: Life, peer: Peer, outgoing: Outgoing) -> Marks | None:
    """Where our streams to `peer` end; None as long as it may have lost what is not in them yet.

    That is all that a hub which gathers itself is still to get for it, and what came from it and waits here for an estate.
    """
    is_behind = outgoing.is_hub and here.is_gathering
    if is_behind or (outgoing.keeps_others and unapplied.is_any(connection, peer.id)):
        return None
    return streams.sent(connection, peer.id, epoch=here.epoch)


def has_just_answered(connection: sqlite3.Connection, here: Life, peer: Peer, sent: Marks | None) -> bool:
    """Note whether `peer`, whose streams end at `sent`, has handed over all that it has to; answers whether that is new.

    An agent that does not say where its streams end never has: a person waives it.
    """
    if not here.is_gathering or peer.answered >= here.epoch or sent is None:
        return False
    promised = peer.promised
    if promised is None or promised.epoch != peer.epoch:
        promised = Promise(epoch=peer.epoch, ends={tier: mark.seq for tier, mark in sent.items()})
        peers.promise(connection, peer, promised)
    received = streams.received(connection, peer.id, epoch=peer.epoch)
    if any(received.get(tier, BEGINNING).seq < end for tier, end in promised.ends.items()):
        return False
    _log.info("the agent of %s has given back what it had", peer.site, extra={"site": peer.site})
    return peers.answer(connection, peer, epoch=here.epoch)
