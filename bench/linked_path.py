"""The link alone, and the whole path over it (P2, P4): a site, its hub and a partner, each a process, beside SQLite and NATS.

One turn is the link, the whole path, bare SQLite and NATS twice, so one run of the agents gives all three rows. The link is
measured with the hub standing still until the site holds a backlog. The partner's ledger is the judge of the whole path.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from bench.agent_process import until
from bench.bare import BareSqlite, open_bare
from bench.estate import BATCH, FLOW, IDLE_FLOW, drop
from bench.jetstream import IN_FLIGHT, open_nats
from bench.orders import orders
from bench.partner import open_partner
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row
from bench.two_agents import TwoAgents, open_two_agents, standing_still

_OVER_THE_LINK: Final = 6000
_WHOLE: Final = 4000
_ROWS: Final = 8000
_MESSAGES: Final = 2000
_ROUNDS: Final = 3
_NAMES: Final = itertools.count(1)


async def measure(folder: Path) -> list[Row]:
    """Three rows of the same turns."""
    with open_partner(folder / "linked-ledger.db") as partner, open_bare(folder / "linked-bare.db") as bare:
        async with open_nats(folder) as nats, open_two_agents(folder / "linked", url=partner.url) as agents:
            sides = {
                "link": lambda: _over_the_link(agents),
                "whole": lambda: whole_path(agents, _WHOLE),
                "bare": lambda: _insert(bare),
                "published": lambda: nats.publish(_MESSAGES),
                "through": lambda: nats.through(_MESSAGES),
            }
            figures = await interleaved(sides, rounds=_ROUNDS)
            sent = agents.hub.delivered(FLOW)
        if partner.taken() != (sent, sent):
            raise SystemExit(f"P2: of {sent} orders the partner holds {partner.taken()}")
    whole = Figure(value=figures["whole"], unit="events/s", of="file at the site to outcome at the site")
    return [
        Row(
            number="link",
            measure=f"agent -> hub, durable at both ends / NATS JetStream, sync_interval always, {IN_FLIGHT:,} in flight",
            ours=Figure(value=figures["link"], unit="events/s", of="backlog to watermark"),
            beside=Figure(value=figures["published"], unit="messages/s", of="published, acknowledged"),
            aim=None,
        ),
        Row(
            number="P2",
            measure="whole path over two agents, without a workflow step / bare sqlite3, batch 1000",
            ours=whole,
            beside=Figure(value=figures["bare"], unit="rows/s", of="the same bytes"),
            aim=Aim(reach=0.3, dream=0.6),
        ),
        Row(
            number="P4",
            measure="whole path over two agents / NATS JetStream, sync_interval always",
            ours=whole,
            beside=Figure(value=figures["through"], unit="messages/s", of="publish, consume, acknowledge"),
            aim=Aim(reach=4, dream=10),
        ),
    ]


async def whole_path(agents: TwoAgents, count: int) -> float:
    """Orders from the moment their file is complete at the site until the last outcome is on disk there."""
    expected = agents.settled_at_the_site() + count
    with stopwatch() as watch:
        drop(agents.home / FLOW, f"orders-{next(_NAMES)}", orders(count))
        await until(lambda: agents.settled_at_the_site() == expected, "every order has its outcome at the site")
    return watch.rate(count)


async def _over_the_link(agents: TwoAgents) -> float:
    """A backlog of the site, from the moment its hub takes part until the hub has all of it on disk."""
    expected = agents.hub.received() + _OVER_THE_LINK
    with standing_still(agents.hub):
        drop(agents.home / IDLE_FLOW, f"idle-{next(_NAMES)}", orders(_OVER_THE_LINK))
        await until(lambda: agents.site.sent() == expected, "the site has the backlog")
    with stopwatch() as watch:
        await until(lambda: agents.hub.received() == expected, "the hub has the backlog")
    return watch.rate(_OVER_THE_LINK)


async def _insert(bare: BareSqlite) -> float:
    payloads = orders(_ROWS)
    with stopwatch() as watch:
        bare.insert(payloads, a_commit=BATCH)
    return watch.rate(_ROWS)
