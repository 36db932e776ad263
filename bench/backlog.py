"""P7: enqueue, claim and settle where very much is pending, beside the same where little is.

Half of what is pending has keys of its own, half waits behind one hot key. The rows of a backlog are made by SQL, in the form
in which the store writes them; the state of the one that was measured is left for P9, which starts an agent on it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from agent.control.endpoint import store_in
from bench.estate import FLOW, HOT_FLOW, write_estate
from bench.filling import fill
from bench.orders import orders
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row
from bench.site import OpenSite, open_site
from state import inbox
from state.inbox import Arrival
from state.lanes import Lane
from state.model.clock import Clock
from state.model.delivery import OutcomeKind, TargetMemory
from state.outbox import Outbox, Owed, Settlement, next_fence

PENDING: Final = int(os.environ.get("BENCH_PENDING", "1000000"))
"""Deliveries that wait in the large store; 5,000,000 is the figure of the reference."""

_FEW: Final = 10_000
_AT_ONCE: Final = {FLOW: 500, HOT_FLOW: 100}  # a hot key gives one at a time, so each is a claim of its own
_ROUNDS: Final = 9
_MEMORY: Final = TargetMemory(key_lifetime=timedelta(hours=24), lands_within=timedelta(seconds=5), can_probe=False)
_CALL_DEADLINE: Final = timedelta(seconds=10)
_URL: Final = "http://127.0.0.1:9"


async def measure(folder: Path) -> list[Row]:
    """One transaction enqueues, claims and settles; what it costs a delivery, in microseconds, at both sizes."""
    async with backlog(folder, PENDING) as large, backlog(folder, _FEW) as small:
        return [
            await _row(large, small, FLOW, "many keys"),
            await _row(large, small, HOT_FLOW, "one hot key"),
        ]


@asynccontextmanager
async def backlog(folder: Path, pending: int) -> AsyncIterator[OpenSite]:
    """A site whose store has that many deliveries pending; it is filled once in a run."""
    home = await filled(folder, pending)
    async with open_site(home, home / "data") as site:
        yield site


async def filled(folder: Path, pending: int) -> Path:
    """The estate of that backlog, with its store in `data`; it is filled once in a run."""
    home = folder / f"pending-{pending}"
    if home.exists():
        return home
    write_estate(home, url=_URL)
    async with open_site(home, home / "data") as site:
        for flow in (FLOW, HOT_FLOW):
            await site.database.write(partial(_owe, site, site.lane(flow), site.arrivals(flow, orders(1))))
    for flow, letter in ((FLOW, "F"), (HOT_FLOW, "H")):
        fill(store_in(home / "data"), flow, pending // 2 - 1, letter=letter)
    return home


async def _row(large: OpenSite, small: OpenSite, flow: str, keys: str) -> Row:
    sides = {"large": lambda: _turn(large, flow), "small": lambda: _turn(small, flow)}
    figures = await interleaved(sides, rounds=_ROUNDS, warm_up=2)
    return Row(
        number="P7",
        measure=f"enqueue, claim, settle at {PENDING:,} pending / at {_FEW:,}: {keys}",
        ours=Figure(value=figures["large"], unit="us", of=f"a delivery at {PENDING:,}"),
        beside=Figure(value=figures["small"], unit="us", of=f"a delivery at {_FEW:,}"),
        aim=Aim(reach=1.5, dream=1.2, more_is_better=False),
    )


async def _turn(site: OpenSite, flow: str) -> float:
    count, lane = _AT_ONCE[flow], site.lane(flow)
    arrivals = site.arrivals(flow, orders(count))
    with stopwatch() as watch:
        settled = await site.database.write(partial(_cycle, site, lane, arrivals))
    if settled != count:
        raise SystemExit(f"P7: {settled} of {count} deliveries were settled")
    return watch.seconds / count * 1e6


def _cycle(site: OpenSite, lane: Lane, arrivals: list[Arrival], connection: sqlite3.Connection) -> int:
    _owe(site, lane, arrivals, connection)
    settled = 0
    while settled < len(arrivals) and (done := _work(site.clock, lane, len(arrivals) - settled, connection)):
        settled += done
    return settled


def _owe(site: OpenSite, lane: Lane, arrivals: list[Arrival], connection: sqlite3.Connection) -> None:
    with Outbox(connection, now=site.clock.now()) as outbox:
        outbox.add(
            Owed(one.seq, lane, one.event.partitionkey, is_snapshot=True) for one in inbox.admit(connection, arrivals)
        )


def _work(clock: Clock, lane: Lane, limit: int, connection: sqlite3.Connection) -> int:
    """Claim up to `limit` and settle them, as a relay does in two turns."""
    with Outbox(connection, now=clock.now()) as outbox:
        claims = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=limit,
            memory=_MEMORY,
            call_deadline=_CALL_DEADLINE,
            render=lambda event: event.data,
        )
        outbox.settle(
            [(claim, Settlement(kind=OutcomeKind.ACCEPTED, reference=str(claim.delivery))) for claim in claims]
        )
    return len(claims)
