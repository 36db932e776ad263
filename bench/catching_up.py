"""`make backlog`: a site that was away comes back with very much for its hub, and everything goes on meanwhile.

Real processes: a site, its hub and a partner who takes every order. The site's streams are filled while it is stopped; then it
starts, and while the backlog drains, one fresh order of tier 1 is offered now and then. Five claims are judged, the last two by
the partner's ledger:

- the tiers drain in their order;
- neither agent holds much more memory than before;
- the site says how long it will take, and halfway that is about right;
- a fresh order of tier 1 is with the partner within 30 s;
- nothing is missing, nothing doubled, and the revisions of each key came in their order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from agent.identity.testing import free_port
from bench.agent_process import AgentProcess, open_agent, until
from bench.claim import Claim, report, whole_and_in_order
from bench.disk import BUILD, workspace
from bench.estate import FLOW, HUB, SITE, TIER_FLOWS, drop, write_linked_estate
from bench.orders import numbered, orders
from bench.partner import Partner, open_partner
from bench.stream_filling import fill_streams
from bench.two_agents import distctl, enrol

FRESH_WITHIN: Final = 30.0
"""Seconds."""

MEMORY_WHILE_BUSY: Final = 128.0
"""MB that an agent may hold more than at rest: the frames under way, whatever the backlog."""

MEMORY_GROWTH: Final = 20.0
"""MB by which it may rise from the second quarter of the way to the last."""

_SHARES: Final = {1: 0.02, 2: 0.38, 3: 0.6}
_LOOK_SECONDS: Final = 1.0
_FRESH_EVERY: Final = 5  # looks
_ETA_EVERY: Final = 5  # looks
_SAID_EVERY: Final = 15  # looks
_RECEIVED: Final = "SELECT sum(seq) FROM streams_in WHERE tier = ?"
_SENT: Final = "SELECT sum(seq) FROM streams_out WHERE tier = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one moment, in seconds since the site came back."""

    at: float
    waiting: Mapping[int, int]  # at the site, by tier
    delivered: int  # by the hub, with their outcome
    megabytes: Mapping[str, float]  # by agent
    done_in: float | None  # what the site says, seconds; None where it was not asked or cannot say

    @property
    def left(self) -> int:
        """How many the hub does not have."""
        return sum(self.waiting.values())


@dataclass(slots=True)
class Course:
    """How it went."""

    before: Mapping[str, float]  # MB by agent, at rest
    looks: list[Look] = field(default_factory=list)
    offered: dict[str, float] = field(default_factory=dict)  # fresh orders: when, monotonic


