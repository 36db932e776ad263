"""P1: durable intake with mapping and contract, beside bare SQLite that commits the same bytes 1,000 at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from bench.bare import BareSqlite, open_bare
from bench.estate import BATCH, FLOW, drop, write_estate
from bench.orders import numbered, orders
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row
from bench.site import OpenSite, open_site

_ORDERS: Final = 4000
_ROUNDS: Final = 5


async def measure(folder: Path) -> list[Row]:
    """A file of orders through the flow's own intake: raw document, checkpoint, events, deliveries and trace on disk."""
    home = write_estate(folder / "intake", url="http://127.0.0.1:9")
    async with open_site(home, home / "data") as site:
        with open_bare(folder / "intake-bare.db") as bare:
            sides = {"ours": lambda: _take(site), "bare": lambda: _insert(bare)}
            figures = await interleaved(sides, rounds=_ROUNDS)
    return [
        Row(
            number="P1",
            measure="durable intake with mapping and contract / bare sqlite3, batch 1000",
            ours=Figure(value=figures["ours"], unit="events/s", of="file to commit"),
            beside=Figure(value=figures["bare"], unit="rows/s", of="the same bytes"),
            aim=Aim(reach=0.35, dream=0.6),
        )
    ]


async def _take(site: OpenSite) -> float:
    payloads = orders(_ORDERS)
    first, _ = next(numbered(payloads))
    drop(site.home / FLOW, f"orders-from-{first}", payloads)
    source, intake = site.source(FLOW), site.intake(FLOW)
    before = await site.count_events()
    with stopwatch() as watch:
        await intake.read(source, asyncio.Event())
    await source.close()
    if await site.count_events() - before != _ORDERS:
        raise SystemExit("P1: the intake did not take every order in")
    return watch.rate(_ORDERS)


async def _insert(bare: BareSqlite) -> float:
    payloads = orders(_ORDERS)
    with stopwatch() as watch:
        bare.insert(payloads, a_commit=BATCH)
    return watch.rate(_ORDERS)
