"""P8: how long an event takes at 200 a second over two agents: from the marker that offers its file at the site to the commit in
the target's own ledger at the hub.

Twenty files a second of ten orders each are offered, each in the moment when it is due, whatever became of those before: an event
waits for those of its file, and for what its file waits for. Both moments are read from the machine's monotonic clock.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.agent_process import until
from bench.estate import FLOW, drop
from bench.orders import numbered, orders
from bench.partner import open_partner
from bench.row import Aim, Figure, Row
from bench.two_agents import TwoAgents, open_two_agents

_FILES_A_SECOND: Final = 20
_A_FILE: Final = 10  # orders
_WARM_UP: Final = 60  # files
_FILES: Final = 240


async def measure(folder: Path) -> list[Row]:
    """The 99th percentile, beside the median of the same events."""
    with open_partner(folder / "latency-ledger.db") as partner:
        async with open_two_agents(folder / "latency", url=partner.url) as agents:
            offered = _offer(agents, _WARM_UP + _FILES)
            await until(lambda: partner.taken() == (len(offered), len(offered)), "every order is taken")
        recorded = partner.times()
    took = [(recorded[number] - at) * 1000 for number, at in offered.items()][_WARM_UP * _A_FILE :]
    p99 = quantiles(took, n=100)[-1]
    return [
        Row(
            number="P8",
            measure=f"end to end over two agents at {_FILES_A_SECOND * _A_FILE} events/s, {_A_FILE} a file: p99 / median",
            ours=Figure(value=p99, unit="ms", of="p99: offered at the site to recorded by the target"),
            beside=Figure(value=median(took), unit="ms", of="p50 of the same"),
            aim=Aim(reach=25, dream=8, unit=" ms", more_is_better=False),
            held=p99,
        )
    ]


def _offer(agents: TwoAgents, files: int) -> dict[str, float]:
    """Offer so many files at their pace; when each order was offered, by its number."""
    offered: dict[str, float] = {}
    began = time.monotonic()
    for file in range(files):
        payloads = orders(_A_FILE)
        time.sleep(max(began + file / _FILES_A_SECOND - time.monotonic(), 0.0))
        at = drop(agents.home / FLOW, f"orders-{file}", payloads)
        offered.update((number, at) for number, _ in numbered(payloads))
    return offered
