"""The judge finds what is planted: a rig that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.simulators import judge as judge_module
from connectors.simulators.cue import Cue
from connectors.simulators.erp_faults import Fault
from connectors.simulators.erp_ledger import ErpLedger
from connectors.simulators.history import FIRST_WEEK, WEEKS, bike_models, order_lines, weekly_demand
from connectors.simulators.inbox import Taken
from connectors.simulators.judge import Ledgers, Parked, Verdict, judge, spoiled_records
from connectors.simulators.ledger import rows
from connectors.simulators.planning import Planner
from connectors.simulators.planning_ledger import PlanningLedger, content_of
from connectors.simulators.replenishment import Recommendation, planning_runs
from connectors.simulators.shop import ShopLedger, sell
from connectors.simulators.wms import Warehouse, WmsLedger


class World:
    """Ledgers of a run in which everything went well, to plant something in."""

    def __init__(self, home: Path) -> None:
        self.ledgers = Ledgers(**{name: home / f"{name}.db" for name in ("planning", "erp", "wms", "shop")})
        self.home = home
        self.parked: list[Parked] = []

    async def publish(self) -> None:
        with PlanningLedger(self.ledgers.planning) as ledger:
            await Planner(out=self.home, ledger=ledger, seed=1, pause=0).publish()
        with WmsLedger(self.ledgers.wms) as wms:
            await Warehouse(out=self.home, ledger=wms, seed=1, pause=0).count()
        with ShopLedger(self.ledgers.shop) as shop:
            await sell(self.home, shop, pause=0, cue=Cue())

    def deliver(self) -> None:
        plans = {(each.reco_id, each.revision): each for each in all_recommendations()}
        valid = rows(self.ledgers.planning, "SELECT reco_id, revision FROM planned WHERE spoiled = '' ORDER BY rowid")
        with self.erp() as erp:
            for reco_id, revision in valid:
                erp.apply_order(order_of(plans[reco_id, revision]), f"{reco_id} {revision}", slow_by=0)
            for fault in Fault:
                erp.add_call("/stock", "any", fault)
        confirmed = rows(self.ledgers.erp, "SELECT po_no, revision, content FROM confirmations ORDER BY number")
        self.take("confirmation", confirmed)
        counted = rows(self.ledgers.wms, "SELECT sku, snapshot, content FROM counted WHERE spoiled = '' ORDER BY rowid")
        self.take("stock", counted)
        ordered = rows(self.ledgers.shop, "SELECT customer, number, content FROM ordered ORDER BY rowid")
        with WmsLedger(self.ledgers.wms) as wms:
            wms.take("file", documents("order", ordered))
        with self.erp() as erp:
            for sku, snapshot, on_hand in counted:
                erp.apply_stock({"sku": sku, "snapshot": snapshot, "on_hand": on_hand}, f"{sku} {snapshot}")
        self.parked = [
            Parked(file=each.file, line=each.line, rule="a rule", hint="a cure", text=f"field {each.field}")
            for each in spoiled_records(self.ledgers)
        ]

    def erp(self) -> ErpLedger:
        return ErpLedger(self.ledgers.erp, key_lifetime=timedelta(minutes=10))

    def take(self, kind: str, found: list[tuple[object, ...]]) -> None:
        with PlanningLedger(self.ledgers.planning) as planning:
            planning.take("file", documents(kind, found))

    def spoil(self, ledger: Path, statement: str) -> None:
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            assert connection.execute(statement).rowcount != 0

    def verdict(self) -> Verdict:
        return judge(self.ledgers, self.parked)

    def broken(self) -> list[str]:
        return [check.name for check in self.verdict().checks if not check.ok]


def documents(kind: str, found: Sequence[tuple[object, ...]]) -> list[Taken]:
    return [
        Taken(kind=kind, reference=str(reference), number=int(str(number)), content=str(content))
        for reference, number, content in found
    ]


def all_recommendations() -> list[Recommendation]:
    runs = planning_runs(weekly_demand(order_lines()), bike_models(), first_week=FIRST_WEEK, runs=WEEKS)
    return [each for run in runs for each in run]


def order_of(each: Recommendation) -> dict[str, object]:
    return {
        "reference": each.reco_id,
        "revision": each.revision,
        "sku": each.sku,
        "supplier": each.supplier,
        "quantity": f"{each.quantity}.0",
        "unit": "C62",
        "order_date": each.order_on.isoformat(),
        "need_date": each.need_on.isoformat(),
    }


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("good"))
    asyncio.run(world.publish())
    world.deliver()
    return world


@pytest.fixture
def world(good_run: World, tmp_path: Path) -> World:
    shutil.copytree(good_run.home, tmp_path, dirs_exist_ok=True)
    world = World(tmp_path)
    world.parked = good_run.parked
    return world


def test_a_good_run_passes_and_adds_up(world: World) -> None:
    assert world.broken() == []
    verdict = world.verdict()
    recommendations = verdict.tallies[0]
    assert recommendations.delivered == recommendations.planned - recommendations.injected_bad
    assert verdict.parked == recommendations.injected_bad > 40
    assert judge_module.is_published(world.ledgers)


LAST_ORDER = "(SELECT max(seq) FROM applied WHERE kind = 'order')"
TWICE = "orders to the warehouse: none twice"
SOME_KEY = "(SELECT reference FROM applied WHERE kind = 'order' GROUP BY reference HAVING count(*) > 5 LIMIT 1)"


@pytest.mark.parametrize(
    ("ledger", "statement", "claim"),
    [
        ("erp", f"DELETE FROM applied WHERE seq = {LAST_ORDER}", "recommendations to the ERP: none lost"),
        (
            "erp",
            f"INSERT INTO applied SELECT 99999, kind, reference, number, content, 'k', at FROM applied WHERE seq = {LAST_ORDER}",
            "recommendations to the ERP: none twice",
        ),
        (
            "erp",
            f"UPDATE applied SET number = 100 - number WHERE kind = 'order' AND reference = {SOME_KEY}",
            "recommendations to the ERP: none out of order",
        ),
        (
            "erp",
            f"UPDATE applied SET content = content || '0' WHERE seq = {LAST_ORDER}",
            "recommendations to the ERP: none altered",
        ),
        (
            "planning",
            "DELETE FROM taken WHERE seq = (SELECT max(seq) FROM taken WHERE kind = 'confirmation')",
            "confirmations to planning: none lost",
        ),
        (
            "planning",
            "DELETE FROM taken WHERE seq = (SELECT max(seq) FROM taken WHERE kind = 'stock')",
            "stock to planning: none lost",
        ),
        (
            "erp",
            "DELETE FROM applied WHERE seq = (SELECT max(seq) FROM applied WHERE kind = 'stock')",
            "stock to the ERP: none lost",
        ),
        (
            "planning",
            "INSERT INTO taken SELECT 99999, kind, reference, number, content, file, at FROM taken WHERE kind = 'stock' LIMIT 1",
            "stock to planning: none twice",
        ),
        (
            "wms",
            "DELETE FROM taken WHERE seq = (SELECT max(seq) FROM taken)",
            "orders to the warehouse: none lost",
        ),
        ("wms", "INSERT INTO taken SELECT 99999, kind, reference, number, content, file, at FROM taken LIMIT 1", TWICE),
        ("wms", "UPDATE taken SET number = 1 - number WHERE number > 1", "orders to the warehouse: none out of order"),
        ("erp", "DELETE FROM calls WHERE fault LIKE 'landed%'", "the ERP misbehaved in every way it can"),
        ("planning", "DELETE FROM planned WHERE revision > 4", "at least 100 keys with 5 or more revisions"),
        ("planning", "DELETE FROM planned WHERE revision > 4", "at least 1000 recommendations planned"),
    ],
)
def test_what_is_planted_in_a_ledger_is_found(world: World, ledger: str, statement: str, claim: str) -> None:
    world.spoil(getattr(world.ledgers, ledger), statement)
    assert claim in world.broken()


def test_a_balance_that_passed_a_line_that_was_cut_is_counted(world: World) -> None:
    counted, arrived = judge_module.balances_since(world.ledgers, 0)
    assert counted == arrived > 500
    world.spoil(world.ledgers.erp, "DELETE FROM applied WHERE kind = 'stock'")
    world.spoil(world.ledgers.planning, "DELETE FROM taken WHERE kind = 'stock'")
    assert judge_module.balances_since(world.ledgers, 0) == (counted, 0)


def test_an_older_balance_that_was_passed_over_is_not_lost(world: World) -> None:
    statement = "DELETE FROM applied WHERE kind = 'stock' AND number = 1 AND reference IN"
    several = "(SELECT reference FROM applied WHERE kind = 'stock' GROUP BY reference HAVING count(*) > 2)"
    world.spoil(world.ledgers.erp, f"{statement} {several}")
    assert world.broken() == []


@pytest.mark.parametrize(
    ("plant", "claim"),
    [
        (lambda parked: parked[1:], "every spoiled record is parked, by file and line"),
        (lambda parked: [*parked, parked[0]], "no valid record is parked"),
        (lambda parked: [replace(parked[0], line=9999), *parked[1:]], "no valid record is parked"),
        (lambda parked: [replace(parked[0], hint=""), *parked[1:]], "each parked record says rule and cure"),
        (
            lambda parked: [replace(each, text="") for each in parked],
            "each parked record names the field that was spoiled",
        ),
    ],
)
def test_a_wrong_list_of_parked_records_is_found(
    world: World, plant: Callable[[list[Parked]], list[Parked]], claim: str
) -> None:
    world.parked = plant(world.parked)
    assert claim in world.broken()


def test_contents_are_compared_by_value_and_not_by_spelling() -> None:
    assert content_of("X", "S", "6.00", "2011-01-03") == content_of("X", "S", 6, "2011-01-03")
    assert content_of("X", "S", 60, "2011-01-03") != content_of("X", "S", 6, "2011-01-03")
