"""Keeps the agent's forever-tasks running: one that fails is logged and started again, later each time.

Each guarded task is independent: its failure never ends another. Two things end the agent: a stop that was asked for, and a
store that nobody can vouch for (`StoreInDoubtError`), since what comes after would build on sand. Cancellation passes through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from state.model.clock import Clock
from state.model.errors import DistctlError, StoreInDoubtError

_log = logging.getLogger("distctl.supervisor")
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_HEALTHY_AFTER: Final = 60.0

Forever = Callable[[], Awaitable[None]]
T = TypeVar("T")


async def guard(name: str, run: Forever, *, clock: Clock, stopping: asyncio.Event) -> None:
    """Run `run` until it returns or the agent stops; start it again when it fails."""
    pause = _FIRST_PAUSE
    while not stopping.is_set():
        started = clock.monotonic()
        try:
            await run()
        except StoreInDoubtError:
            raise
        except DistctlError as error:
            _log.error("%s failed: %s", name, error, extra={"task": name, "code": error.code})
        except Exception as error:  # the last line of defence: whatever it is, the task starts again
            if isinstance(error, ExceptionGroup) and error.subgroup(StoreInDoubtError):
                raise
            _log.exception("%s failed by our own fault and starts again", name, extra={"task": name})
        else:
            return
        if clock.monotonic() - started > _HEALTHY_AFTER:
            pause = _FIRST_PAUSE
        await sleep_unless(stopping, pause, clock=clock)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def unless(event: asyncio.Event, awaited: Awaitable[T]) -> T | None:
    """What `awaited` gives; None, with it cancelled, when `event` is set first."""
    working = asyncio.ensure_future(awaited)
    ending = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        ending.cancel()
        working.cancel()
        await asyncio.gather(working, ending, return_exceptions=True)


async def sleep_unless(event: asyncio.Event, seconds: float, *, clock: Clock) -> bool:
    """Sleep, or return early when `event` is set. Answers whether it is."""
    if not event.is_set():
        await unless(event, clock.sleep(seconds))
    return event.is_set()


def first_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep groups lie in groups."""
    first = group.exceptions[0]
    return first_in(first) if isinstance(first, BaseExceptionGroup) else first
