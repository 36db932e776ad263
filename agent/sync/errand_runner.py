"""Errands at a site: each is done once by this run of the process, beside the link, and its answer sent up until somebody has it.

Concurrency: errands are tasks of their own, so one that takes long keeps neither the link nor another waiting; nor does one end
with the link, which begins anew with each estate. A stop lets those under way end for two seconds. Crash: what was under way is
gone with the process, and the hub tells its caller so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from agent.errand import Answered, Question
from agent.supervisor import sleep_unless, unless
from agent.sync.secret import new_secret
from agent.sync.wire import VERSION, Answer, Errand, TokenScope
from state import life, peers
from state.database import Database
from state.model.clock import Clock
from state.model.errors import DistctlError, RejectedError
from state.model.people import Role, Scope, Vouched
from state.model.visible import visible

MOST_WAITING: Final = 64
"""Errands that wait to be begun; what comes besides is not taken and given again."""

REMEMBERED: Final = 1_000
_AGAIN_AFTER: Final = 0.5
_GRACE_SECONDS: Final = 2.0

_log: Final = logging.getLogger("distctl.sync")
_Do = Callable[[Question], Awaitable[Answered]]


class AnswerExchange(Protocol):
    """How an answer reaches the hub. Raises as `agent.sync.site.Exchange`."""

    async def answer(self, answer: Answer) -> None:
        """Hand up what became of an errand."""
        ...


class ErrandRunner:
    """Does what people at the hub ask of this site."""

    def __init__(
        self,
        do: _Do,
        database: Database,
        *,
        hub: str,
        clock: Clock,
        secret: Callable[[], str] = new_secret,
    ) -> None:
        """`do` puts a question to this agent's own control API; `hub` is the hub's site."""
        self._do = do
        self._database = database
        self._hub = hub
        self._clock = clock
        self._waiting: asyncio.Queue[Errand] = asyncio.Queue(MOST_WAITING)
        self._known: dict[str, None] = {}  # the last ids, oldest first
        self._open: set[str] = set()
        self.exchange: AnswerExchange | None = None
        """That of the link that is up."""
        self.run: Final = secret()
        """Which run of the process this is."""

    @property
    def taken(self) -> list[str]:
        """The errands whose answers are not up yet."""
        return sorted(self._open)

    def take(self, errands: Iterable[Errand]) -> None:
        """These are to be done, unless they were taken before."""
        for errand in errands:
            if errand.id in self._known or self._waiting.full():
                continue
            self._known[errand.id] = None
            self._open.add(errand.id)
            self._waiting.put_nowait(errand)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    async def work(self, stopping: asyncio.Event) -> None:
        """Do them until the agent stops."""
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            while (errand := await unless(stopping, self._waiting.get())) is not None:
                task = tasks.create_task(self._see_to(errand, stopping), name=f"errand {errand.id}")
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if under_way:
                await asyncio.wait(under_way, timeout=_GRACE_SECONDS)
            for task in list(under_way):
                task.cancel()

    async def _see_to(self, errand: Errand, stopping: asyncio.Event) -> None:
        until = self._clock.monotonic() + errand.seconds
        try:
            answered = await self._do(_question(errand))
            while not await self._is_up(errand, answered):
                if self._clock.monotonic() >= until or await sleep_unless(stopping, _AGAIN_AFTER, clock=self._clock):
                    return
        finally:
            self._open.discard(errand.id)

    async def _is_up(self, errand: Errand, answered: Answered) -> bool:
        """Whether there is nothing more to send: the hub has the answer, or does not want it."""
        if self.exchange is None:
            return False
        try:
            await self.exchange.answer(await self._answer(errand, answered))
        except RejectedError as error:
            _log.warning("the answer to a call from the hub is not wanted any more: %s", error)
        except DistctlError as error:
            _log.info("the answer to a call from the hub is not up yet: %s", error)
            return False
        return True

    async def _answer(self, errand: Errand, answered: Answered) -> Answer:
        here, peer = await self._database.read(
            lambda connection: (life.get(connection), peers.find(connection, self._hub))
        )
        return Answer(
            version=VERSION,
            epoch=here.epoch,
            peer_epoch=peer.epoch if peer else 0,
            errand=errand.id,
            status=answered.status,
            type=answered.type,
            body=answered.body.decode(errors="replace"),
        )


def _question(errand: Errand) -> Question:
    caller = Vouched(name=visible(errand.name), person=errand.person, scope=_scope(errand.token))
    return Question(method=errand.method, target=errand.target, caller=caller, seconds=errand.seconds)


def _scope(token: TokenScope | None) -> Scope | None:
    """What the token was made for; a role that this version does not know gives nothing."""
    if token is None:
        return None
    known = frozenset(Role(role) for role in token.roles if role in set(Role))
    sites = None if token.sites is None else frozenset(token.sites)
    return Scope(token=visible(token.name), roles=known, sites=sites, issued_by=visible(token.issued_by))
