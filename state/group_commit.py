"""Group commit: many units of work, one transaction, one fsync, one thread hop.

Order: units run one after another, in the order in which they were handed in. Concurrency: one task feeds the one thread
that owns the writer's connection, and takes what has gathered as soon as that is free: waiting callers share a commit, a
lone caller waits for nobody. Each unit has its own savepoint, so one that fails is undone alone. A caller's cancellation
never reaches SQL: its unit was not begun, or it runs wholly.

Crash: a unit whose caller got an answer is on disk; one without an answer was applied wholly or not at all. When the disk fails
under a commit nobody can say which. Then every caller of the group learns that, all further work is refused, and `on_fatal`
ends the process. A failed fsync is never tried again: the kernel may have dropped the pages, and would call the second one done.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, cast

from state.connection_thread import ConnectionThread
from state.model.errors import DistctlError, StoreError, StoreInDoubtError
from state.sqlite_errors import is_constraint, is_fatal, is_vanishing, translate

T = TypeVar("T")

Unit: TypeAlias = Callable[[sqlite3.Connection], T]
"""A unit of work: a bounded function of the writer's connection, which reads there what it decides on.

It has no other effect and does not wait, since it runs again when the transaction it shared with others vanished.
"""

GROUP_UNITS: Final = 1_000
GROUP_SECONDS: Final = 0.010
"""A group closes after the unit that passes this, so that nobody waits behind a crowd."""
QUEUED_UNITS: Final = 10_000
"""When so many wait, further callers wait for room."""

_RERUN_AFTER_SECONDS: Final = (0.05, 0.1, 0.2)

# The remarks make these ours: a unit that says a plain COMMIT does not find it in the statement cache, past the authorizer.
_BEGIN: Final = "BEGIN IMMEDIATE -- a group"
_COMMIT: Final = "COMMIT -- a group"
_ROLLBACK: Final = "ROLLBACK -- a group"


class _Queued:
    """A unit on its way: where its caller waits, and what its last run came to."""

    __slots__ = ("answered", "error", "name", "unit", "value")

    def __init__(self, unit: Unit[object], name: str, answered: asyncio.Future[None]) -> None:
        self.unit = unit
        self.name = name
        self.answered = answered
        self.value: object = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Run the unit once, on the thread, and forget an earlier run."""
        self.error = None
        try:
            self.value = self.unit(connection)
        except Exception as error:  # noqa: BLE001 - whatever a unit raises belongs to its caller, not to its group
            self.error = error

    def answer(self) -> None:
        """Let the caller go on."""
        if not self.answered.done():
            self.answered.set_result(None)

    def refuse(self, error: DistctlError) -> None:
        """Let the caller go on with `error`."""
        self.error = error
        self.answer()


