"""What this store says of the streams between it and a peer; `agent.sync.needs` compares it with what the peer says."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from agent.sync.needs import Fence, Needs, Standing, compute_needs, held_of_ended
from state import streams
from state.life import Life
from state.peers import Peer


def standing(connection: sqlite3.Connection, life: Life, peer: Peer) -> Standing:
    """Our side of the link with `peer`."""
    epoch_before, received_before = streams.received_before(connection, peer.id, epoch=peer.epoch)
    return Standing(
        site=life.site,
        epoch=life.epoch,
        sent=streams.sent(connection, peer.id, epoch=life.epoch),
        acknowledged=streams.acknowledged(connection, peer.id, epoch=life.epoch),
        peer_epoch=peer.epoch,
        received=streams.received(connection, peer.id, epoch=peer.epoch),
        epoch_before=epoch_before,
        received_before=received_before,
    )


def needs_of(connection: sqlite3.Connection, life: Life, peer: Peer, theirs: Standing) -> Needs | Fence:
    """What `peer` needs of us by what it says, or who is fenced. What it lost of ended epochs is put into the present one."""
    mine = standing(connection, life, peer)
    needs = compute_needs(mine, theirs, _chains(connection, life, peer, theirs))
    held = held_of_ended(mine, theirs)
    if isinstance(needs, Fence) or held is None:
        return needs
    epoch, marks = held
    if not streams.resupply(connection, peer.id, epoch=life.epoch, held=epoch, marks=marks):
        return needs
    return compute_needs(standing(connection, life, peer), theirs, {})


def _chains(connection: sqlite3.Connection, life: Life, peer: Peer, theirs: Standing) -> Mapping[int, bytes]:
    if theirs.peer_epoch != life.epoch:
        return {}
    return streams.chains_at(connection, peer.id, epoch=life.epoch, marks=theirs.received)
