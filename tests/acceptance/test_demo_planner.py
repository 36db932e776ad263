"""The planner's output is computed from real demand, and its own list of spoiled rows is exact."""

from __future__ import annotations

import asyncio
import csv
import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.simulators.folder import put_slowly
from connectors.simulators.history import FIRST_WEEK, WEEKS, bike_models, order_lines, weekly_demand
from connectors.simulators.inbox import Inbox
from connectors.simulators.ledger import rows
from connectors.simulators.planning import Planner, read_balance, read_confirmation, to_row
from connectors.simulators.planning_ledger import PlanningLedger
from connectors.simulators.replenishment import (
    SUPPLIERS,
    Recommendation,
    forecast,
    forecast_error,
    order_quantity,
    planning_runs,
    safety_stock,
)
from connectors.simulators.spoiling import CUT_SHORT, SPOILERS, Spoiler, write_csv


def all_runs() -> list[list[Recommendation]]:
    return list(planning_runs(weekly_demand(order_lines()), bike_models(), first_week=FIRST_WEEK, runs=WEEKS))


def test_the_demand_is_the_whole_of_the_published_data_set() -> None:
    lines = order_lines()
    assert len(lines) == 2466
    assert len({line.sku for line in lines}) == len(bike_models()) == 97
    assert len({line.shop for line in lines}) == 30
    demand = weekly_demand(lines)
    assert sum(map(sum, demand.pieces.values())) == sum(line.quantity for line in lines)
    assert {len(weeks) for weeks in demand.pieces.values()} == {52}


def test_the_forecast_is_the_mean_of_the_last_eight_weeks_and_knows_nothing_of_the_next() -> None:
    demand = [100, 1, 2, 3, 4, 1, 2, 3, 4, 1000]
    assert forecast(demand, 9) == 2.5


def test_a_steady_demand_needs_no_safety_stock_and_an_unsteady_one_does() -> None:
    assert safety_stock(forecast_error([3] * 20, 20), weeks=4) == 0
    assert safety_stock(2.0, weeks=4) == 7  # 1.645 x 2 x sqrt(4), rounded up


@pytest.mark.parametrize(("needed", "ordered"), [(-3, 0), (0, 0), (0.2, 4), (4.1, 6), (7, 8)])
def test_an_order_is_nothing_or_at_least_the_minimum_in_whole_multiples(needed: float, ordered: int) -> None:
    terms = replace(SUPPLIERS["Aluminum"], minimum=4, multiple=2)
    assert order_quantity(needed, terms) == ordered


def test_enough_is_planned_for_order_to_be_wrong() -> None:
    revisions = Counter(each.reco_id for run in all_runs() for each in run)
    assert sum(revisions.values()) >= 1000
    assert sum(count >= 5 for count in revisions.values()) >= 100
    assert max(map(len, revisions)) <= 64  # a code of the contract


def test_every_run_revises_by_one_and_needs_the_goods_after_it_orders_them() -> None:
    last: dict[str, int] = {}
    for each in (each for run in all_runs() for each in run):
        assert each.revision == last.get(each.reco_id, 0) + 1
        assert each.quantity > 0
        assert each.need_on >= each.order_on
        last[each.reco_id] = each.revision


def test_a_written_row_stands_on_the_line_that_the_list_says() -> None:
    rows_to_write = [to_row(each) for each in all_runs()[3]]
    spoiled = dict(enumerate(SPOILERS, start=2))
    content, written = write_csv(rows_to_write, {**spoiled, len(rows_to_write) - 1: CUT_SHORT})
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    assert any("out of stock" in line for line in lines), "no row has two lines, so lines and rows are the same"
    for each in written:
        assert lines[each.line - 1].startswith(each.row["reco_id"])
    assert {each.line for each in written if each.spoiler} == {written[index].line for index in (*spoiled, -1)}


@pytest.mark.parametrize("spoiler", SPOILERS, ids=lambda spoiler: spoiler.kind)
def test_each_spoiler_changes_the_row_it_spoils_and_no_other(spoiler: Spoiler) -> None:
    plain = [to_row(each) for each in all_runs()[0]][:3]
    clean = write_csv(plain, {})[0].split(b"RECO-")
    spoiled = write_csv(plain, {1: spoiler})[0].split(b"RECO-")
    assert [old == new for old, new in zip(clean, spoiled, strict=True)] == [True, True, False, True]


