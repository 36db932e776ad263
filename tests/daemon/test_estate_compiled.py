"""A compiled estate maps, keys, routes and renders."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from agent.estate.compiled import CompiledFlow, compile_estate
from agent.mapping import Document
from connectors.base import SourceRecord
from state.model.canonical.reading import parse
from state.model.errors import ConfigError, RejectedError
from state.model.estate import Estate
from state.model.event import Environment, Event, Op
from state.model.ids import EventId

FLOW: dict[str, Any] = {
    "flow": "reco",
    "owner": "planning",
    "source": {"system": "planning", "fields": {"id": "string", "sku": "string", "qty": "decimal", "day": "date"}},
    "contract": "replenishment-recommendation/1",
    "mapping": {
        "fields": {
            "reco_id": "record.id",
            "type": "'buy'",
            "status": "'proposed'",
            "sku": "record.sku",
            "supplier": "'S-1'",
            "to_loc": "'DC1'",
            "quantity": {"value": "record.qty", "unit": "'EA'"},
            "order_date": "record.day",
            "need_date": "add_days(record.day, 7)",
        }
    },
    "order": {"key": "record.sku + '/' + record.to_loc"},
    "targets": [
        {
            "system": "erp",
            "when": "record.quantity.value > 10 && event.op == 'snapshot'",
            "mapping": {"fields": {"ref": "event.subject", "qty": "record.quantity.value", "sku": "record.sku"}},
        },
        {"system": "north/archive"},
    ],
}


def estate(**changes: Any) -> Estate:
    system = {"connector": "files"}
    return Estate.model_validate(
        {
            "settings": {"name": "acme", "environment": "test", "currency": "EUR"},
            "sites": {"north": {"site": "north", "systems": {"planning": system, "erp": system, "archive": system}}},
            "flows": {"reco": {**FLOW, **changes}},
        }
    )


def compiled(**changes: Any) -> CompiledFlow:
    return compile_estate(estate(**changes)).flows["reco"]


def event(flow: CompiledFlow, qty: str) -> Event:
    fields = {"id": "R-1", "sku": "0012", "qty": qty, "day": "2026-02-26"}
    [made] = flow.documents([SourceRecord(position="1", place="line 2", fields=fields, raw=b"")])
    assert isinstance(made, Document)
    entity = parse(flow.spec.contract, made.data)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return flow.event(entity, identity=EventId("1" * 32), time=now, recorded=now)


def test_a_record_becomes_an_event_and_the_target_s_own_record() -> None:
    flow = compiled()
    made = event(flow, "12.50")
    assert made.partitionkey == "0012/DC1"
    assert orjson.loads(made.data)["need_date"] == "2026-03-05"
    assert flow.lanes[0].render(made) == b'{"ref":"R-1","qty":12.50,"sku":"0012"}'
    assert flow.lanes[1].render(made) == made.data
    assert [lane.name for lane in flow.lanes] == ["north/erp", "north/archive"]


def test_an_event_says_where_it_comes_from_and_which_estate_routes_it() -> None:
    made = event(compiled(op="command"), "12.50")
    assert (made.source, made.site, made.system, made.flow) == ("/north/planning", "north", "planning", "reco")
    assert (made.type, made.contract) == (
        "distctl.replenishment-recommendation.command",
        "replenishment-recommendation/1",
    )
    assert (made.op, made.environment, made.estate) == (Op.COMMAND, Environment.TEST, estate(op="command").hash)
    assert (made.subject, made.correlationid) == ("R-1", made.id)


def test_rendering_twice_gives_the_same_bytes() -> None:
    flow = compiled()
    made = event(flow, "12.50")
    assert flow.lanes[0].render(made) == compiled().lanes[0].render(made)


def test_a_condition_decides_whether_there_is_a_delivery() -> None:
    flow = compiled()
    assert [lane.wants(event(flow, "12.50")) for lane in flow.lanes] == [True, True]
    assert [lane.wants(event(flow, "9")) for lane in flow.lanes] == [False, True]
    assert not flow.lanes[0].wants(replace(event(flow, "12.50"), op=Op.CORRECTION))


def test_the_business_key_is_the_partition_key_where_the_flow_says_nothing() -> None:
    assert event(compiled(order={}), "1").partitionkey == "R-1"


@pytest.mark.parametrize("key", ["record.supplier + record.reason", "record.reason", "substring(record.sku, 0, 0)"])
def test_a_partition_key_that_is_none_is_a_rejection(key: str) -> None:
    with pytest.raises(RejectedError):
        event(compiled(order={"key": key}), "1")


def test_all_problems_of_an_estate_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"there is no system 'wms' \(and 1 more\)"):
        compile_estate(estate(targets=[{"system": "wms"}], order={"key": "record.skuu"}))


def test_a_target_s_mapping_does_not_group() -> None:
    grouped = {"fields": {"a": "record.sku"}, "group_by": ["record.sku"]}
    with pytest.raises(ConfigError, match="does not group"):
        compile_estate(estate(targets=[{"system": "erp", "mapping": grouped}]))
