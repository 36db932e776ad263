"""What this store says of the streams between it and a peer; `agent.sync.needs` compares it with what the peer says."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from agent.outcomes import CONTRACT as OUTCOME
from agent.sync.beyond import after_passing
from agent.sync.frames import FRAME_EVENTS
from agent.sync.needs import Fence, Needs, Standing, compute_needs, held_of_ended
from agent.sync.outgoing import Outgoing
from state import gaps, streams
from state.life import Life
from state.peers import Peer


def standing(connection: sqlite3.Connection, life: Life, peer: Peer) -> Standing:
    """Our side of the link with `peer`."""
    epoch_before, received_before = streams.received_before(connection, peer.id, epoch=peer.epoch)
    epoch_ended, acknowledged_ended = streams.acknowledged_before(connection, peer.id, epoch=life.epoch)
    return Standing(
        site=life.site,
        epoch=life.epoch,
        sent=streams.sent(connection, peer.id, epoch=life.epoch),
        acknowledged=streams.acknowledged(connection, peer.id, epoch=life.epoch),
        peer_epoch=peer.epoch,
        received=streams.received(connection, peer.id, epoch=peer.epoch),
        epoch_before=epoch_before,
        received_before=received_before,
        epoch_ended=epoch_ended,
        acknowledged_ended=acknowledged_ended,
    )


def needs_of(
    connection: sqlite3.Connection, life: Life, peer: Peer, theirs: Standing, outgoing: Outgoing
) -> Needs | Fence:
    """What `peer` needs of us by what it says, or who is fenced.

    What it lost of our ended epochs is put into the present one, and what it lost of its own behind that.
    """
    mine = standing(connection, life, peer)
    needs = compute_needs(mine, theirs, _chains(connection, life, peer, theirs))
    if isinstance(needs, Fence):
        return needs
    is_reborn = 0 < peer.epoch < theirs.epoch
    if is_reborn:
        streams.mark_again(connection, peer.id, epoch=life.epoch, reach=FRAME_EVENTS)
    sent = _resupply(connection, life, peer, mine, theirs)
    if is_reborn:
        sent += _give_back(connection, life, peer, theirs, outgoing)
        if life.is_gathering:
            streams.mark_all_again(connection, peer.id, epoch=life.epoch)
    return compute_needs(standing(connection, life, peer), theirs, {}) if sent else needs


def _resupply(connection: sqlite3.Connection, life: Life, peer: Peer, mine: Standing, theirs: Standing) -> int:
    begin = gaps.beginnings(connection, peer.id)
    held = held_of_ended(mine, after_passing(theirs, life.epoch, begin))
    if held is None:
        return 0
    epoch, marks = held
    return streams.resupply(connection, peer.id, epoch=life.epoch, held=epoch, marks=marks)


def _give_back(connection: sqlite3.Connection, life: Life, peer: Peer, theirs: Standing, outgoing: Outgoing) -> int:
    """What the peer sent here and does not know any more.

    A site gets all that arose there. A hub gets everything from its second agent, and from any other what its own targets said
    of that site's events: an ordinary site's word counts for what is its own.
    """
    lost = streams.arrived_beyond(
        connection, peer.id, ended=theirs.epoch_ended, marks=theirs.acknowledged_ended, epoch=theirs.epoch
    )
    if outgoing.is_hub:
        return streams.give_back(connection, peer.id, epoch=life.epoch, lost=lost, arose_at=peer.site)
    if outgoing.is_second:
        return streams.give_back(connection, peer.id, epoch=life.epoch, lost=lost, not_at=life.site)
    return streams.give_back(connection, peer.id, epoch=life.epoch, lost=lost, arose_at=peer.site, contract=OUTCOME)


def _chains(connection: sqlite3.Connection, life: Life, peer: Peer, theirs: Standing) -> Mapping[int, bytes]:
    if theirs.peer_epoch != life.epoch:
        return {}
    return streams.chains_at(connection, peer.id, epoch=life.epoch, marks=theirs.received)
