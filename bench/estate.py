"""The estate of the bench, written as a user writes one: a folder to watch, an HTTP target, orders with lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

SITE: Final = "north"
HUB: Final = "hq"
FLOW: Final = "purchase-orders"
HOT_FLOW: Final = "supplier-orders"
"""The same orders, kept in order by supplier: every one waits behind the one before."""

IDLE_FLOW: Final = "spare-orders"
"""Orders that go to a target which is down."""

TIER_FLOWS: Final = {1: FLOW, 2: "stock-orders", 3: "forecast-orders"}
"""Orders of each tier."""

BATCH: Final = 1000
"""Orders that are committed together: as many as the bare side commits."""

_FIELDS: Final = {
    "po_no": "string",
    "order_date": "date",
    "buyer": "string",
    "supplier": "string",
    "ship_to": "string",
    "currency": "string",
    "terms": "string",
    "lines": "list",
}
_MAPPING: Final = {
    "fields": {
        "po_no": "record.po_no",
        "purpose": "'original'",
        "order_date": "record.order_date",
        "buyer": "record.buyer",
        "supplier": "record.supplier",
        "ship_to": "record.ship_to",
        "currency": "record.currency",
        "terms": "record.terms",
    },
    "lines": {
        "line_no": "line.line_no",
        "sku": "line.sku",
        "description": "line.description",
        "quantity": {"value": "line.qty", "unit": "line.uom"},
        "price": {"amount": "line.price", "currency": "record.currency"},
        "need_date": "line.need_date",
    },
}


def write_estate(folder: Path, *, url: str) -> Path:
    """Write the estate into `folder`, which it makes; its orders go to the partner at `url`."""
    systems = {"planning": {"connector": "files"}, "erp": _erp(url), "old-erp": _erp(url)}
    hot = _flow(HOT_FLOW, "old-erp") | {"order": {"key": "record.supplier"}}
    return _write(folder, {SITE: systems}, {FLOW: _flow(FLOW, "erp"), HOT_FLOW: hot})


def write_linked_estate(folder: Path, *, url: str, port: int) -> Path:
    """The same in two agents: files arrive at the site; the hub, which listens at `port`, has the partner at `url` and one that
    is down.

    `TIER_FLOWS` go to the partner, `IDLE_FLOW` to the one that is down. A flow is read from the folder of its name.
    """
    targets = {tier: f"erp-{tier}" for tier in TIER_FLOWS}  # one each, since one target takes one entity in one tier
    systems = {
        SITE: {"planning": {"connector": "files"}},
        HUB: {"old-erp": _erp("http://127.0.0.1:9")} | {target: _erp(url) for target in targets.values()},
    }
    tiers = {name: _flow(name, targets[tier], tier=tier) for tier, name in TIER_FLOWS.items()}
    flows = tiers | {IDLE_FLOW: _flow(IDLE_FLOW, "old-erp")}
    hub = {"site": HUB, "url": f"https://127.0.0.1:{port}", "listen": f"127.0.0.1:{port}"}
    return _write(folder, systems, flows, hub=hub)


def write_fleet_estate(folder: Path, *, url: str, port: int, sites: Sequence[str]) -> Path:
    """An estate of many sites, each with a flow of its name whose orders go to the one partner that the hub has."""
    systems = {site: {"planning": {"connector": "files"}} for site in sites} | {HUB: {"erp": _erp(url)}}
    flows = {site: _flow(site, "erp", site=site) | {"order": {"domain": "orders"}} for site in sites}
    hub = {"site": HUB, "url": f"https://127.0.0.1:{port}", "listen": f"127.0.0.1:{port}"}
    return _write(folder, systems, flows, hub=hub)


def _write(folder: Path, systems: Mapping[str, Any], flows: Mapping[str, dict[str, Any]], **settings: object) -> Path:
    files = {
        "estate.yaml": {"name": "acme", "environment": "test", "currency": "EUR", **settings},
        **{f"sites/{site}.yaml": {"site": site, "systems": own} for site, own in systems.items()},
        **{f"flows/{name}.yaml": flow for name, flow in flows.items()},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    for flow in flows.values():
        (folder / flow["source"]["settings"]["folder"]).mkdir()
    return folder


def drop(folder: Path, name: str, payloads: list[bytes]) -> float:
    """Leave a file of orders in the watched folder; the marker makes it complete, in the moment that is returned (monotonic)."""
    (folder / f"{name}.jsonl").write_bytes(b"\n".join(payloads) + b"\n")
    offered = time.monotonic()
    (folder / f"{name}.jsonl.done").touch()
    return offered


def _flow(name: str, target: str, *, tier: int = 1, site: str = "") -> dict[str, Any]:
    return {
        "flow": name,
        "owner": "planning@acme.example",
        "tier": tier,
        "source": {
            "system": f"{site}/planning" if site else "planning",
            "settings": {
                "folder": name,
                "pattern": "*.jsonl",
                "format": {"kind": "json-lines"},
                "guard": {"kind": "done-marker"},
                "batch": BATCH,
            },
            "fields": _FIELDS,
        },
        "contract": "purchase-order/1",
        "mapping": _MAPPING,
        "targets": [{"system": target, "settings": {"path": "/orders", "batch": {}}}],
    }


def _erp(url: str) -> dict[str, Any]:
    return {
        "connector": "http",
        "settings": {"base_url": url},
        "memory": {"key_lifetime": "24h", "lands_within": "5s"},
        "limits": {"in_flight": 2, "batch": 500, "deadline": "10s"},
    }
