"""Streams on a real store: ends, marks, chains, and what an ended epoch still owes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from state import estates, inbox, life, peers, streams
from state.engine import connect_writer
from state.inbox import Arrival
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.errors import ConfigError
from state.model.estate import Estate, EstateSettings
from state.model.event import Environment, Event, Op
from state.model.ids import event_id
from state.model.stream import BEGINNING, Mark, Nonce
from state.peers import Peer, PeerState
from state.streams import Item
from state.testing import NOON

ESTATE = Estate(settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR"), sites={}, flows={})


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    estates.adopt(connection, ESTATE, now=0)
    yield connection
    connection.close()


@pytest.fixture
def hub(connection: sqlite3.Connection) -> Peer:
    return peers.ensure(connection, "hq")


def an_event(number: int) -> Event:
    identity = event_id(source="/n/planning", flow="f", batch="b", position=str(number), key="K", content=b"")
    return Event(
        id=identity,
        source="/n/planning",
        type="distctl.purchase-order.snapshot",
        subject="K",
        time=NOON,
        contract="purchase-order/1",
        data=b'{"n":%d}' % number,
        partitionkey="K",
        sequence=0,
        recordedtime=NOON,
        correlationid=identity,
        site="n",
        system="planning",
        flow="f",
        op=Op.SNAPSHOT,
        environment=Environment.TEST,
        estate=ESTATE.hash,
    )


def admitted(connection: sqlite3.Connection, *numbers: int) -> list[Item]:
    return [
        (one.seq, one.event.id, one.event.data)
        for one in inbox.admit(connection, [Arrival(an_event(number)) for number in numbers])
    ]


def sent_events(
    connection: sqlite3.Connection, hub: Peer, *, epoch: int = 1, tier: int = 1, seq: int = 0
) -> list[bytes]:
    found = streams.events_after(connection, hub.id, epoch=epoch, tier=tier, seq=seq, limit=100)
    return [event.data for event in found]


def chained(*numbers: int) -> Mark:
    mark = BEGINNING
    for number in numbers:
        mark = mark.after(an_event(number).id, an_event(number).data)
    return mark


def test_a_stream_counts_without_gaps_and_its_chain_is_that_of_its_events(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    streams.append(connection, hub.id, epoch=1, tier=1, items=admitted(connection, 1, 2))
    streams.append(connection, hub.id, epoch=1, tier=2, items=admitted(connection, 3))
    streams.append(connection, hub.id, epoch=1, tier=1, items=admitted(connection, 4))
    assert streams.sent(connection, hub.id, epoch=1) == {1: chained(1, 2, 4), 2: chained(3)}
    assert sent_events(connection, hub, seq=1) == [b'{"n":2}', b'{"n":4}']
    assert streams.sent(connection, hub.id, epoch=2) == {}


def test_what_the_other_has_is_known_with_its_chain(connection: sqlite3.Connection, hub: Peer) -> None:
    streams.append(connection, hub.id, epoch=1, tier=1, items=admitted(connection, 1, 2, 3))
    assert streams.acknowledged(connection, hub.id, epoch=1) == {}
    streams.acknowledge(connection, hub.id, epoch=1, marks={1: chained(1, 2)})
    assert streams.acknowledged(connection, hub.id, epoch=1) == {1: chained(1, 2)}
    assert streams.owed(connection, hub.id, epoch=1) == {1: 1}
    streams.acknowledge(connection, hub.id, epoch=1, marks={1: Mark(9, b"")})
    assert streams.owed(connection, hub.id, epoch=1) == {1: 1}, "nobody has what was never sent"


def test_our_own_chains_are_told_where_they_are_held(connection: sqlite3.Connection, hub: Peer) -> None:
    streams.append(connection, hub.id, epoch=1, tier=1, items=admitted(connection, 1, 2))
    marks = {1: Mark(1, b"theirs"), 2: Mark(4, b"theirs")}
    assert streams.chains_at(connection, hub.id, epoch=1, marks=marks) == {1: chained(1).chain}


def test_the_mark_of_what_was_received_only_moves_in_its_own_epoch(connection: sqlite3.Connection, hub: Peer) -> None:
    streams.receive(connection, hub.id, epoch=1, tier=2, mark=chained(1, 2))
    streams.receive(connection, hub.id, epoch=2, tier=2, mark=chained(3))
    assert streams.received(connection, hub.id, epoch=1) == {2: chained(1, 2)}
    assert streams.received(connection, hub.id, epoch=2) == {2: chained(3)}


def test_a_new_epoch_carries_over_what_nobody_acknowledged_from_one_on(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    other = peers.ensure(connection, "south")
    life.begin(connection, "n", now=0)
    streams.append(connection, hub.id, epoch=1, tier=1, items=admitted(connection, 1, 2, 3))
    streams.append(connection, hub.id, epoch=1, tier=3, items=admitted(connection, 4))
    streams.append(connection, other.id, epoch=1, tier=1, items=admitted(connection, 5))
    streams.acknowledge(connection, hub.id, epoch=1, marks={1: chained(1)})
    assert life.begin_epoch(connection, now=5) == life.Life(site="n", epoch=2)
    assert streams.sent(connection, hub.id, epoch=2) == {1: chained(2, 3), 3: chained(4)}
    assert streams.sent(connection, other.id, epoch=2) == {1: chained(5)}
    assert sent_events(connection, hub, epoch=2) == [b'{"n":2}', b'{"n":3}']


def test_a_life_is_fenced_until_the_next_begins_and_epochs_only_rise(connection: sqlite3.Connection) -> None:
    life.begin(connection, "n", now=0)
    life.fence(connection, "it is an old copy")
    life.fence(connection, "the first reason stands")
    assert life.get(connection).fenced == "it is an old copy"
    assert life.begin_epoch(connection, now=5, least=7) == life.Life(site="n", epoch=7)
    assert life.begin_epoch(connection, now=5, least=3) == life.Life(site="n", epoch=8)


def test_a_store_belongs_to_one_site(connection: sqlite3.Connection) -> None:
    assert life.find(connection) is None
    assert life.begin(connection, "n", now=0) == life.begin(connection, "n", now=9) == life.get(connection)
    with pytest.raises(ConfigError, match="belongs to site n, not to south"):
        life.begin(connection, "south", now=0)


def test_a_peer_is_fenced_once_and_opened_by_a_person(connection: sqlite3.Connection, hub: Peer) -> None:
    assert peers.ensure(connection, "hq").id == hub.id
    assert peers.fence(connection, hub, reason="cloned", detail="two stores")
    assert not peers.fence(connection, hub, reason="rewound", detail="the first reason stands")
    [fenced] = peers.list_all(connection)
    assert (fenced.state, fenced.reason, fenced.detail) == (PeerState.FENCED, "cloned", "two stores")
    peers.open_again(connection, hub, adopting=True)
    assert peers.ensure(connection, "hq").state is PeerState.ADOPTING
    peers.open_again(connection, hub)
    assert peers.ensure(connection, "hq").state is PeerState.OPEN
    assert peers.find(connection, "nobody") is None


def test_nonces_follow_each_other(connection: sqlite3.Connection, hub: Peer) -> None:
    first = Nonce(1, "a")
    peers.issue(connection, hub, first, attempt="x")
    hub = peers.ensure(connection, "hq")
    assert (hub.nonce, hub.nonce_before, hub.attempt) == (first, None, "x")
    peers.issue(connection, hub, first.next("b"), attempt="y")
    hub = peers.ensure(connection, "hq")
    assert (hub.nonce, hub.nonce_before, hub.attempt) == (Nonce(2, "b"), first, "y")


def test_what_a_peer_says_of_itself_stays_until_it_says_something_else(
    connection: sqlite3.Connection, hub: Peer
) -> None:
    peers.hear(connection, hub, now=to_millis(NOON), said={"version": "0.2", "queue": 7})
    peers.hear(connection, hub, now=to_millis(NOON))
    hub = peers.ensure(connection, "hq")
    assert (hub.heard_at, hub.said) == (NOON, {"version": "0.2", "queue": 7})
    peers.know_epoch(connection, hub, 3)
    assert peers.ensure(connection, "hq").epoch == 3
