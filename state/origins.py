"""Origins: what many events have in common, kept once: source, flow, contract, operation, environment and estate."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from state.model.errors import InvariantError
from state.model.event import Environment, Event, Op, event_type
from state.model.ids import EstateHash
from state.queries import load

_SQL = load("origins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The attributes of an event that repeat."""

    source: str
    type: str
    site: str
    system: str
    flow: str
    contract: str
    op: Op
    environment: Environment
    estate: EstateHash


class Origins:
    """The origins inside one unit of work, each looked up once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[str, ...], int] = {}
        self._origins: dict[int, Origin] = {}

    def id_of(self, event: Event) -> int:
        """The id of the event's origin, which is added where it is new. Raises `InvariantError`: its estate is unknown."""
        names = (event.site, event.system, event.flow, event.contract, event.op, event.environment, event.estate)
        if names not in self._ids:
            row = self._connection.execute(_SQL.find, names).fetchone()
            row = row or self._connection.execute(_SQL.add, names).fetchone()
            if row is None:
                raise InvariantError(
                    f"event {event.id} carries the estate {event.estate}, which the store does not hold"
                )
            self._ids[names] = row[0]
        return self._ids[names]

    def get(self, origin: int) -> Origin:
        """The origin of that id."""
        if origin not in self._origins:
            site, system, flow, contract, op, environment, estate = self._connection.execute(
                _SQL.attributes, (origin,)
            ).fetchone()
            self._origins[origin] = Origin(
                source=f"/{site}/{system}",
                type=event_type(contract, op),
                site=site,
                system=system,
                flow=flow,
                contract=contract,
                op=Op(op),
                environment=Environment(environment),
                estate=EstateHash(estate),
            )
        return self._origins[origin]
