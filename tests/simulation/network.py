"""The wire between a site and its hub: the real codec on both ends, and everything that a bad line does in between.

A request and its reply are two messages. Either may be dropped, delayed, or come twice; what is delayed beyond the patience of
its sender still arrives. A line that is cut says so at once, a half-open one says nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import orjson
from pydantic import BaseModel

from agent.sync.fencing import LinkFencedError, cure
from agent.sync.hub import Hub
from agent.sync.wire import Hello, Pull, PushReply, Refusal, Welcome, read
from state.model.errors import DistctlError, NotConnectedError
from tests.simulation.estate import HUB
from tests.simulation.loop import Life, within
from tests.simulation.trace import Trace

PATIENCE: Final = 30.0
"""Seconds after which a call without an answer is given up, as `agent.sync.https.DEAD_AFTER`."""

_LATENCY: Final = (0.3, 2.5)
"""Seconds that a request or a reply is under way on a poor line, so that events gather into frames meanwhile."""

Said = TypeVar("Said", bound=BaseModel)


class Listening(Protocol):
    """The machine of the hub."""

    @property
    def life(self) -> Life | None:
        """Of the process that listens; None where none does."""

    @property
    def hub(self) -> Hub:
        """Who answers."""


@dataclass(slots=True)
class Line:
    """How the line of one site is: what is left to go wrong with its next calls, by kind."""

    is_cut: bool = False
    is_half_open: bool = False
    bad: dict[str, float] = field(default_factory=dict)  # kind: how likely


class Network:
    """Carries the calls of all sites."""

    def __init__(self, dice: random.Random, trace: Trace, counts: Counter[str], listening: Listening) -> None:
        self.lines: dict[str, Line] = {}
        self.answered: Counter[str] = Counter()  # pushes and pulls, by site
        self._dice = dice
        self._trace = trace
        self._counts = counts
        self._listening = listening
        self._loop = asyncio.get_running_loop()

    def line(self, site: str) -> Line:
        """That of a site."""
        return self.lines.setdefault(site, Line())

    async def call(self, site: str, kind: str, answer: Callable[[Hub], Awaitable[bytes]]) -> bytes:
        """One call; what the hub answers. Raises as an exchange does."""
        line = self.line(site)
        trouble = self._trouble(line)
        self._trace.note("call", site, kind, trouble)
        if trouble:
            self._counts[f"wire {trouble}"] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await self._exchange(site, line, trouble, kind, answer)
        except TimeoutError:
            raise NotConnectedError(f"the hub did not answer within {PATIENCE:g} s", code="dead") from None
        if status != 200:
            refusal = Refusal.of_answer(status, body)
            self._trace.note("refused", site, kind, refusal.code)
            if (fence := refusal.fence) is not None:
                raise LinkFencedError(fence, hint=cure(fence, hub=HUB))
            raise refusal.error()
        return body

    def _trouble(self, line: Line) -> str:
        if line.is_cut:
            return "cut"
        if line.is_half_open:
            return "half-open"
        throw = self._dice.random() if line.bad else 1.0
        for trouble, share in line.bad.items():
            throw -= share
            if throw < 0:
                return trouble
        return ""

    async def _exchange(
        self, site: str, line: Line, trouble: str, kind: str, answer: Callable[[Hub], Awaitable[bytes]]
    ) -> tuple[int, bytes]:
        await asyncio.sleep(self._dice.uniform(*_LATENCY))
        match trouble:
            case "cut":
                raise NotConnectedError("no route to the hub", code="cut")
            case "half-open" | "request lost":
                await asyncio.sleep(PATIENCE * 2)
            case "request twice":
                self._loop.call_later(self._dice.uniform(0.0, 2.0), self._again, site, kind, answer)
            case "request late":
                late = self._dice.choice((0.5, 3.0, 12.0, 25.0))
                await self._arrive_late(late, site, kind, answer)
        arriving = self._arrive(site, answer)
        await asyncio.wait({arriving})  # the hub goes on when nobody waits for its answer any more
        if arriving.cancelled():
            raise NotConnectedError("the connection was reset", code="hub-ended")
        status, body = arriving.result()
        await asyncio.sleep(self._dice.uniform(*_LATENCY))
        if trouble == "reply late":
            await asyncio.sleep(self._dice.choice((0.5, 3.0, 12.0, 60.0)))
        if trouble == "reply lost" or line.is_half_open:
            await asyncio.sleep(PATIENCE * 2)
        if trouble == "reset" or line.is_cut:
            raise NotConnectedError("the connection was reset", code="reset")
        return status, body

    async def _arrive_late(
        self, seconds: float, site: str, kind: str, answer: Callable[[Hub], Awaitable[bytes]]
    ) -> None:
        """Hold a request back; where its sender gives up meanwhile, or dies, it arrives all the same."""
        has_come = False

        def come() -> None:
            nonlocal has_come
            if not has_come:
                self._again(site, kind, answer)

        timer = self._loop.call_later(seconds + 0.001, come)
        await asyncio.sleep(seconds)
        has_come = True
        timer.cancel()

    def _again(self, site: str, kind: str, answer: Callable[[Hub], Awaitable[bytes]]) -> None:
        """A request arrives whose answer nobody waits for."""
        if self._listening.life is not None and not self.line(site).is_cut:
            self._trace.note("copy", site, kind)
            _ = self._arrive(site, answer)

    def _arrive(self, site: str, answer: Callable[[Hub], Awaitable[bytes]]) -> asyncio.Future[tuple[int, bytes]]:
        life = self._listening.life
        if life is None or life.has_ended:
            refused: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
            refused.set_exception(NotConnectedError("connection refused", code="hub-down"))
            refused.exception()
            return refused
        task = self._loop.create_task(_answered(answer, self._listening.hub), context=within(life))
        task.add_done_callback(_look)
        return task


def _look(task: asyncio.Future[Any]) -> None:
    """Whoever asked may be gone."""
    if not task.cancelled():
        task.exception()


async def _answered(answer: Callable[[Hub], Awaitable[bytes]], hub: Hub) -> tuple[int, bytes]:
    """As the routes of a hub answer."""
    try:
        return 200, await answer(hub)
    except LinkFencedError as error:
        refusal = Refusal.of_fence(error.fence, hint=error.hint)
    except DistctlError as error:
        refusal = Refusal.of(error)
    return refusal.status, refusal.to_json()


class Wire:
    """An `agent.sync.site.Exchange` of one site over the network."""

    def __init__(self, site: str, network: Network, life: Life) -> None:
        self._site = site
        self._network = network
        self._life = life

    async def hello(self, hello: Hello) -> Welcome:
        """Say who we are."""
        raw = hello.model_dump_json().encode()

        async def answer(hub: Hub) -> bytes:
            return (await hub.hello(self._site, read(Hello, orjson.loads(raw)))).model_dump_json().encode()

        return read(Welcome, orjson.loads(await self._call("hello", answer)))

    async def push(self, frame: bytes) -> PushReply:
        """Hand up a frame."""

        async def answer(hub: Hub) -> bytes:
            reply = await hub.push(self._site, frame)
            self._network.answered[self._site] += 1
            return reply.model_dump_json().encode()

        return read(PushReply, orjson.loads(await self._call("push", answer)))

    async def pull(self, pull: Pull) -> bytes:
        """Ask for a frame."""
        raw = pull.model_dump_json().encode()

        async def answer(hub: Hub) -> bytes:
            reply = await hub.pull(self._site, read(Pull, orjson.loads(raw)))
            self._network.answered[self._site] += 1
            return reply

        return await self._call("pull", answer)

    async def _call(self, kind: str, answer: Callable[[Hub], Awaitable[bytes]]) -> bytes:
        self._life.require()
        body = await self._network.call(self._site, kind, answer)
        self._life.require()
        return body
