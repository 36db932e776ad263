"""The planning system: a process that drops recommendations as files and reads what comes back from its inbox.

It publishes one CSV file a planning run, in the order of the runs, each in another manner: written at once, growing slowly,
under a temporary name, renamed later. Some rows are spoiled, some files come twice or are empty. What it planned is in its
ledger before the file can be seen.

Order: a run's file is complete before the next one begins.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from connectors.simulators.cue import Cue
from connectors.simulators.folder import put_atomic, put_slowly, put_then_rename, put_whole
from connectors.simulators.history import FIRST_WEEK, WEEKS, bike_models, order_lines, weekly_demand
from connectors.simulators.inbox import Inbox, Taken
from connectors.simulators.planning_ledger import PlanningLedger, plain
from connectors.simulators.replenishment import Recommendation, planning_runs
from connectors.simulators.service import report_ready, run_until_told
from connectors.simulators.spoiling import SPOILERS, Row, choose, write_csv

SPOILED_IN_A_RUN: Final = 4
CUT_SHORT_RUNS: Final = frozenset({3, 8})


class Planner:
    """Publishes every run once."""

    def __init__(self, *, out: Path, ledger: PlanningLedger, seed: int, pause: float, cue: Cue | None = None) -> None:
        self._out = out
        self._ledger = ledger
        self._dice = random.Random(f"planning {seed}")
        self._pause = pause
        self._cue = cue or Cue()

    async def publish(self) -> None:
        """All planning runs, `pause` seconds apart."""
        runs = planning_runs(weekly_demand(order_lines()), bike_models(), first_week=FIRST_WEEK, runs=WEEKS)
        for number, recommendations in enumerate(runs):
            await self._cue.wait_for(number)
            await self._publish_run(number, recommendations)
            await asyncio.sleep(self._pause)
        self._ledger.finish()

    async def _publish_run(self, number: int, recommendations: Sequence[Recommendation]) -> None:
        file = f"reco-{recommendations[0].run}.csv"
        spoilers = [SPOILERS[(number * SPOILED_IN_A_RUN + step) % len(SPOILERS)] for step in range(SPOILED_IN_A_RUN)]
        spoiled = choose(len(recommendations), spoilers=spoilers, cut_short=number in CUT_SHORT_RUNS, dice=self._dice)
        content, written = write_csv([to_row(each) for each in recommendations], spoiled)
        self._ledger.add_planned(file, zip(recommendations, written, strict=True))
        await self._put(number, file, content)

    async def _put(self, number: int, file: str, content: bytes) -> None:
        path = self._out / file
        match number % 4:
            case 0:
                self._ledger.add_published(file, "atomic")
                put_atomic(path, content)
            case 1:
                self._ledger.add_published(file, "slowly")
                await put_slowly(path, content, seconds=self._pause)
            case 2:
                self._ledger.add_published(file, "at once")
                put_whole(path, content)
            case _:
                self._ledger.add_published(file, "again under another name")
                put_atomic(path, content)
                await asyncio.sleep(self._pause / 2)
                put_atomic(path.with_name(f"reco-copy-of-{file}"), content)
        await self._disturb(number, path, content)

    async def _disturb(self, number: int, path: Path, content: bytes) -> None:
        """What careless systems do beside their work."""
        if number == 4:
            self._ledger.add_published("reco-empty.csv", "empty")
            put_whole(path.with_name("reco-empty.csv"), b"")
        if number == 6:
            self._ledger.add_published(path.name, "again under its own name")
            put_atomic(path, content)
        if number == 9:
            self._ledger.add_published(f"reco-again-{path.name}", "again, and renamed while it lies there")
            await put_then_rename(
                path.with_name(f"reco-again-{path.name}"), content, first_name=f"reco-draft-{path.name}", after=0.05
            )


def to_row(recommendation: Recommendation) -> Row:
    """The columns of the planner's file."""
    return {
        "reco_id": recommendation.reco_id,
        "revision": str(recommendation.revision),
        "run": recommendation.run,
        "sku": recommendation.sku,
        "supplier": recommendation.supplier,
        "qty": str(recommendation.quantity),
        "uom": "C62",  # UN/ECE Rec 20: one, a piece
        "order_date": recommendation.order_on.isoformat(),
        "need_date": recommendation.need_on.isoformat(),
        "on_hand": str(recommendation.on_hand),
        "forecast": recommendation.forecast,
        "safety_stock": str(recommendation.safety_stock),
        "reason": _reason(recommendation),
    }


def read_confirmation(document: Mapping[str, Any]) -> Taken:
    """What the ERP confirms of an order."""
    return Taken(
        kind="confirmation",
        reference=document["reference"],
        number=int(document["revision"]),
        content=f"{document['ack']} {plain(document['quantity'])} on {document['promised_on']}",
    )


def read_balance(document: Mapping[str, Any]) -> Taken:
    """What the warehouse has of a sku."""
    return Taken(
        kind="stock",
        reference=document["sku"],
        number=int(document["snapshot"]),
        content=plain(document["on_hand"]),
    )


def _reason(recommendation: Recommendation) -> str:
    if recommendation.on_hand == 0:
        return "out of stock:\nask the supplier to hurry"  # two lines in one enclosed field
    return f'{recommendation.on_hand} on hand, {recommendation.safety_stock} of safety stock, "A" item'


async def main(arguments: argparse.Namespace) -> None:
    """Publish and read until told to end."""
    out, inbox = arguments.home / "out", arguments.home / "in"
    out.mkdir(parents=True, exist_ok=True)
    with PlanningLedger(arguments.ledger) as ledger:
        planner = Planner(out=out, ledger=ledger, seed=arguments.seed, pause=arguments.pause, cue=Cue(arguments.cue))
        readers = {inbox / "confirmations": read_confirmation, inbox / "stock": read_balance}
        watching = Inbox(readers, ledger).watch()
        report_ready(arguments.ready)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(planner.publish())
            tasks.create_task(watching)


def parse_arguments() -> argparse.Namespace:
    """The command line of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="holds out/ and in/")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--cue", type=Path, help="how many runs may be published")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two planning runs")
    return parser.parse_args()


if __name__ == "__main__":
    run_until_told(main(parse_arguments()))
