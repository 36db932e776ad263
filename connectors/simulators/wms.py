"""The warehouse system: a process that writes what it counted as files of JSON lines, and takes customers' orders from its inbox.

Its stock is what the shops' real orders leave of it; it writes the balances that a week changed. Some lines are spoiled; files
grow, come twice or are empty. A balance is in its ledger before the file can be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from connectors.simulators.cue import Cue
from connectors.simulators.folder import put_atomic, put_slowly, put_whole
from connectors.simulators.history import FIRST_WEEK, WEEKS, WeeklyDemand, order_lines, weekly_demand
from connectors.simulators.inbox import Inbox, InboxLedger, Taken
from connectors.simulators.ledger import now
from connectors.simulators.service import report_ready, run_until_told
from connectors.simulators.shop import order_content

LOCATION: Final = "DC-NORTH"
SPOILED: Final[Mapping[str, str]] = {  # how a line is spoiled: the field that the complaint must name
    "": "",
    "a word for a number": "on_hand",
    "no JSON": "",
    "a unit that is none": "unit",
    "no sku": "sku",
}
SPOILED_WEEKS: Final[Mapping[int, str]] = {
    2: "a word for a number",
    5: "no JSON",
    7: "a unit that is none",
    9: "no sku",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What was counted of a sku; `snapshot` counts from 1 for each sku."""

    sku: str
    snapshot: int
    on_hand: int
    counted_at: datetime


class WmsLedger(InboxLedger):
    """What the warehouse counted and in which file it said so; and the orders that it took."""

    schema = f"""{InboxLedger.schema}
        CREATE TABLE IF NOT EXISTS counted (
            sku TEXT, snapshot INTEGER, content TEXT, file TEXT, line INTEGER, spoiled TEXT,
            spoiled_field TEXT, at REAL,
            PRIMARY KEY (sku, snapshot)
        ) STRICT;
        CREATE TABLE IF NOT EXISTS finished (at REAL) STRICT;
    """

    def add_counted(self, file: str, balances: Iterable[tuple[int, Balance, str]]) -> None:
        """The lines of one file: line, balance, how it was spoiled or nothing."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO counted VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(balance.sku, balance.snapshot, str(balance.on_hand)),
                        file,
                        line,
                        spoiled,
                        SPOILED[spoiled],
                        now(),
                    )
                    for line, balance, spoiled in balances
                ],
            )

    def finish(self) -> None:
        """Every week was counted."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO finished VALUES (?)", (now(),))


def counts(demand: WeeklyDemand, *, first_week: int, weeks: int) -> Iterator[list[Balance]]:
    """The balances that each week changed. The stock opens at ten weeks of demand; every fifth week brings five more."""
    stock = {sku: _weeks_of(pieces, first_week, 10) for sku, pieces in demand.pieces.items()}
    snapshots = dict.fromkeys(stock, 0)
    for week in range(first_week, first_week + weeks):
        changed = []
        for sku, pieces in sorted(demand.pieces.items()):
            left = max(0, stock[sku] - pieces[week]) + (_weeks_of(pieces, week, 5) if week % 5 == 0 else 0)
            if left != stock[sku] or not snapshots[sku]:
                stock[sku] = left
                snapshots[sku] += 1
                changed.append(_balance(demand, week, sku, snapshots[sku], left))
        yield changed


def _balance(demand: WeeklyDemand, week: int, sku: str, snapshot: int, left: int) -> Balance:
    friday = demand.monday(week) + timedelta(days=4)
    return Balance(sku=sku, snapshot=snapshot, on_hand=left, counted_at=datetime.combine(friday, time(18), UTC))


def _weeks_of(pieces: Sequence[int], week: int, weeks: int) -> int:
    return math.ceil(sum(pieces[:week]) / week * weeks)


def to_line(balance: Balance, spoiled: str) -> str:
    """One line of the warehouse's file."""
    record: dict[str, Any] = {
        "sku": balance.sku,
        "location": LOCATION,
        "counted_at": balance.counted_at.isoformat(),
        "snapshot": balance.snapshot,
        "on_hand": balance.on_hand,
        "unit": "C62",
        "status": "available",
    }
    match spoiled:
        case "a word for a number":
            record["on_hand"] = "a few"
        case "a unit that is none":
            record["unit"] = "FURLONG"
        case "no sku":
            del record["sku"]
        case "no JSON":
            return json.dumps(record).replace('"on_hand":', '"on_hand"')
    return json.dumps(record)


class Warehouse:
    """Writes every week's changes once."""

    def __init__(self, *, out: Path, ledger: WmsLedger, seed: int, pause: float, cue: Cue | None = None) -> None:
        self._out = out
        self._ledger = ledger
        self._dice = random.Random(f"wms {seed}")
        self._pause = pause
        self._cue = cue or Cue()

    async def count(self) -> None:
        """All weeks, `pause` seconds apart."""
        weeks = counts(weekly_demand(order_lines()), first_week=FIRST_WEEK, weeks=WEEKS)
        for number, balances in enumerate(weeks):
            await self._cue.wait_for(number)
            await self._write(number, balances)
            await asyncio.sleep(self._pause)
        self._ledger.finish()

    async def _write(self, number: int, balances: Sequence[Balance]) -> None:
        file = f"stock-{number:04}.jsonl"
        spoiled = {self._dice.randrange(len(balances)): SPOILED_WEEKS[number]} if number in SPOILED_WEEKS else {}
        marked = [(index + 1, balance, spoiled.get(index, "")) for index, balance in enumerate(balances)]
        content = "".join(f"{to_line(balance, how)}\n" for _, balance, how in marked).encode()
        self._ledger.add_counted(file, marked)
        await self._put(number, self._out / file, content)

    async def _put(self, number: int, path: Path, content: bytes) -> None:
        match number % 3:
            case 0:
                put_atomic(path, content)
            case 1:
                await put_slowly(path, content, seconds=self._pause / 2)
            case _:
                put_whole(path, content)
                await asyncio.sleep(self._pause / 2)
                put_atomic(path.with_name(f"stock-again-{path.name}"), content)


def read_order(document: Mapping[str, Any]) -> Taken:
    """What a customer ordered."""
    return Taken(
        kind="order",
        reference=document["customer"],
        number=int(document["number"]),
        content=order_content((line["sku"], int(line["pieces"])) for line in document["lines"]),
    )


async def main(arguments: argparse.Namespace) -> None:
    """Count and take orders until told to end."""
    out = arguments.home / "out"
    out.mkdir(parents=True, exist_ok=True)
    with WmsLedger(arguments.ledger) as ledger:
        warehouse = Warehouse(
            out=out, ledger=ledger, seed=arguments.seed, pause=arguments.pause, cue=Cue(arguments.cue)
        )
        watching = Inbox({arguments.home / "in": read_order}, ledger).watch()
        report_ready(arguments.ready)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(warehouse.count())
            tasks.create_task(watching)


def parse_arguments() -> argparse.Namespace:
    """The command line of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="holds out/ and in/")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--cue", type=Path, help="how many weeks may be counted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two weeks")
    return parser.parse_args()


if __name__ == "__main__":
    run_until_told(main(parse_arguments()))