def test_a_file_that_is_cut_short_ends_inside_its_last_row() -> None:
    plain = [to_row(each) for each in all_runs()[0]][:3]
    content, _ = write_csv(plain, {2: CUT_SHORT})
    assert not content.endswith(b"\n")
    *whole, last = csv.reader(io.StringIO(content.decode(), newline=""))
    assert {len(row) for row in whole} == {13}
    assert len(last) == 4


async def publish(home: Path, seed: int = 1) -> list[tuple[object, ...]]:
    await asyncio.to_thread(home.mkdir)
    with PlanningLedger(home / "ledger.db") as ledger:
        await Planner(out=home, ledger=ledger, seed=seed, pause=0).publish()
    return rows(home / "ledger.db", "SELECT reco_id, revision, content, file, line, spoiled FROM planned ORDER BY 1, 2")


async def test_the_same_seed_publishes_the_same_and_another_spoils_other_rows(tmp_path: Path) -> None:
    one, again, other = await publish(tmp_path / "1"), await publish(tmp_path / "2"), await publish(tmp_path / "3", 7)
    assert one == again
    assert one != other
    assert [row[:3] for row in one] == [row[:3] for row in other]


async def test_the_planner_spoils_in_every_way_and_leaves_enough_keys_whole(tmp_path: Path) -> None:
    planned = await publish(tmp_path / "home")
    kinds = Counter(row[5] for row in planned if row[5])
    assert set(kinds) == {each.kind for each in (*SPOILERS, CUT_SHORT)}
    whole = Counter(row[0] for row in planned if not row[5])
    assert sum(count >= 5 for count in whole.values()) >= 100


async def test_the_planner_sends_files_twice_and_one_that_is_empty(tmp_path: Path) -> None:
    await publish(tmp_path / "home")
    contents = Counter(path.read_bytes() for path in (tmp_path / "home").glob("reco-*.csv"))
    assert contents[b""] == 1
    assert sum(count > 1 for count in contents.values()) >= 4


def test_the_inbox_takes_a_file_once_and_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "confirmations"
    folder.mkdir()
    said = '{"reference": "PO-1", "revision": 2, "ack": "accepted", "quantity": "6.0", "promised_on": "2011-05-02"}'
    (folder / "a.json").write_text(said)
    (folder / ".b.json.tmp").write_text("half")
    with PlanningLedger(tmp_path / "ledger.db") as ledger:
        inbox = Inbox({folder: read_confirmation}, ledger)
        inbox.take(folder)
        inbox.take(folder)
    assert rows(tmp_path / "ledger.db", "SELECT reference, number, content FROM taken") == [
        ("PO-1", 2, "accepted 6 on 2011-05-02")
    ]
    assert (folder / "taken" / "a.json").read_text() == said


def test_the_inbox_reads_files_of_one_clock_tick_by_the_number_inside(tmp_path: Path) -> None:
    folder = tmp_path / "stock"
    folder.mkdir()
    for name, number in (("a", 2), ("b", 1)):
        (folder / f"{name}.json").write_text(f'{{"sku": "X", "snapshot": {number}, "on_hand": 1}}')
        os.utime(folder / f"{name}.json", ns=(10**18, 10**18))
    with PlanningLedger(tmp_path / "ledger.db") as ledger:
        Inbox({folder: read_balance}, ledger).take(folder)
    assert rows(tmp_path / "ledger.db", "SELECT number FROM taken ORDER BY seq") == [(1,), (2,)]


def test_a_slow_file_is_seen_half_written(tmp_path: Path) -> None:
    sizes = asyncio.run(sizes_while_it_grows(tmp_path))
    assert len(sizes) > 5
    assert sorted(sizes) == sizes


async def sizes_while_it_grows(folder: Path) -> list[int]:
    path = folder / "slow.csv"
    writing = asyncio.ensure_future(put_slowly(path, b"x" * 1000, seconds=0.3))
    sizes: dict[int, None] = {}
    while not writing.done():
        await asyncio.sleep(0.01)
        sizes[len(await asyncio.to_thread(path.read_bytes))] = None
    return list(sizes)