def main(arguments: Sequence[str]) -> None:
    """Run it. Exits with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.catching_up", description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=1_000_000, help="default %(default)s; 50000 is a minute")
    parser.add_argument("--under", type=Path, default=BUILD, help="a folder on a local disk; default %(default)s")
    options = parser.parse_args(arguments)
    with workspace(options.under) as folder:
        claims = asyncio.run(catch_up(folder, options.events))
    report(claims)


async def catch_up(folder: Path, events: int) -> list[Claim]:
    """Fill a site with so many events and let it catch up."""
    counts = {tier: round(events * share) for tier, share in _SHARES.items()}
    port = free_port()
    with open_partner(folder / "ledger.db") as partner:
        home = write_linked_estate(folder / "estate", url=partner.url, port=port)
        async with open_agent(home, HUB, data=home / HUB) as hub:
            enrol(hub.data, home / SITE, port=port)
        before = await _take_one_of_each_in(home)
        with _timed(f"filling the site with {events:,} events"):
            fill_streams(home / SITE / "distctl.db", counts)
        async with open_agent(home, HUB, data=home / HUB) as hub:
            course = Course(before | {HUB: hub.resident_megabytes()})
            with _timed("catching up"):
                await _follow(home, hub, course)
        return _judge(course, partner, events + len(counts) + len(course.offered))


async def _take_one_of_each_in(home: Path) -> dict[str, float]:
    """The first event of each tier, with the hub away; what the site holds in memory then."""
    async with open_agent(home, SITE, data=home / SITE) as site:
        for name in TIER_FLOWS.values():
            drop(home / name, name, orders(1))
        await until(lambda: site.sent() == len(TIER_FLOWS), "the first event of each tier is taken in")
        await asyncio.sleep(_LOOK_SECONDS)
        return {SITE: site.resident_megabytes()}


async def _follow(home: Path, hub: AgentProcess, course: Course) -> None:
    """Start the site and look on until everything has its outcome."""
    began = time.monotonic()
    async with open_agent(home, SITE, data=home / SITE) as site:
        while True:
            place, at = len(course.looks), time.monotonic()
            look = _look(site, hub, at - began, asks=place % _ETA_EVERY == 0)
            course.looks.append(look)
            if place % _SAID_EVERY == 0:
                _say(look)
            if look.left == 0 and look.delivered == site.sent():
                return
            if place % _FRESH_EVERY == 1 and look.left > 0:
                payloads = orders(1)
                [(number, _)] = numbered(payloads)
                course.offered[number] = drop(home / FLOW, number, payloads)
            await asyncio.sleep(max(at + _LOOK_SECONDS - time.monotonic(), 0.0))


def _look(site: AgentProcess, hub: AgentProcess, at: float, *, asks: bool) -> Look:
    return Look(
        at=at,
        waiting={tier: site.count(_SENT, tier) - hub.count(_RECEIVED, tier) for tier in TIER_FLOWS},
        delivered=hub.count("SELECT sum(delivered) FROM lanes"),
        megabytes={SITE: site.resident_megabytes(), HUB: hub.resident_megabytes()},
        done_in=_done_in(site) if asks else None,
    )


def _done_in(site: AgentProcess) -> float | None:
    """What `distctl agents list` says at the site of the way to its hub."""
    [row] = json.loads(distctl("--data", str(site.data), "agents", "list", "-o", "json"))
    seconds: float | None = row.get("done_in")
    return seconds


def _say(look: Look) -> None:
    waiting = ", ".join(f"{count:,} of tier {tier}" for tier, count in look.waiting.items())
    eta = "" if look.done_in is None else f"; {look.done_in / 60:.1f} min to go, it says"
    memory = ", ".join(f"{megabytes:.0f} MB at {agent}" for agent, megabytes in look.megabytes.items())
    told = f"{waiting} wait; {look.delivered:,} delivered; {memory}{eta}"
    print(f"{look.at:4.0f} s: {told}", file=sys.stderr, flush=True)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


# --- the judge ----------------------------------------------------------------------------------------------------


def _judge(course: Course, partner: Partner, expected: int) -> list[Claim]:
    return [
        _by_tier(course),
        *_memory(course),
        _estimate(course),
        _fresh(course, partner),
        whole_and_in_order(partner, expected),
    ]


def _by_tier(course: Course) -> Claim:
    drained = {tier: max(look.at for look in course.looks if look.waiting[tier] > 1) for tier in TIER_FLOWS}
    drained[1] = next(look.at for look in course.looks if look.waiting[1] <= 1)  # fresh ones come in later
    found = ", ".join(f"tier {tier} after {at:.0f} s" for tier, at in drained.items())
    return Claim(what="drains by tier", found=found, holds=list(drained.values()) == sorted(drained.values()))


def _memory(course: Course) -> Iterator[Claim]:
    quarter = max(len(course.looks) // 4, 1)
    for agent, before in course.before.items():
        held = [look.megabytes[agent] for look in course.looks]
        most, growth = max(held) - before, median(held[-quarter:]) - median(held[quarter : 2 * quarter] or held)
        yield Claim(
            what=f"memory of {agent} stays flat",
            found=f"{before:.0f} MB at rest, +{most:.0f} MB at most, {growth:+.0f} MB from the second quarter to the last",
            holds=most <= MEMORY_WHILE_BUSY and growth <= MEMORY_GROWTH,
        )


def _estimate(course: Course) -> Claim:
    """What was said halfway, or first where that was later, beside how long it took then."""
    end = max(look.at for look in course.looks if look.left > 0)
    said = [look for look in course.looks if look.done_in is not None]
    if not said:
        return Claim(what="says how long it will take", found="nothing was said", holds=False)
    look = max((one for one in said if one.at <= end / 2), key=lambda one: one.at, default=said[0])
    left, told = end - look.at, look.done_in or 0.0
    return Claim(
        what="says how long it will take",
        found=f"after {look.at:.0f} s of {end:.0f} s {told:.0f} s were told, {left:.0f} s it took",
        holds=left / 2 <= told <= left * 2,
    )


def _fresh(course: Course, partner: Partner) -> Claim:
    recorded = partner.times()
    took = [recorded[number] - at for number, at in course.offered.items()]
    return Claim(
        what=f"a fresh order of tier 1 passes within {FRESH_WITHIN:.0f} s",
        found=f"{len(took)} orders: median {median(took):.1f} s, at most {max(took):.1f} s",
        holds=max(took) <= FRESH_WITHIN,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
