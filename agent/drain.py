"""Draining: a person has this agent take in nothing more, until it owes nothing to its systems and to other agents.

What runs beside intake goes on: relays deliver, the link hands up and takes in what others send for systems here. So an agent
that is drained may owe something again, and says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial

from agent.control.schema import DrainView
from state import audit, draining
from state.database import Database
from state.draining import Draining
from state.model.clock import Clock, to_millis
from state.model.errors import ConflictError


class Drain:
    """What people ask and tell the agent about its draining. Each change and its audit entry are one transaction."""

    def __init__(
        self, database: Database, *, clock: Clock, sources: Callable[[], int], on_changed: Callable[[], None]
    ) -> None:
        """`sources` is how many this agent reads; `on_changed`: it is to begin or to end taking in."""
        self._database = database
        self._clock = clock
        self._sources = sources
        self._on_changed = on_changed

    async def look(self) -> DrainView:
        """How it stands now."""
        return self.view(await self._database.read(draining.look))

    async def begin(self, *, by: str, reason: str, dry_run: bool = False) -> DrainView:
        """Take in nothing more from now on; a dry run says what would be. Raises `ConflictError` where it drains already."""
        return await self._change(partial(_begin, by=by, reason=reason), "runtime.drain", dry_run=dry_run)

    async def end(self, *, by: str, reason: str, dry_run: bool = False) -> DrainView:
        """Take in again. Raises `ConflictError` where it does not drain."""
        return await self._change(partial(_end, by=by, reason=reason), "runtime.undrain", dry_run=dry_run)

    async def _change(self, unit: Callable[..., None], name: str, *, dry_run: bool) -> DrainView:
        now = to_millis(self._clock.now())

        def change(connection: sqlite3.Connection) -> Draining:
            unit(connection, draining.look(connection), now=now, dry_run=dry_run)
            return draining.look(connection)

        if dry_run:
            return self.view(await self._database.read(change))
        changed = await self._database.write(change, name=name)
        self._on_changed()
        return self.view(changed)

    def view(self, found: Draining) -> DrainView:
        """As the API says it."""
        owed = found.owed
        return DrainView(
            state=found.state,
            since=found.since,
            reason=found.why,
            sources=self._sources(),
            deliveries=owed.deliveries,
            parked=owed.parked,
            targets=list(owed.targets),
            events=owed.events,
            unapplied=owed.unapplied,
        )


def _begin(connection: sqlite3.Connection, found: Draining, *, by: str, reason: str, now: int, dry_run: bool) -> None:
    if found.since is not None:
        raise ConflictError(
            f"it is {found.state} since {found.since:%Y-%m-%d %H:%M:%SZ}",
            hint="`distctl agents undrain SITE --reason ...` has it take in again",
            code="already-draining",
        )
    if dry_run:
        return
    draining.begin(connection, now=now, why=reason)
    audit.append(
        connection, at_ms=now, actor=by, action="drain", target="agent", reason=reason, after=found.owed.counts
    )


def _end(connection: sqlite3.Connection, found: Draining, *, by: str, reason: str, now: int, dry_run: bool) -> None:
    if found.since is None:
        raise ConflictError("it does not drain", hint="`distctl agents show` says how it is", code="not-draining")
    if dry_run:
        return
    draining.end(connection)
    audit.append(
        connection, at_ms=now, actor=by, action="undrain", target="agent", reason=reason, before=found.owed.counts
    )
