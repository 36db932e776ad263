"""P3: the whole path on one agent, a file to its outcomes, beside peers that take one message through with a commit each.

The agent and the partner are processes of their own; the orders are posted 500 to a call; the partner's ledger is the judge.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from bench import peers
from bench.agent_process import AgentProcess, open_agent, until
from bench.estate import FLOW, drop, write_estate
from bench.orders import orders
from bench.partner import open_partner
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row

_ORDERS: Final = 4000
_ROUNDS: Final = 5
_NAMES: Final = itertools.count(1)


async def measure(folder: Path) -> list[Row]:
    """Orders from the moment their file is complete until the last outcome is on disk."""
    with open_partner(folder / "ledger.db") as partner:
        home = write_estate(folder / "whole-path", url=partner.url)
        async with open_agent(home) as agent:
            sides = {"ours": lambda: _pass(home, agent), **peers.rounds(folder)}
            figures = await interleaved(sides, rounds=_ROUNDS)
            sent = agent.delivered(FLOW)
        if partner.taken() != (sent, sent):
            raise SystemExit(f"P3: of {sent} orders the partner holds {partner.taken()}")
    ours = Figure(value=figures.pop("ours"), unit="events/s", of="file to outcome")
    best = max(figures, key=lambda name: figures[name])
    return [_row(ours, name, figures[name], is_best=name == best) for name in figures]


async def _pass(home: Path, agent: AgentProcess) -> float:
    expected = agent.delivered(FLOW) + _ORDERS
    with stopwatch() as watch:
        drop(home / FLOW, f"orders-{next(_NAMES)}", orders(_ORDERS))
        await until(lambda: agent.delivered(FLOW) == expected, "every order has its outcome")
    return watch.rate(_ORDERS)


def _row(ours: Figure, peer: str, value: float, *, is_best: bool) -> Row:
    return Row(
        number="P3",
        measure=f"whole path on one agent, to an HTTP sink / {peer}{', the best peer' if is_best else ''}",
        ours=ours,
        beside=Figure(value=value, unit="messages/s", of="put, take, acknowledge"),
        aim=Aim(reach=6, dream=12),
    )
