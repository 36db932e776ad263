"""Looking again and again, through a restart of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from console.cli.output import Output
from state.model.errors import NotConnectedError

T = TypeVar("T")


def repeat(ask: Callable[[], T], *, every: float, output: Output) -> Iterator[T]:
    """What `ask` answers, every `every` seconds, for ever. While no agent answers it says so once and goes on asking."""
    is_lost = False
    while True:
        time.sleep(every)
        try:
            answer = ask()
        except NotConnectedError as error:
            if not is_lost:
                output.say(f"distctl: {error.message}; still asking")
            is_lost = True
            continue
        is_lost = False
        yield answer
