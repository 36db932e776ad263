"""Group commit: many units of work, one transaction, one fsync, one thread hop.

Order: units run one after another, in the order in which they were handed in. Concurrency: the one thread that owns the
writer's connection takes what has gathered as soon as it is free, and goes on until nothing has: waiting callers share a
commit, a lone caller waits for nobody, and a busy writer does not cross back to the loop between two groups. Each unit has
its own savepoint, so one that fails is undone alone. A caller's cancellation never reaches SQL: its unit was not begun, or it
runs wholly. The queue needs no bound of its own: each place in it is a caller that waits.

Crash: a unit whose caller got an answer is on disk; one without an answer was applied wholly or not at all. When the disk fails
under a commit nobody can say which. Then every caller of the group learns that, all further work is refused, and `on_fatal`
ends the process. A failed fsync is never tried again: the kernel may have dropped the pages, and would call the second one done.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, cast

from state.connection_thread import ConnectionThread
from state.model.errors import DistctlError, StoreError, StoreInDoubtError
from state.sqlite_errors import is_constraint, is_fatal, is_full, is_vanishing, translate

T = TypeVar("T")

Unit: TypeAlias = Callable[[sqlite3.Connection], T]
"""A unit of work: a bounded function of the writer's connection, which reads there what it decides on.

It has no other effect and does not wait, since it runs again when the transaction it shared with others vanished.
"""

GROUP_UNITS: Final = 1_000
GROUP_SECONDS: Final = 0.010
"""A group closes after the unit that passes this, so that nobody waits behind a crowd."""

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
    """The writer of one store, from `start` to `finish`. Methods that take a connection run on its thread."""

    def __init__(
        self,
        path: Path,
        *,
        crash: Callable[[str], None],
        on_fatal: Callable[[DistctlError], None],
        sleep: Callable[[float], None],
        make_room: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._crash = crash
        self._on_fatal = on_fatal
        self._sleep = sleep
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Queued] = deque()
        self._thread: ConnectionThread | None = None
        self._is_called = False  # the thread will look at what is pending, and has not begun to
        self._is_broken = False
        self._is_control = False

    def guard(self, connection: sqlite3.Connection) -> None:
        """From now on refuse a unit that would end the group's transaction or bring in a second file."""
        connection.set_authorizer(self._authorize)

    def start(self, thread: ConnectionThread) -> None:
        """Begin to work on `thread`."""
        self._thread = thread

    async def finish(self) -> None:
        """Refuse what comes from now on, and settle what is queued."""
        thread, self._thread = self._thread, None
        if thread:
            await thread.submit(self._drain)

    @property
    def is_broken(self) -> bool:
        """Whether the disk failed under it; it refuses everything from then on."""
        return self._is_broken

    @property
    def queued(self) -> int:
        """How many units wait for a group."""
        return len(self._pending)

    async def write(self, unit: Unit[T], name: str) -> T:
        """Run `unit` in the next group and answer what it returned, once that is on disk."""
        if self._is_broken or not self._thread:
            raise self._refusal()
        queued = _Queued(unit, name, self._loop.create_future())
        self._pending.append(queued)
        if not self._is_called:
            self._is_called = True
            self._thread.call(self._drain)
        await queued.answered
        if isinstance(queued.error, sqlite3.Error):
            raise translate(queued.error, operation=name or "a write", path=self._path) from queued.error
        if queued.error:
            raise queued.error
        return cast("T", queued.value)

    def _drain(self, connection: sqlite3.Connection) -> None:
        self._is_called = False  # before it looks: what is added after its last look calls it again
        while self._pending:
            group = self._next_group()
            try:
                self._settle(deque([group]), connection)
            except BaseException:  # noqa: BLE001 - everybody is told: a writer that died in silence would hang its callers
                self._break(group, None)

    def _next_group(self) -> list[_Queued]:
        """What has gathered, without those whose callers gave up."""
        size = min(len(self._pending), GROUP_UNITS)
        gathered = (self._pending.popleft() for _ in range(size))
        return [queued for queued in gathered if not queued.answered.done()]

    def _settle(self, stretches: deque[_Group], connection: sqlite3.Connection) -> None:
        """Commit each stretch of units, dividing one where a unit took the transaction down with it."""
        delays = iter(_RERUN_AFTER_SECONDS)
        while stretches:
            units = stretches.popleft()
            if self._is_broken or not units:
                self._refuse(units)
                continue
            outcome = self._transaction(units, connection)
            if outcome.error and is_fatal(outcome.error, self._path):
                self._break(units, outcome.error)
            elif outcome.error is None:
                self._answer(units[: outcome.done])
                stretches.appendleft(units[outcome.done :])
            elif parts := _divide(units, outcome):
                stretches.extendleft(reversed(parts))
            elif is_full(outcome.error) and self._make_room():
                stretches.appendleft(units)
            elif is_vanishing(outcome.error) and (delay := next(delays, None)):
                self._sleep(delay)
                stretches.appendleft(units)
            elif is_vanishing(outcome.error) and len(units) > 1:
                half = len(units) // 2  # what is small may still fit where the whole did not
                stretches.extendleft((units[half:], units[:half]))
            else:
                self._fail(units, outcome.error)

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
        close_at = self._monotonic() + GROUP_SECONDS
        for place, queued in enumerate(units):
            if error := run(queued, connection):
                return _Outcome(error=error, culprit=place)
            if self._monotonic() > close_at:
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

    def _answer(self, units: _Group) -> None:
        if units:  # to wake the loop is what a hop costs
            self._loop.call_soon_threadsafe(_answer, units)

    def _fail(self, units: _Group, error: sqlite3.Error) -> None:
        for queued in units:
            queued.error = translate(error, operation=queued.name or "a write", path=self._path)
        self._answer(units)

    def _refuse(self, units: _Group) -> None:
        for queued in units:
            queued.error = self._refusal()
        self._answer(units)

    def _break(self, units: _Group, error: sqlite3.Error | None) -> None:
        """Stop using the connection for good."""
        self._is_broken = True
        for queued in units:
            queued.error = self._fatal(error, queued.name or "a write")
        self._answer(units)
        self._loop.call_soon_threadsafe(self._on_fatal, self._fatal(error, "a commit"))

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


def _answer(units: _Group) -> None:
    """On the loop: let the callers go on who still wait."""
    for queued in units:
        if not queued.answered.done():
            queued.answered.set_result(None)


def _divide(units: _Group, outcome: _Outcome) -> list[_Group]:
    """The stretches that run next, so that one bad unit never fails its group; nothing where dividing does not help."""
    if len(units) == 1 or outcome.error is None:
        return []
    if outcome.culprit is not None:
        place = outcome.culprit
        return [units[:place], units[place : place + 1], units[place + 1 :]]
    # Only COMMIT looks at deferred foreign keys, and does not say whose row it is.
    return [[queued] for queued in units] if is_constraint(outcome.error) else []