_Group: TypeAlias = Sequence[_Queued]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What one transaction came to: its first `done` units are settled, or none is because of `error`.

    `culprit` is the place of the unit under which the transaction was lost, if it was under one.
    """

    done: int = 0
    error: sqlite3.Error | None = None
    culprit: int | None = None


class GroupCommit:
    """The writer of one store. Start it with `start`, end it with `finish`."""

    def __init__(
        self,
        path: Path,
        *,
        crash: Callable[[str], None],
        on_fatal: Callable[[DistctlError], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._path = path
        self._crash = crash
        self._on_fatal = on_fatal
        self._sleep = sleep
        self._queue: asyncio.Queue[_Queued | None] = asyncio.Queue(QUEUED_UNITS)
        self._is_broken = False
        self._is_finishing = False
        self._is_control = False
        self._task: asyncio.Task[None] | None = None

    def guard(self, connection: sqlite3.Connection) -> None:
        """From now on refuse a unit that would end the group's transaction or bring in a second file."""
        connection.set_authorizer(self._authorize)

    def start(self, thread: ConnectionThread) -> None:
        """Begin to work for the connection of `thread`."""
        self._task = asyncio.create_task(self._work(thread), name=f"store-writer {self._path.name}")

    async def finish(self) -> None:
        """Settle what is queued, then end."""
        self._is_finishing = True
        if self._task:
            await self._queue.put(None)
            await self._task

    @property
    def is_broken(self) -> bool:
        """Whether the disk failed under it; it refuses everything from then on."""
        return self._is_broken

    @property
    def queued(self) -> int:
        """How many units wait for a group."""
        return self._queue.qsize()

    async def write(self, unit: Unit[T], name: str) -> T:
        """Run `unit` in the next group and answer what it returned, once that is on disk."""
        if self._is_broken or self._is_finishing:
            raise self._refusal()
        queued = _Queued(unit, name, asyncio.get_running_loop().create_future())
        await self._queue.put(queued)
        await queued.answered
        if isinstance(queued.error, sqlite3.Error):
            raise translate(queued.error, operation=name or "a write", path=self._path) from queued.error
        if queued.error:
            raise queued.error
        return cast("T", queued.value)

    async def _work(self, thread: ConnectionThread) -> None:
        while group := await self._next_group():
            waited_for = [queued for queued in group if not queued.answered.done()]
            await self._settle(deque([waited_for]), thread)

    async def _next_group(self) -> list[_Queued]:
        """What has gathered, at least one unit; nothing at the end."""
        group: list[_Queued] = []
        queued = await self._queue.get()
        while queued:
            group.append(queued)
            if len(group) == GROUP_UNITS or self._queue.empty():
                return group
            queued = self._queue.get_nowait()
        if group:
            self._queue.put_nowait(None)
        return group

    async def _settle(self, stretches: deque[_Group], thread: ConnectionThread) -> None:
        """Commit each stretch of units, dividing one where a unit took the transaction down with it."""
        delays = iter(_RERUN_AFTER_SECONDS)
        while stretches:
            units = stretches.popleft()
            if self._is_broken or not units:
                self._refuse(units)
                continue
            outcome = await self._run(units, thread)
            if outcome is None or (outcome.error and is_fatal(outcome.error, self._path)):
                self._break(units, outcome.error if outcome else None)
            elif outcome.error is None:
                _answer(units[: outcome.done])
                stretches.appendleft(units[outcome.done :])
            elif parts := _divide(units, outcome):
                stretches.extendleft(reversed(parts))
            elif is_vanishing(outcome.error) and (delay := next(delays, None)):
                await self._sleep(delay)
                stretches.appendleft(units)
            else:
                self._fail(units, outcome.error)

    async def _run(self, units: _Group, thread: ConnectionThread) -> _Outcome | None:
        """One transaction; None where it ended in a way that nobody foresaw."""
        try:
            return await thread.run(partial(self._transaction, units))
        except Exception:  # noqa: BLE001 - told to every caller and to on_fatal: a writer that died in silence would hang them
            return None

    def _transaction(self, units: _Group, connection: sqlite3.Connection) -> _Outcome:
        self._crash("store.before_begin")
        try:
            self._control(connection, _BEGIN)
            outcome = self._run_units(units, connection)
            if outcome.error is None and connection.in_transaction:
                self._commit(units[: outcome.done], connection)
        except sqlite3.Error as error:
            outcome = _Outcome(error=error)
        if outcome.error and connection.in_transaction and not is_fatal(outcome.error, self._path):
            self._control(connection, _ROLLBACK)
        return outcome

    def _run_units(self, units: _Group, connection: sqlite3.Connection) -> _Outcome:
        run = self._run_alone if len(units) == 1 else self._run_in_savepoint
        close_at = time.monotonic() + GROUP_SECONDS
        for place, queued in enumerate(units):
            if error := run(queued, connection):
                return _Outcome(error=error, culprit=place)
            if time.monotonic() > close_at:
                return _Outcome(done=place + 1)
        return _Outcome(done=len(units))

    def _run_alone(self, queued: _Queued, connection: sqlite3.Connection) -> sqlite3.Error | None:
        """Its transaction is its savepoint."""
        queued.run(connection)
        if error := self._loss(queued, connection):
            return error
        if queued.error:
            self._control(connection, _ROLLBACK)
        return None

    def _run_in_savepoint(self, queued: _Queued, connection: sqlite3.Connection) -> sqlite3.Error | None:
        connection.execute("SAVEPOINT of_unit")
        queued.run(connection)
        if error := self._loss(queued, connection):
            return error
        if queued.error:
            connection.execute("ROLLBACK TO of_unit")
        connection.execute("RELEASE of_unit")
        return None

    def _loss(self, queued: _Queued, connection: sqlite3.Connection) -> sqlite3.Error | None:
        """Why the whole transaction cannot go on after this unit, if so: read from the connection, never assumed."""
        error = queued.error if isinstance(queued.error, sqlite3.Error) else None
        if not connection.in_transaction:
            return error or sqlite3.OperationalError("the transaction was rolled back under a unit that hid the error")
        return error if error and is_fatal(error, self._path) else None

    def _commit(self, units: _Group, connection: sqlite3.Connection) -> None:
        names = dict.fromkeys(queued.name for queued in units if queued.name)
        for name in ("store", *names):
            self._crash(f"{name}.before_commit")
        self._control(connection, _COMMIT)
        for name in ("store", *names):
            self._crash(f"{name}.after_commit")

    def _control(self, connection: sqlite3.Connection, statement: str) -> None:
        self._is_control = True
        try:
            connection.execute(statement)
        finally:
            self._is_control = False

    def _authorize(self, action: int, *_: str | None) -> int:
        """Called when a statement is compiled, not when it runs."""
        if action == sqlite3.SQLITE_TRANSACTION and not self._is_control:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK

    def _fail(self, units: _Group, error: sqlite3.Error) -> None:
        for queued in units:
            queued.refuse(translate(error, operation=queued.name or "a write", path=self._path))

    def _refuse(self, units: _Group) -> None:
        for queued in units:
            queued.refuse(self._refusal())

    def _break(self, units: _Group, error: sqlite3.Error | None) -> None:
        """Stop using the connection for good."""
        self._is_broken = True
        for queued in units:
            queued.refuse(self._fatal(error, queued.name or "a write"))
        asyncio.get_running_loop().call_soon(self._on_fatal, self._fatal(error, "a commit"))

    def _fatal(self, error: sqlite3.Error | None, operation: str) -> DistctlError:
        if error:
            return translate(error, operation=operation, path=self._path)
        told = f"{operation} ended in the store {self._path} in a way that nobody foresaw"
        return StoreInDoubtError(
            told, hint="The process ends; the store is verified at the next start", code="store-lost"
        )

    def _refusal(self) -> StoreError:
        if self._is_broken:
            hint = "Nothing was applied. The process has to end: the store is verified at the next start"
            return StoreError(
                f"the store {self._path} is no longer used after a failure", hint=hint, code="store-broken"
            )
        return StoreError(f"the store {self._path} is closed", hint="Nothing was applied", code="store-closed")


def _answer(units: Iterable[_Queued]) -> None:
    for queued in units:
        queued.answer()


def _divide(units: _Group, outcome: _Outcome) -> list[_Group]:
    """The stretches that run next, so that one bad unit never fails its group; nothing where dividing does not help."""
    if len(units) == 1 or outcome.error is None:
        return []
    if outcome.culprit is not None:
        place = outcome.culprit
        return [units[:place], units[place : place + 1], units[place + 1 :]]
    # Only COMMIT looks at deferred foreign keys, and does not say whose row it is.
    return [[queued] for queued in units] if is_constraint(outcome.error) else []
