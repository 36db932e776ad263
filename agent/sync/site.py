"""A site's side of the link with its hub: it dials, hands up what is new, and takes in what comes down. No transport.

Two calls go on beside each other, each one at a time: `push` when there is something, `pull` always. When either fails the link
is dialled again, later each time; a link that is fenced is looked at again every minute, since a person may have decided.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from agent.supervisor import first_in, sleep_unless, unless
from agent.sync import bundles, heartbeat
from agent.sync.beyond import pass_over, told
from agent.sync.collecting import collect
from agent.sync.errand_runner import ErrandRunner
from agent.sync.fencing import LinkFencedError, cure, put_up
from agent.sync.frames import Frame, decode, encode
from agent.sync.gathering import ends, has_just_answered
from agent.sync.incoming import Incoming, TakenIn
from agent.sync.needs import Fence, Needs, Reason
from agent.sync.secret import new_secret
from agent.sync.standing import needs_of, standing
from agent.sync.turns import COME_AGAIN_AFTER, is_busy
from agent.sync.wire import VERSION, Hello, Pull, PullReply, Push, PushReply, Receipt, Welcome, read
from agent.sync.witness import Witness
from state import audit, estates, life, peers, restore, retention, streams
from state.database import Database
from state.group_commit import Unit
from state.model.clock import Clock, to_millis
from state.model.errors import DistctlError, TransientError
from state.model.ids import EstateHash
from state.model.retry import RetryPolicy
from state.model.stream import Nonce
from state.peers import Peer
from state.streams import Marks

_log = logging.getLogger("distctl.sync")

WAIT_SECONDS: Final = 10.0
"""How long the hub may wait for news before it answers a pull: the heartbeat."""

_REDIAL: Final = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(minutes=1))
_FENCED_PAUSE: Final = 60.0
T = TypeVar("T")


class Exchange(Protocol):
    """How a hub is reached. Every call raises `NotConnectedError`, `TransientError`, `DeniedError`, `FencedError`."""

    async def hello(self, hello: Hello) -> Welcome:
        """Say who we are."""
        ...

    async def push(self, frame: bytes) -> PushReply:
        """Hand up a frame."""
        ...

    async def pull(self, pull: Pull) -> bytes:
        """Ask for a frame."""
        ...


class SiteLink:
    """The link of one site with its hub."""

    def __init__(
        self,
        exchange: Exchange,
        database: Database,
        incoming: Incoming,
        *,
        hub: str,
        weights: Mapping[int, int],
        estate: EstateHash,
        software: str,
        clock: Clock,
        dice: random.Random,
        health: Callable[[], Mapping[str, Any]],
        on_owed: Callable[[Collection[str]], None],
        on_life: Callable[[], None],
        is_second: bool = False,
        on_bundle: Callable[[], None] = lambda: None,
        secret: Callable[[], str] = new_secret,
        errands: ErrandRunner | None = None,
    ) -> None:
        """`on_owed` is told of targets with new deliveries, `on_life` when this store begins anew or was answered, `on_bundle`
        when an estate of the hub may be there to be judged.

        `health` is what the hub is told of this agent. A second agent keeps copies of the hub's audit.

        `secret` makes what no other store comes up with, of each attempt; `errands` does what people at the hub ask.
        """
        self._exchange = exchange
        self._database = database
        self._incoming = incoming
        self._hub = hub
        self._weights = weights
        self._estate = estate
        self._software = software
        self._clock = clock
        self._dice = dice
        self._health = health
        self._on_owed = on_owed
        self._on_life = on_life
        self._secret = secret
        self._on_bundle = on_bundle
        self._witness = Witness(database, clock=clock, keeps=is_second, shares_with={hub})
        self._errands = errands
        self._news = asyncio.Event()
        self._wanted: Collection[EstateHash] = ()  # the estates that the hub still waited for when it was greeted
        self._was_up = False  # since it was dialled last, a pull was answered
        self.trouble: DistctlError | None = None
        """Why nothing is exchanged at the moment."""

    def wake(self) -> None:
        """There is something for the hub."""
        self._news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep the link up until the agent stops."""
        failures = 0
        while not stopping.is_set():
            self._was_up = False
            try:
                await self.keep_up(stopping)
                return
            except* DistctlError as group:
                error = first_in(group)
                self.trouble = error if isinstance(error, DistctlError) else None
            failures = 1 if self._was_up else failures + 1
            await sleep_unless(stopping, self._pause(failures), clock=self._clock)

    def _pause(self, failures: int) -> float:
        _log.warning("nothing is exchanged with the hub %s now: %s", self._hub, self.trouble)
        if isinstance(self.trouble, LinkFencedError):
            return _FENCED_PAUSE
        wish = self.trouble.retry_after if isinstance(self.trouble, TransientError) else None
        return max(_REDIAL.delay(failures, dice=self._dice), wish or timedelta(0)).total_seconds()

    async def keep_up(self, stopping: asyncio.Event) -> None:
        """Say hello, then push and pull until `stopping` is set or one of them fails."""
        nonce, needs = await self.greet()
        self.trouble = None
        taken = await self._database.write(self._take_in_what_waited, name="sync.waited")
        self._on_owed(taken.owed)
        self._on_bundle()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._push_on(nonce, needs.after, stopping), name="sync push")
            tasks.create_task(self._pull_on(stopping), name="sync pull")

    async def _unless_busy(self, call: Awaitable[T], stopping: asyncio.Event) -> T | None:
        """What the hub answers; None where it asks to come again, after a while."""
        try:
            return await call
        except TransientError as error:
            if not is_busy(error):
                raise
            pause = (error.retry_after or COME_AGAIN_AFTER).total_seconds()
            await sleep_unless(stopping, pause * (1 + self._dice.random()), clock=self._clock)
            return None

    # Hello.

    async def greet(self) -> tuple[Nonce, Needs]:
        """Compare both sides' marks; the nonce of this session and what the hub needs.

        Raises `LinkFencedError`, `RejectedError`.
        """
        while True:
            hello = await self._database.write(self._hello, name="sync.hello")
            welcome = await self._exchange.hello(hello)
            welcome.require_of(self._hub)
            if not welcome.begin_epoch:
                greeted = await self._compare(welcome)
                self._wanted = welcome.wanted
                await self._witness.hear(self._hub, epoch=welcome.epoch, said=welcome.audit)
                return greeted
            await self._database.write(partial(self._adopted, welcome), name="sync.adopted")
            self._on_life()

    async def _compare(self, welcome: Welcome) -> tuple[Nonce, Needs]:
        try:
            return await self._answer(partial(self._greeted, welcome), name="sync.greeted")
        except LinkFencedError as error:
            if error.fence.site != self._hub:
                await self._stop_here()
            raise

    async def _stop_here(self) -> None:
        """This store is at fault: it works no more, and the hub is told by a hello, since a person decides there."""
        self._on_life()
        with suppress(DistctlError):
            await self._exchange.hello(await self._database.write(self._hello, name="sync.hello"))

    def _hello(self, connection: sqlite3.Connection) -> Hello:
        peer = peers.ensure(connection, self._hub)
        return Hello.of(
            standing(connection, life.get(connection), peer),
            version=VERSION,
            software=self._software,
            estate=self._estate,
            nonce=peer.nonce,
            health=self._of_itself(connection),
            bundle=bundles.last_received(connection),
            receipt=_receipt(connection, peer),
            fenced=life.get(connection).fenced,
            audit=self._witness.word(self._hub, connection),
            **told(connection, peer),
        )

    def _of_itself(self, connection: sqlite3.Connection) -> dict[str, Any]:
        """What this agent says of itself, in a hello and in each pull."""
        return {**self._health(), **heartbeat.told(connection), **bundles.told(connection)}

    def _adopted(self, welcome: Welcome, connection: sqlite3.Connection) -> None:
        """A person at the hub decided that this store goes on: it begins a new epoch with what the hub does not have."""
        now = to_millis(self._clock.now())
        before = life.get(connection)
        begun = life.begin_epoch(connection, now=now, least=welcome.begin_epoch, asked=self._hub)
        doubted = restore.doubt(connection, taken_at=None, now=self._clock.now())
        audit.append(
            connection,
            at_ms=now,
            actor="agent",
            action="adopt",
            target=f"agent {begun.site}",
            reason=f"decided at the hub {self._hub}",
            before={"epoch": before.epoch},
            after={"epoch": begun.epoch, "in_doubt": doubted},
        )

    def _greeted(self, welcome: Welcome, connection: sqlite3.Connection) -> tuple[Nonce, Needs] | Fence:
        here, peer = life.get(connection), peers.ensure(connection, self._hub)
        needs = needs_of(connection, here, peer, welcome.standing(), self._incoming.outgoing)
        if isinstance(needs, Fence):
            put_up(connection, peer, needs, now=self._clock.now())
            return needs
        if welcome.epoch > peer.epoch:
            peers.know_epoch(connection, peer, welcome.epoch)
        peers.open_again(connection, peer)  # whatever was wrong with the hub's store: this one fits
        if (
            welcome.nonce is not None and welcome.nonce != peer.nonce
        ):  # a pull with it may be under way: keep its attempt
            peers.issue(connection, peer, welcome.nonce, attempt=self._secret())
        nonce = welcome.nonce or peer.nonce
        if nonce is None:
            raise TransientError("the hub gave no nonce", hint="compare the versions of both agents", code="nonce")
        streams.acknowledge(connection, peer.id, epoch=here.epoch, marks=needs.after)
        pass_over(connection, here.site, peer, welcome, now=self._clock.now())
        bundles.receive(connection, welcome.bundle)
        peers.hear(connection, peer, now=to_millis(self._clock.now()))
        return nonce, needs

    # Up.

    async def _push_on(self, nonce: Nonce, after: Marks, stopping: asyncio.Event) -> None:
        wanted: Collection[EstateHash] = self._wanted
        while not stopping.is_set():
            self._news.clear()
            frame = await self._database.read(partial(self._frame, nonce, after, wanted))
            if not frame.segments and not frame.estates:
                await unless(stopping, self._news.wait())
                continue
            raw = await asyncio.to_thread(encode, frame)
            reply = await self._unless_busy(self._exchange.push(raw), stopping)
            if reply is None:
                continue
            await self._database.write(partial(self._acknowledged, reply), name="sync.acknowledged")
            after, wanted = {**after, **reply.received}, reply.wanted

    def _frame(
        self, nonce: Nonce, after: Marks, wanted: Collection[EstateHash], connection: sqlite3.Connection
    ) -> Frame:
        here, peer = life.get(connection), peers.find(connection, self._hub)
        if peer is None:
            raise TransientError("the hub is not known here yet", hint="say hello first", code="hello")
        push = Push(
            version=VERSION,
            epoch=here.epoch,
            peer_epoch=peer.epoch,
            nonce=nonce,
            sent=ends(connection, here, peer, self._incoming.outgoing),
            bundles=bundles.sealed(connection, wanted),
        )
        segments = collect(connection, peer.id, epoch=here.epoch, after=after, weights=self._weights)
        return Frame(head=push.to_head(), segments=segments, estates=estates.documents(connection, hashes=wanted))

    def _acknowledged(self, reply: PushReply, connection: sqlite3.Connection) -> None:
        here, peer = life.get(connection), peers.ensure(connection, self._hub)
        if reply.peer_epoch == here.epoch:
            streams.acknowledge(connection, peer.id, epoch=here.epoch, marks=reply.received)
        if (receipt := reply.to_receipt()) is not None:
            peers.keep_receipt(connection, peer, receipt.model_dump_json())

    # Down.

    async def _pull_on(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            pull = await self._database.read(self._pull)
            raw = await self._unless_busy(unless(stopping, self._exchange.pull(pull)), stopping)
            if raw is None:
                continue
            frame = await asyncio.to_thread(decode, raw)
            taken = await self._answer(partial(self._take_in, pull, frame), name="sync.take_in")
            reply = read(PullReply, frame.head)
            await self._witness.hear(self._hub, epoch=reply.epoch, said=reply.audit)
            self._was_up = True
            self._on_owed(taken.owed)
            if taken.sent_to:
                self.wake()
            if taken.is_answer:
                self._on_life()
            if taken.is_bundle:
                self._on_bundle()
            if self._errands is not None:
                self._errands.take(reply.errands)

    def _pull(self, connection: sqlite3.Connection) -> Pull:
        here, peer = life.get(connection), peers.find(connection, self._hub)
        if peer is None or peer.nonce is None:
            raise TransientError("the hub is not known here yet", hint="say hello first", code="hello")
        return Pull(
            version=VERSION,
            epoch=here.epoch,
            peer_epoch=peer.epoch,
            nonce=peer.nonce,
            attempt=peer.attempt,
            received=dict(streams.received(connection, peer.id, epoch=peer.epoch)),
            sent=ends(connection, here, peer, self._incoming.outgoing),
            wanted=bundles.wanted(connection),
            wait_seconds=WAIT_SECONDS,
            health=self._of_itself(connection),
            bundle=bundles.last_number(connection),
            audit=self._witness.word(self._hub, connection),
            run=self._errands.run if self._errands else "",
            errands=self._errands.taken if self._errands else [],
        )

    def _take_in(self, pull: Pull, frame: Frame, connection: sqlite3.Connection) -> TakenIn | Fence:
        reply, peer = read(PullReply, frame.head), peers.ensure(connection, self._hub)
        if peer.nonce != pull.nonce or reply.epoch != peer.epoch:
            raise TransientError("the hub was greeted anew meanwhile", hint="it is asked again", code="hello")
        taken = TakenIn(is_bundle=bundles.receive(connection, reply.bundle) or bool(frame.estates))
        if estates.keep_all(connection, frame.estates):
            taken.add(self._take_in_what_waited(connection))
        for segment in frame.segments:
            came = self._incoming.take_in(connection, peer, segment)
            if came is Reason.GAP:
                raise TransientError("what the hub sent does not follow what is here", hint="say hello", code="gap")
            if isinstance(came, Reason):
                fence = Fence(self._hub, came, f"its tier {segment.tier} tells another story than before")
                put_up(connection, peer, fence, now=self._clock.now())
                return fence
            taken.add(came)
        taken.is_answer = has_just_answered(connection, life.get(connection), peer, reply.sent)
        retention.be_told(connection, peer.id, reply.backed_up.held() if reply.backed_up else None)
        peers.issue(connection, peer, reply.nonce, attempt=self._secret())
        peers.hear(connection, peer, now=to_millis(self._clock.now()))
        return taken

    def _take_in_what_waited(self, connection: sqlite3.Connection) -> TakenIn:
        """At a hello too: its estate may have been adopted here meanwhile, or this version reads what the last one did not."""
        return self._incoming.take_in_what_waited(connection, lambda: [peers.ensure(connection, self._hub)])

    async def _answer(self, unit: Unit[T | Fence], *, name: str) -> T:
        answer = await self._database.write(unit, name=name)
        if isinstance(answer, Fence):
            raise LinkFencedError(answer, hint=cure(answer, hub=self._hub))
        return answer


def _receipt(connection: sqlite3.Connection, peer: Peer) -> Receipt | None:
    kept = peers.receipt(connection, peer)
    return Receipt.model_validate_json(kept) if kept else None
