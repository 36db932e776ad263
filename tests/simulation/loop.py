"""An event loop on virtual time with a seeded scheduler.

Time stands still while anything is ready and jumps to the next timer when nothing is. What is ready in one turn of the loop runs
in an order that the seed decides. Nothing here knows a socket, a thread or the machine's clock.

A task belongs to the `Life` in whose context it was made, so that a life can end as a process does: all of it, at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


MOST_TURNS: Final = 80_000
"""A seed takes some 5,000."""


class Endless(Exception):  # noqa: N818  it is the simulation's own end, and no error of anybody's
    """The simulation does not come to an end."""


class Life:
    """The life of one process: its tasks, and whether it has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_ended = False
        self.tasks: set[asyncio.Task[Any]] = set()

    def end(self) -> None:
        """Nothing of it runs any more, but to be told so."""
        self.has_ended = True
        for task in list(self.tasks):
            task.cancel()

    def require(self) -> None:
        """Raises `CancelledError` in what still runs of a life that has ended."""
        if self.has_ended:
            raise asyncio.CancelledError


_LIFE: Final[contextvars.ContextVar[Life | None]] = contextvars.ContextVar("life", default=None)


def within(life: Life) -> contextvars.Context:
    """A context in which whatever is started belongs to `life`."""
    context = contextvars.copy_context()
    context.run(_LIFE.set, life)
    return context


class _NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set follows from when it was made: from its address, as usual, it would differ in each run."""

    def __init__(self, number: int, coro: Any, **further: Any) -> None:
        self.number = number  # first: to begin is to be put into a set
        super().__init__(coro, **further)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs until its main task is done. `overrun` is called once when virtual time passes `ends_at`."""

    def __init__(self, dice: random.Random, *, ends_at: float, most_turns: int = MOST_TURNS) -> None:
        super().__init__()
        self._most_turns = most_turns
        self._dice = dice
        self._ends_at = ends_at
        self._moment = 0.0
        self._made = 0
        self.turns = 0

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._moment

    def create_task(
        self, coro: Any, *, name: object = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        """A task, which belongs to the life in whose context it is made."""
        self._made += 1
        task = _NumberedTask(self._made, coro, loop=self, name=str(name or "task"), context=context)
        life = context.get(_LIFE) if context is not None else _LIFE.get()
        if life is not None:
            life.tasks.add(task)
            task.add_done_callback(life.tasks.discard)
            if life.has_ended:
                task.cancel()
        return task

    def run_in_executor(  # type: ignore[override]  # as it is called, not as it might be
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """What would cross to a thread runs here, and its answer comes a turn later."""
        answer: asyncio.Future[T] = self.create_future()
        self.call_soon(_run, answer, func, args)
        return answer

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, and then close the loop."""
        try:
            return self.run_until_complete(main)
        finally:
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # left where it is, as all is
            self.close()

    def _run_once(self) -> None:
        """One turn: bring up the timers that are due, and run what is ready in an order of the seed's."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._moment = max(self._moment, self._next_timer(scheduled))
            if self._moment > self._ends_at:
                raise Endless(f"the simulation is not over after {self._ends_at:g} s of virtual time")
        while scheduled and scheduled[0]._when <= self._moment:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                ready.append(handle)
        batch = list(ready)
        ready.clear()
        if not batch and not scheduled:
            raise RuntimeError("nothing is ready and nothing is timed: everything waits for everything else")
        if len(batch) > 1:
            self._dice.shuffle(batch)
        self.turns += 1
        if self.turns > self._most_turns:
            raise Endless(
                f"the simulation runs in circles: {self._most_turns:,} turns, {self._moment:.0f} s of virtual time"
            )
        for handle in batch:
            if not handle._cancelled:
                handle._run()

    def _next_timer(self, scheduled: list[events.TimerHandle]) -> float:
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        return scheduled[0].when() if scheduled else self._moment

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


def _run(answer: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if answer.done():
        return
    try:
        answer.set_result(func(*args))
    except Exception as error:  # noqa: BLE001 - it is its caller's
        answer.set_exception(error)
