"""Estate bundles: at the hub those that it put in force, at a site those that came from there and what became of them.

A bundle that came is judged, then on trial in force, then good; or it is refused, before or after. The newest that is on trial
or good is in force at a site. Decision 014.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from state.model.clock import from_millis, to_millis
from state.model.ids import EstateHash
from state.queries import load

_SQL = load("bundles")
_ROOM: Final = 10_000
_ANY: Final = 2**63 - 1


class BundleState(StrEnum):
    """What became of a bundle."""

    ISSUED = "issued"  # at the hub, which hands it out
    CAME = "came"  # its head is here; it is judged as soon as its estate is
    TRIAL = "trial"  # in force, and not for long
    GOOD = "good"  # the agent was well under it
    REFUSED = "refused"  # unfit for this site, or given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One of them. `adopted_by` put it in force at the hub; `seal` is the hub's signature, empty at the hub itself."""

    number: int
    estate: EstateHash
    adopted_by: str
    adopted_at: datetime
    seal: bytes = b""
    state: BundleState
    reason: str = ""

    @property
    def name(self) -> str:
        """As people call it."""
        return f"bundle {self.number} ({self.estate[:8]})"


def issue(
    connection: sqlite3.Connection, estate: EstateHash, *, by: str, now: datetime, above: int = 0
) -> Bundle | None:
    """The next bundle of a hub, whose number is higher than `above`; None where the last one is as good."""
    before = last(connection)
    if before is not None and before.estate == estate and before.state is BundleState.ISSUED and before.number > above:
        return None
    bundle = Bundle(
        number=max(before.number if before else 0, above) + 1,
        estate=estate,
        adopted_by=by,
        adopted_at=now,
        state=BundleState.ISSUED,
    )
    _add(connection, bundle)
    return bundle


def leave_room(connection: sqlite3.Connection, *, by: str, now: datetime) -> None:
    """Number what is in force at a hub far above all that it may have numbered and forgotten: its next seal is another one."""
    issued = last(connection)
    if issued is not None and issued.state is BundleState.ISSUED:
        issue(connection, issued.estate, by=by, now=now, above=issued.number + _ROOM)


def receive(connection: sqlite3.Connection, bundle: Bundle) -> bool:
    """A head came from the hub; answers whether it is later than what is known. One that was not judged yet gives way to it."""
    before = last(connection)
    if before is not None and before.number >= bundle.number:
        return False
    connection.execute(_SQL.drop_those_that_came)
    _add(connection, bundle)
    return True


def last(connection: sqlite3.Connection) -> Bundle | None:
    """The one with the highest number, whatever became of it."""
    return _found(connection.execute(_SQL.last).fetchone())


def in_force(connection: sqlite3.Connection, *, below: int = _ANY) -> Bundle | None:
    """The one that counts at a site, or did before the one with the number `below`; None where there is none."""
    return _found(connection.execute(_SQL.in_force, (below,)).fetchone())


def to_judge(connection: sqlite3.Connection) -> Bundle | None:
    """The one that came last and is whole, if nobody judged it yet."""
    bundle = _came(connection)
    return bundle if bundle is not None and _has_estate(connection, bundle.estate) else None


def wanted(connection: sqlite3.Connection) -> set[EstateHash]:
    """The estate of the one that came last, where it is not here."""
    bundle = _came(connection)
    return {bundle.estate} if bundle is not None and not _has_estate(connection, bundle.estate) else set()


def sealed(connection: sqlite3.Connection, hashes: Iterable[EstateHash]) -> list[Bundle]:
    """For each of these estates that the hub sealed once, the newest bundle with it."""
    found = (_found(connection.execute(_SQL.sealed, (one,)).fetchone()) for one in hashes)
    return [bundle for bundle in found if bundle is not None]


def settle(connection: sqlite3.Connection, bundle: Bundle, state: BundleState, *, reason: str = "") -> None:
    """This became of it."""
    connection.execute(_SQL.settle, (state, reason, bundle.number))


def _came(connection: sqlite3.Connection) -> Bundle | None:
    bundle = last(connection)
    return bundle if bundle is not None and bundle.state is BundleState.CAME else None


def _has_estate(connection: sqlite3.Connection, estate: EstateHash) -> bool:
    return connection.execute(_SQL.has_estate, (estate,)).fetchone() is not None


def _add(connection: sqlite3.Connection, bundle: Bundle) -> None:
    moment = to_millis(bundle.adopted_at)
    row = (bundle.number, bundle.estate, bundle.adopted_by, moment, bundle.seal, bundle.state)
    connection.execute(_SQL.add, row)


def _found(row: Sequence[Any] | None) -> Bundle | None:
    if row is None:
        return None
    number, estate, adopted_by, adopted_at, seal, state, reason = row
    return Bundle(
        number=number,
        estate=EstateHash(estate),
        adopted_by=adopted_by,
        adopted_at=from_millis(adopted_at),
        seal=seal,
        state=BundleState(state),
        reason=reason,
    )
