"""Estates by their hash, compiled: an event is routed and rendered by the one it carries, whatever is in force."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.estate.compiled import CompiledEstate, CompiledLane, compile_estate
from state import estates
from state.model.ids import EstateHash

_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class KnownEstate:
    """A compiled estate and its lanes by (flow, target)."""

    compiled: CompiledEstate
    lanes: Mapping[tuple[str, str], CompiledLane]


class KnownEstates:
    """The estates of one store, compiled when they are met; the last few are kept. Read on the store's writer thread."""

    def __init__(self, *compiled: CompiledEstate) -> None:
        self._known: dict[EstateHash, KnownEstate] = {}
        for one in compiled:
            self.add(one)

    def add(self, compiled: CompiledEstate) -> None:
        """This one is in force, and compiled already."""
        if compiled.estate.hash not in self._known:
            self._keep(compiled.estate.hash, compiled)

    def get(self, connection: sqlite3.Connection, estate_hash: EstateHash) -> KnownEstate:
        """The estate of that hash. Raises `NotFoundError` where the store has none, `ConfigError` where it cannot be compiled."""
        known = self._known.get(estate_hash)
        return known or self._keep(estate_hash, self.compiled(connection, estate_hash))

    def compiled(self, connection: sqlite3.Connection, estate_hash: EstateHash) -> CompiledEstate:
        """The estate as the store has it, compiled anew."""
        return compile_estate(estates.find(connection, estate_hash))

    def _keep(self, estate_hash: EstateHash, compiled: CompiledEstate) -> KnownEstate:
        known = KnownEstate(compiled, {(lane.flow, lane.name): lane for lane in compiled.lanes()})
        if len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)), None)
        self._known[estate_hash] = known
        return known
