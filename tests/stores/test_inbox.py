"""What was already taken in: each event once, under numbers without a hole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state import estates, views
from state.engine import connect_writer
from state.inbox import Admitted, Arrival, admit
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.estate import Estate, EstateSettings
from state.model.event import Environment, Event, Op
from state.model.ids import EstateHash, event_id
from state.testing import NOON


def an_estate(name: str) -> Estate:
    settings = EstateSettings(name=name, environment=Environment.TEST, currency="EUR")
    return Estate(settings=settings, sites={}, flows={})


ESTATE, NEXT = an_estate("acme"), an_estate("acme-2")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    for estate in (ESTATE, NEXT):
        estates.adopt(connection, estate, now=0)
    yield connection
    connection.close()


def an_event(name: str, estate: EstateHash = ESTATE.hash) -> Event:
    identity = event_id(source="/n/planning", flow="f", batch="b", position=name, key=name, content=b"{}")
    return Event(
        id=identity,
        source="/n/planning",
        type="distctl.purchase-order.snapshot",
        subject=f"PO-{name}",
        time=NOON,
        contract="purchase-order/1",
        data=b"{}",
        partitionkey=f"PO-{name}",
        sequence=0,
        recordedtime=NOON,
        correlationid=identity,
        site="n",
        system="planning",
        flow="f",
        op=Op.SNAPSHOT,
        environment=Environment.TEST,
        estate=estate,
    )


def take_in(connection: sqlite3.Connection, names: str) -> list[Admitted]:
    return admit(connection, [Arrival(an_event(name), [("supplier", "S-1")]) for name in names])


def test_what_is_known_or_comes_twice_is_left_out_and_takes_no_number(connection: sqlite3.Connection) -> None:
    take_in(connection, "ab")
    admitted = take_in(connection, "acbdcd")
    assert [(one.seq, one.event.subject) for one in admitted] == [(3, "PO-c"), (4, "PO-d")]
    assert views.count_events(connection) == 4
    assert take_in(connection, "abcd") == take_in(connection, "") == []
    assert views.count_events(connection) == 4


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.text("abcdefgh", max_size=10), max_size=6))
def test_an_event_is_taken_in_once_however_batches_repeat_it(
    connection: sqlite3.Connection, batches: list[str]
) -> None:
    connection.execute("BEGIN")
    admitted = [one for names in batches for one in take_in(connection, names)]
    assert [one.event.subject for one in admitted] == [f"PO-{name}" for name in dict.fromkeys("".join(batches))]
    rows = connection.execute("SELECT seq, subject FROM events ORDER BY seq").fetchall()
    assert rows == [(one.seq, one.event.subject) for one in admitted]
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    named = connection.execute("SELECT count(*) FROM trace WHERE key = 'S-1'").fetchone()
    assert named == (len(rows),)
    connection.execute("ROLLBACK")


def test_a_known_event_that_is_read_under_a_newer_estate_leaves_nothing(connection: sqlite3.Connection) -> None:
    take_in(connection, "a")
    assert admit(connection, [Arrival(an_event("a", NEXT.hash))]) == []
    assert connection.execute("SELECT count(*) FROM origins").fetchone() == (1,)
