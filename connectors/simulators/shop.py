"""The web shop: a process that writes the real orders of its customers as files, week by week.

A customer's orders are numbered, and the warehouse must get them in that order. An order is in the shop's ledger before its file
can be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from connectors.simulators.cue import Cue
from connectors.simulators.folder import put_atomic
from connectors.simulators.history import FIRST_WEEK, WEEKS, OrderLine, order_lines, weekly_demand
from connectors.simulators.ledger import Ledger, now
from connectors.simulators.service import report_ready, run_until_told

_NO_CODE: Final = re.compile(r"[^A-Z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopOrder:
    """One order; `number` counts those of its customer from 1. `lines` are sku and pieces."""

    customer: str
    number: int
    ordered_on: date
    lines: Sequence[tuple[str, int]]

    @property
    def so_no(self) -> str:
        """What people call it."""
        return f"SO-{self.customer}-{self.number}"


class ShopLedger(Ledger):
    """Which orders the shop took, and in which file it said so."""

    schema = """
        CREATE TABLE IF NOT EXISTS ordered (
            customer TEXT, number INTEGER, content TEXT, file TEXT, at REAL,
            PRIMARY KEY (customer, number)
        ) STRICT;
        CREATE TABLE IF NOT EXISTS finished (at REAL) STRICT;
    """

    def add_ordered(self, file: str, orders: Iterable[ShopOrder]) -> None:
        """The orders of one file."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO ordered VALUES (?, ?, ?, ?, ?)",
                [(each.customer, each.number, order_content(each.lines), file, now()) for each in orders],
            )

    def finish(self) -> None:
        """Every week was sold."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO finished VALUES (?)", (now(),))


def order_content(lines: Iterable[tuple[str, int]]) -> str:
    """What must arrive unchanged, as one line that ledgers are compared by."""
    return ", ".join(f"{pieces} {sku}" for sku, pieces in lines)


def orders_by_week(lines: Sequence[OrderLine], *, first_week: int, weeks: int) -> Iterator[list[ShopOrder]]:
    """What was ordered in each week: the lines of one customer and day are one order."""
    first_monday = weekly_demand(lines).first_monday
    placed: defaultdict[tuple[date, str], list[tuple[str, int]]] = defaultdict(list)
    for line in lines:
        placed[line.ordered_on, _NO_CODE.sub("-", line.shop.upper())].append((line.sku, line.quantity))
    numbers: defaultdict[str, int] = defaultdict(int)
    for week in range(first_week, first_week + weeks):
        monday = first_monday + timedelta(weeks=week)
        orders = []
        for (day, customer), content in sorted(placed.items()):
            if monday <= day < monday + timedelta(weeks=1):
                numbers[customer] += 1
                orders.append(ShopOrder(customer=customer, number=numbers[customer], ordered_on=day, lines=content))
        yield orders


def to_line(order: ShopOrder) -> str:
    """One line of the shop's file."""
    return json.dumps(
        {
            "so_no": order.so_no,
            "customer": order.customer,
            "number": order.number,
            "ordered_on": order.ordered_on.isoformat(),
            "lines": [{"sku": sku, "pieces": pieces} for sku, pieces in order.lines],
        }
    )


async def sell(out: Path, ledger: ShopLedger, *, pause: float, cue: Cue) -> None:
    """All weeks, `pause` seconds apart."""
    for week, orders in enumerate(orders_by_week(order_lines(), first_week=FIRST_WEEK, weeks=WEEKS)):
        await cue.wait_for(week)
        file = f"orders-{week:04}.jsonl"
        ledger.add_ordered(file, orders)
        put_atomic(out / file, "".join(f"{to_line(order)}\n" for order in orders).encode())
        await asyncio.sleep(pause)
    ledger.finish()


async def main(arguments: argparse.Namespace) -> None:
    """Sell, then stay until told to end."""
    out = arguments.home / "out"
    out.mkdir(parents=True, exist_ok=True)
    with ShopLedger(arguments.ledger) as ledger:
        report_ready(arguments.ready)
        await sell(out, ledger, pause=arguments.pause, cue=Cue(arguments.cue))
        await asyncio.Event().wait()


def parse_arguments() -> argparse.Namespace:
    """The command line of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="holds out/")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--cue", type=Path, help="how many weeks may be published")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two weeks")
    return parser.parse_args()


if __name__ == "__main__":
    run_until_told(main(parse_arguments()))
