"""P5: one producer that waits for each event, beside bare SQLite that commits each row."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final

from bench.bare import BareSqlite, open_bare
from bench.estate import FLOW, write_estate
from bench.orders import orders
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row
from bench.site import OpenSite, open_site
from state import inbox
from state.inbox import Arrival
from state.lanes import Lane
from state.outbox import Outbox, Owed

_EVENTS: Final = 500
_ROUNDS: Final = 7


async def measure(folder: Path) -> list[Row]:
    """Event, trace and delivery of one order are on disk before the next one is written."""
    home = write_estate(folder / "waiting", url="http://127.0.0.1:9")
    async with open_site(home, home / "data") as site:
        with open_bare(folder / "waiting-bare.db") as bare:
            sides = {"ours": lambda: _write(site), "bare": lambda: _insert(site, bare)}
            figures = await interleaved(sides, rounds=_ROUNDS)
    return [
        Row(
            number="P5",
            measure="one producer that waits for each event / bare sqlite3, commit per event",
            ours=Figure(value=figures["ours"], unit="events/s", of="event, trace and delivery"),
            beside=Figure(value=figures["bare"], unit="rows/s", of="the same bytes"),
            aim=Aim(reach=0.7, dream=0.9),
        )
    ]


async def _write(site: OpenSite) -> float:
    lane = site.lane(FLOW)
    arrivals = site.arrivals(FLOW, orders(_EVENTS))
    with stopwatch() as watch:
        for arrival in arrivals:
            await site.database.write(partial(_owe, site, lane, arrival))
    return watch.rate(_EVENTS)


def _owe(site: OpenSite, lane: Lane, arrival: Arrival, connection: sqlite3.Connection) -> None:
    with Outbox(connection, now=site.clock.now()) as outbox:
        outbox.add(
            Owed(one.seq, lane, one.event.partitionkey, is_snapshot=True) for one in inbox.admit(connection, [arrival])
        )


async def _insert(site: OpenSite, bare: BareSqlite) -> float:
    payloads = [arrival.event.data for arrival in site.arrivals(FLOW, orders(_EVENTS))]
    with stopwatch() as watch:
        bare.insert(payloads, a_commit=1)
    return watch.rate(_EVENTS)
