"""Which connectors there are. Each is loaded when it is first named; other packages add theirs by entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import BaseModel

from connectors.base import Sink, Source, Surroundings
from state.model.errors import ConfigError
from state.model.suggestion import suggestion

BUILT_IN: Final = {
    "files": "connectors.files.connector:CONNECTOR",
    "http": "connectors.http.connector:CONNECTOR",
}
ENTRY_POINT_GROUP: Final = "distctl.connectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """One way of reaching systems: its settings models, which are also its documentation, and how to build its ends."""

    name: str
    source_settings: type[BaseModel] | None
    sink_settings: type[BaseModel] | None
    make_source: Callable[[Any, Surroundings], Source] | None
    make_sink: Callable[[Any, Surroundings], Sink] | None
    can_probe: Callable[[Any], bool]  # by its sink settings: whether the target can be asked for our key


def names() -> list[str]:
    """Every connector that can be named, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


@lru_cache
def find(name: str) -> Connector:
    """The connector of that name. Raises `ConfigError` with the nearest name."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return _checked(name, getattr(import_module(module), attribute))
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return _checked(name, point.load())
    hint = suggestion(name, names(), otherwise="known connectors:")
    raise ConfigError(f"there is no connector {name!r}", hint=hint, code="unknown-connector")


def _checked(name: str, found: object) -> Connector:
    if not isinstance(found, Connector):
        raise ConfigError(f"connector {name!r} does not name a connectors.registry.Connector", code="bad-connector")
    return found
