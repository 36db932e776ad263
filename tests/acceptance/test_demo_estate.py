"""The demo's estate: nothing to complain of, and it takes every valid row and refuses every spoiled one by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.estate.check import check
from agent.estate.compiled import CompiledFlow, compile_estate
from agent.estate.load import load
from connectors.base import SourceRecord
from connectors.formats.codec import decode
from connectors.formats.records import BadRecord
from connectors.formats.settings import CsvSettings, JsonLinesSettings
from connectors.simulators.cue import Cue
from connectors.simulators.judge import Ledgers, Spoiled, spoiled_records
from connectors.simulators.planning import Planner
from connectors.simulators.planning_ledger import PlanningLedger
from connectors.simulators.shop import ShopLedger, sell
from connectors.simulators.stage import write_estate
from connectors.simulators.wms import Warehouse, WmsLedger
from state.model.canonical.reading import parse
from state.model.errors import RejectedError


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Ledgers:
    home = tmp_path_factory.mktemp("published")
    ledgers = Ledgers(planning=home / "planning.db", erp=home / "erp.db", wms=home / "wms.db", shop=home / "shop.db")
    asyncio.run(publish(home, ledgers))
    return ledgers


async def publish(home: Path, ledgers: Ledgers) -> None:
    with PlanningLedger(ledgers.planning) as planning, WmsLedger(ledgers.wms) as wms, ShopLedger(ledgers.shop) as shop:
        await Planner(out=home, ledger=planning, seed=1, pause=0).publish()
        await Warehouse(out=home, ledger=wms, seed=1, pause=0).count()
        await sell(home, shop, pause=0, cue=Cue())


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("stage")
    write_estate(home / "estate", erp_url="http://127.0.0.1:8071", hub_port=7443)
    return home / "estate"


def test_check_finds_nothing_in_the_estate(estate: Path) -> None:
    assert check(estate) == []


def test_check_reads_the_samples(estate: Path) -> None:
    sample = estate / "samples" / "reco.csv"
    before = sample.read_text()
    sample.write_text(before.replace("C62", "FURLONG", 1))
    try:
        assert [Path(finding.file).name for finding in check(estate)] == ["reco.csv"]
    finally:
        sample.write_text(before)


@pytest.mark.parametrize(
    ("flow", "pattern", "form"),
    [
        ("recommendations", "reco-2011-*.csv", CsvSettings()),
        ("stock", "stock-0*.jsonl", JsonLinesSettings()),
        ("sales-orders", "orders-*.jsonl", JsonLinesSettings()),
    ],
)
def test_exactly_the_spoiled_records_are_refused_and_each_complaint_names_its_field(
    published: Ledgers, estate: Path, flow: str, pattern: str, form: Any
) -> None:
    refused = {
        (path.name, line): complaint
        for path in published.planning.parent.glob(pattern)
        for line, complaint in refusals(compiled(estate, flow), path, form)
    }
    spoiled = {(each.file, each.line): each for each in spoiled_records(published) if in_flow(each, flow)}
    assert refused.keys() == spoiled.keys()
    assert [(place, refused[place]) for place, each in spoiled.items() if each.field not in refused[place]] == []


def in_flow(spoiled: Spoiled, flow: str) -> bool:
    return spoiled.file.startswith({"recommendations": "reco", "stock": "stock", "sales-orders": "orders"}[flow])


def compiled(estate: Path, flow: str) -> CompiledFlow:
    loaded = load(estate).estate
    assert loaded is not None
    return compile_estate(loaded).flows[flow]


def refusals(flow: CompiledFlow, path: Path, form: Any) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    with path.open("rb") as file:
        for record in decode(file, form):
            if isinstance(record, BadRecord):
                found.append((record.line, f"{record.rule} {record.field}"))
                continue
            row = SourceRecord(position=str(record.number), place="", fields=record.fields, raw=record.raw)
            for made in flow.documents([row]):
                try:
                    if hasattr(made, "error"):
                        raise made.error
                    parse(flow.spec.contract, made.data)
                except RejectedError as error:
                    found.append((record.line, f"{error.place} {error.message}"))
    return found
