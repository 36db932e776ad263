"""Other agents as this store knows them: the hub at a site, the sites at a hub.

A peer is open, fenced (nothing is exchanged until a person decides) or being adopted (a person decided: its next hello begins a
new epoch). While it is open another store of its site may have been refused, whose epoch has ended. The nonces are those of
`docs/decisions/010-sites-in-step.md`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from state.model.clock import from_millis, to_millis
from state.model.stream import Nonce
from state.queries import load
from state.streams import PeerId

_SQL = load("peers")


class PeerState(StrEnum):
    """Whether anything is exchanged with a peer."""

    OPEN = "open"
    FENCED = "fenced"
    ADOPTING = "adopting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Where the streams of a peer's epoch ended, by tier, when it was asked for what it has."""

    epoch: int
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A store of a peer's site whose epoch has ended, and when it came last."""

    at: datetime
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another agent."""

    id: PeerId
    site: str
    epoch: int  # the newest life of theirs that we know; 0: never met
    state: PeerState
    reason: str
    detail: str
    refused: Refused | None  # since it began its epoch; of a peer that is open
    nonce: Nonce | None  # issued last: by us where we are the hub, else to us
    nonce_before: Nonce | None
    attempt: str  # with which we present `nonce`; where we are the hub, with which `nonce_before` was presented
    heard_at: datetime | None
    said: dict[str, Any]  # what it last said of itself
    answered: int  # the newest life of ours for which it has given back what it had
    promised: Promise | None  # what it has to hand over until then


def ensure(connection: sqlite3.Connection, site: str) -> Peer:
    """The agent of that site, which may be new here."""
    found = find(connection, site)
    if found is None:
        connection.execute(_SQL.ensure, (site,))
        found = _peer(connection.execute(_SQL.find, (site,)).fetchone())
    return found


def number(connection: sqlite3.Connection, site: str) -> PeerId:
    """The local number of the agent of that site, which may be new here."""
    row = connection.execute(_SQL.number, (site,)).fetchone()
    return PeerId(row[0]) if row else ensure(connection, site).id


def find(connection: sqlite3.Connection, site: str) -> Peer | None:
    """The agent of that site, if it is known."""
    row = connection.execute(_SQL.find, (site,)).fetchone()
    return _peer(row) if row else None


def list_all(connection: sqlite3.Connection) -> list[Peer]:
    """Every agent that is known, by site."""
    return [_peer(row) for row in connection.execute(_SQL.list)]


def know_epoch(connection: sqlite3.Connection, peer: Peer, epoch: int) -> None:
    """The peer lives in `epoch` now."""
    connection.execute(_SQL.set_epoch, (epoch, peer.id))


def issue(connection: sqlite3.Connection, peer: Peer, nonce: Nonce, *, attempt: str) -> None:
    """`nonce` takes the place of the one before; `attempt` as in `Peer`."""
    connection.execute(_SQL.set_nonce, (str(nonce), str(peer.nonce or ""), attempt, peer.id))


def hear(connection: sqlite3.Connection, peer: Peer, *, now: int, said: dict[str, Any] | None = None) -> None:
    """The peer spoke, and said this of itself."""
    connection.execute(_SQL.hear, (now, orjson.dumps(said).decode() if said is not None else None, peer.id))


def keep_receipt(connection: sqlite3.Connection, peer: Peer, receipt: str) -> None:
    """What the hub gave us for the last that we handed up, as JSON."""
    connection.execute(_SQL.keep_receipt, (receipt, peer.id))


def receipt(connection: sqlite3.Connection, peer: Peer) -> str:
    """The last that was kept; empty before the first."""
    return str(connection.execute(_SQL.receipt, (peer.id,)).fetchone()[0])


def promise(connection: sqlite3.Connection, peer: Peer, promised: Promise) -> None:
    """The peer has this to hand over before it has answered."""
    said = {"epoch": promised.epoch, "ends": {str(tier): end for tier, end in promised.ends.items()}}
    connection.execute(_SQL.promise, (orjson.dumps(said).decode(), peer.id))


def answer(connection: sqlite3.Connection, peer: Peer, *, epoch: int) -> bool:
    """The peer has given back what it had, or a person waived it; answers whether it was waited for until now."""
    return connection.execute(_SQL.answer, (epoch, peer.id)).rowcount > 0


def unanswered(connection: sqlite3.Connection) -> list[str]:
    """The sites whose agents this store still waits for while it gathers."""
    return [site for (site,) in connection.execute(_SQL.unanswered)]


def fence(connection: sqlite3.Connection, peer: Peer, *, reason: str, detail: str) -> bool:
    """Exchange nothing with it from now on; answers whether it was open until now."""
    return connection.execute(_SQL.fence, (reason, detail, peer.id)).rowcount > 0


def refuse(connection: sqlite3.Connection, peer: Peer, *, detail: str, now: datetime) -> bool:
    """A store of the peer's site came whose epoch has ended; answers whether that is the first time in this one."""
    said = orjson.dumps({"at": to_millis(now), "detail": detail}).decode()
    return connection.execute(_SQL.refuse, (said, peer.id)).rowcount > 0 and peer.refused is None


def open_again(connection: sqlite3.Connection, peer: Peer, *, adopting: bool = False) -> None:
    """A person decided, or what was decided is done."""
    connection.execute(_SQL.open, (PeerState.ADOPTING if adopting else PeerState.OPEN, peer.id))


def _peer(row: Sequence[Any]) -> Peer:
    (number, site, epoch, state, reason, detail, nonce, before, attempt, heard_at, said, answered, promised) = row
    refused = _refused(detail) if state == PeerState.OPEN and detail else None
    return Peer(
        id=PeerId(number),
        site=site,
        epoch=epoch,
        state=PeerState(state),
        reason=reason,
        detail="" if refused else detail,
        refused=refused,
        nonce=Nonce.parse(nonce) if nonce else None,
        nonce_before=Nonce.parse(before) if before else None,
        attempt=attempt,
        heard_at=None if heard_at is None else from_millis(heard_at),
        said=orjson.loads(said),
        answered=answered,
        promised=_promise(promised),
    )


def _refused(text: str) -> Refused:
    said = orjson.loads(text)
    return Refused(at=from_millis(said["at"]), detail=said["detail"])


def _promise(text: str | None) -> Promise | None:
    if text is None:
        return None
    said = orjson.loads(text)
    return Promise(epoch=said["epoch"], ends={int(tier): end for tier, end in said["ends"].items()})
