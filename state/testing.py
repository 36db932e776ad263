"""What tests of anything above a store need: a real store in a temporary folder, and a clock that a test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from state.database import Database
from state.migrations import Migration

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday noon: where a `FrozenClock` stands unless a test says otherwise."""


class FrozenClock:
    """A `Clock` that moves only by `advance`; whoever sleeps on it wakes when their moment is reached."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Return when `advance` reaches the moment `seconds` from now."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        awake = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, awake))
        await awake

    def advance(self, by: timedelta | float) -> None:
        """Move both clocks by a duration or by seconds, and wake who is due, the earliest first."""
        moved = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._now += moved
        self._monotonic += moved.total_seconds()
        due = sorted((sleeper for sleeper in self._sleepers if sleeper[0] <= self._monotonic), key=lambda one: one[0])
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._monotonic]
        for _, awake in due:
            if not awake.done():
                awake.set_result(None)

    def jump(self, by: timedelta) -> None:
        """Move the wall clock alone, as a clock that was set does."""
        self._now += by

    @property
    def sleepers(self) -> int:
        """How many sleep on this clock."""
        return sum(not awake.done() for _, awake in self._sleepers)


@asynccontextmanager
async def temporary_database(
    folder: Path,
    *,
    now: datetime = NOON,
    migrations: Sequence[Migration] | None = None,
    crash: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Database]:
    """A real store at `folder/distctl.db`, with the shipped schema unless `migrations` say otherwise; closed at the end."""
    database = await Database.open(folder / "distctl.db", now=now, migrations=migrations, crash=crash)
    async with database:
        yield database
