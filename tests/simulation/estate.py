"""The estate of the simulation: a hub and three sites, flows between all of them, of each tier and order.

Each system remembers in its own way: `SYSTEMS` says how. Records are small and mapped by plain paths,
since what is tried is what becomes of events, and not what is in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate.known import KnownEstates
from state import estates
from state.model.delivery import OrderMode
from state.model.estate import Estate
from state.model.ids import EstateHash

HUB: Final = "hq"
SITES: Final = ("hq", "north", "south", "east")

LANDS_WITHIN: Final = 4.0
"""Seconds that a call may land late, at every target."""

DEADLINE: Final = 6.0
"""Seconds that one call to a target may take."""


@dataclass(frozen=True, slots=True)
class SystemKind:
    """What a system declares of its memory."""

    key_lifetime: float  # seconds; 0: not at all
    can_probe: bool
    batch: int = 5
    in_flight: int = 1


_FAITHFUL: Final = SystemKind(30 * 86_400, can_probe=True)
_FORGETFUL: Final = SystemKind(20, can_probe=True, batch=1)
_ASKED: Final = SystemKind(0, can_probe=True, in_flight=2)
_BLIND: Final = SystemKind(30 * 86_400, can_probe=False)

SYSTEMS: Final[Mapping[str, SystemKind]] = {
    "hq/erp": _FAITHFUL,
    "hq/books": _FAITHFUL,
    "north/planning": _FAITHFUL,
    "south/wms": _FORGETFUL,
    "south/yard": _ASKED,
    "east/carrier": _FAITHFUL,
    "east/scale": _BLIND,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A flow of the simulation."""

    source: str
    targets: tuple[str, ...]
    tier: int
    order: OrderMode


ROUTES: Final[Mapping[str, Route]] = {
    "recos": Route("north/planning", ("hq/erp", "south/yard"), 1, OrderMode.STRICT),
    "bulk": Route("north/planning", ("east/carrier",), 3, OrderMode.ANY),
    "orders": Route("hq/erp", ("south/wms", "east/carrier"), 1, OrderMode.STRICT),
    "prices": Route("hq/erp", ("north/planning",), 3, OrderMode.ANY),
    "stock": Route("east/carrier", ("south/wms",), 2, OrderMode.LATEST),
    "returns": Route("south/wms", ("hq/erp",), 2, OrderMode.STRICT),
    "moves": Route("south/wms", ("south/yard",), 2, OrderMode.STRICT),
    "ships": Route("east/carrier", ("hq/books",), 1, OrderMode.STRICT),
    "weights": Route("east/carrier", ("east/scale",), 2, OrderMode.STRICT),
}

_FIELDS: Final = {"k": "string", "n": "string", "t": "string", "z": "string", "a": "boolean"}
_MAPPING: Final = {
    "loc": "record.k",
    "name": "record.n",
    "type": "record.t",
    "timezone": "record.z",
    "active": "record.a",
}


@cache
def the_estate(version: int = 1) -> CompiledEstate:
    """The estate, compiled once a process; versions route alike, and yet an event of one needs that one to be known."""
    compiled = compile_estate(
        Estate.model_validate(
            {
                "settings": {
                    "name": "acme",
                    "environment": "test",
                    "currency": "EUR",
                    "hub": {"site": HUB, "url": "https://hub.example:7443"},
                },
                "sites": {site: {"site": site, "systems": _systems(site)} for site in SITES},
                "flows": {name: _flow(name, route, version) for name, route in ROUTES.items()},
            }
        )
    )
    _COMPILED[compiled.estate.hash] = compiled
    return compiled


_COMPILED: Final[dict[EstateHash, CompiledEstate]] = {}


class SharedEstates(KnownEstates):
    """Those of one store: which it has it says itself, and each was compiled once a process."""

    def compiled(self, connection: sqlite3.Connection, estate_hash: EstateHash) -> CompiledEstate:
        """As the store has it."""
        has_it = estates.documents(connection, hashes=[estate_hash])
        return _COMPILED[estate_hash] if has_it else super().compiled(connection, estate_hash)


def _systems(site: str) -> dict[str, Any]:
    return {
        name.partition("/")[2]: {
            "connector": "simulated",
            "settings": {"can_be_asked": kind.can_probe},
            "memory": {"key_lifetime": f"{kind.key_lifetime}s", "lands_within": f"{LANDS_WITHIN}s"},
            "limits": {"deadline": f"{DEADLINE}s", "batch": kind.batch, "in_flight": kind.in_flight},
        }
        for name, kind in SYSTEMS.items()
        if name.startswith(f"{site}/")
    }


def _flow(name: str, route: Route, version: int) -> dict[str, Any]:
    return {
        "flow": name,
        "owner": f"planner {version}",
        "tier": route.tier,
        "source": {"system": route.source, "fields": _FIELDS, "every": "30s"},
        "contract": "location/1",
        "mapping": {"fields": _MAPPING},
        "order": {"mode": route.order},
        "targets": [{"system": target, "retry": {"longest": "20s"}} for target in route.targets],
    }
