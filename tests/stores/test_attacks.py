"""Attacks on the store's promises: a million rows, one hot key, clocks that were set."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from state import estates
from state.engine import connect_writer
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.model.delivery import OrderMode
from state.outbox import bring_dues_near
from state.testing import NOON
from tests.stores.test_outbox import ESTATE, a_lane, an_event, check_invariants, claim, owe, settle

MANY = 2_000
MINUTE = timedelta(minutes=1)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    estates.adopt(connection, ESTATE, now=0)
    yield connection
    connection.close()


def steps(connection: sqlite3.Connection, action: Callable[[], object]) -> int:
    """How much the engine worked, in thousands of its instructions: the same on every machine."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1_000)
    action()
    connection.set_progress_handler(None, 0)
    return count


def test_in_any_order_the_work_on_one_hot_key_does_not_grow_with_what_waits(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection, OrderMode.ANY)
    owe(connection, lane, *[an_event("K", number) for number in range(MANY)])
    assert steps(connection, lambda: settle(connection, *claim(connection, lane))) < 5
    assert steps(connection, lambda: owe(connection, lane, an_event("K", MANY))) < 5
    check_invariants(connection)


def test_looking_for_dues_out_of_reach_does_not_read_every_key(connection: sqlite3.Connection) -> None:
    lane = a_lane(connection)
    owe(connection, lane, *[an_event(f"K{number}", number) for number in range(MANY)])
    assert steps(connection, lambda: bring_dues_near(connection, now=NOON, longest=MINUTE)) < 3
