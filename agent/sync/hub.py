"""The hub's side of its links: what a site may say, what it gets, and when it is fenced. No transport: bytes and values.

A `pull` that finds nothing waits for news; everything else answers at once. Each call of a site is judged in the transaction that
answers it, so two stores with one identity cannot pass each other between a look and a write.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from agent.identity.seal import Seal
from agent.sync.admission import (
    fence_of_call,
    fence_of_hello,
    fence_of_pull,
    fence_of_receipt,
    has_used_a_nonce,
    require_not_overtaken,
)
from agent.sync.audit_word import AuditWord
from agent.sync.beyond import pass_over, told, untrue
from agent.sync.bundles import HubBundles
from agent.sync.collecting import collect
from agent.sync.errands import Errands, unpack
from agent.sync.fencing import LinkFencedError, cure, held_against, put_up
from agent.sync.frames import Frame, Segment, decode, encode
from agent.sync.gathering import ends, has_just_answered
from agent.sync.heartbeat import heard
from agent.sync.incoming import Incoming, TakenIn
from agent.sync.needs import Fence, Reason
from agent.sync.proofs import Proofs
from agent.sync.secret import new_secret
from agent.sync.standing import needs_of, standing
from agent.sync.turns import Turns
from agent.sync.wire import (
    VERSION,
    Answer,
    Hello,
    Pull,
    PullReply,
    Push,
    PushReply,
    Welcome,
    WireHeld,
    agree,
    read,
)
from agent.sync.witness import Witness
from state import audit, estates, life, peers, retention, streams
from state.database import Database
from state.group_commit import Unit
from state.identities import Standing
from state.life import Life
from state.model.clock import Clock, to_millis
from state.model.errors import TransientError
from state.model.ids import EstateHash
from state.model.stream import NO_NONCE, Nonce
from state.peers import Peer, PeerState

LONGEST_WAIT: Final = 10.0
"""Seconds after which a pull without news is answered all the same: the heartbeat of a link."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What there is for a site at one moment."""

    segments: list[Segment]
    documents: dict[EstateHash, bytes]
    word: AuditWord


class Hub:
    """The agent that the others dial."""

    def __init__(
        self,
        site: str,
        database: Database,
        incoming: Incoming,
        *,
        weights: Mapping[int, int],
        estate: EstateHash,
        software: str,
        clock: Clock,
        on_owed: Callable[[Collection[str]], None],
        on_life: Callable[[], None],
        second: str | None = None,
        on_denied: Callable[[Standing], None] = lambda _: None,
        seal: Callable[[], Seal | None] = lambda: None,
        secret: Callable[[], str] = new_secret,
        errands: Errands | None = None,
    ) -> None:
        """`on_owed` is told of targets with new deliveries, `on_life` when this store may not go on, or has been answered.

        The agent of the site `second` may have copies of this audit. `on_denied` is told of a denial that is in force again.
        `seal` is the hub's own: without it no bundle is handed out, no estate is taken from a site, and nothing that this
        store has forgotten is proven.

        `secret` makes what nobody can guess, of each nonce; `errands` are what people ask of the sites.
        """
        self._site = site
        self._database = database
        self._incoming = incoming
        self._weights = weights
        self._estate = estate
        self._software = software
        self._clock = clock
        self._on_owed = on_owed
        self._on_life = on_life
        self._proofs = Proofs(seal, secret)
        self._bundles = HubBundles(seal, clock)
        self._witness = Witness(
            database, clock=clock, keeps=True, shares_with={second} if second else (), on_denied=on_denied
        )
        self._errands = errands or Errands()
        self._sessions: dict[str, Nonce | None] = {}  # the nonce that a site had when it last said hello
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._is_retired = False
        self._turns = Turns()

    def wake(self, sites: Iterable[str]) -> None:
        """There is something for these sites."""
        for site in sites:
            self._news[site].set()

    def retire(self) -> None:
        """Another takes over, or the agent stops: the pulls that wait are answered, and none waits any more."""
        self._is_retired = True
        self.wake(self._news)

    async def hello(self, site: str, hello: Hello) -> Welcome:
        """Compare both sides' marks. Raises `LinkFencedError`, `RejectedError`."""
        version = agree(hello.version)
        hello.require_of(site)
        welcome = await self._answer(site, partial(self._welcome, site, hello, version), name="sync.hello")
        self._sessions[site] = welcome.nonce or hello.nonce
        self._bundles.greet(site)
        taken = await self._database.write(self._take_in_what_waited, name="sync.waited")
        self._on_owed(taken.owed)
        self.wake(taken.sent_to)
        if welcome.begin_epoch:
            return welcome
        await self._witness.hear(site, epoch=hello.epoch, said=hello.audit)
        word = await self._database.read(partial(self._witness.word, site))
        self._witness.give(site, word)
        return welcome.model_copy(update={"audit": word})

    async def push(self, site: str, raw: bytes) -> PushReply:
        """Take in what a site hands up. Raises `LinkFencedError`, `RejectedError`; as any call with a frame, `TransientError`
        where the hub has too many in work.
        """
        async with self._turns:
            return await self._push(site, raw)

    async def _push(self, site: str, raw: bytes) -> PushReply:
        frame = await asyncio.to_thread(decode, raw)
        push = read(Push, frame.head)
        if self._sessions.get(site) != push.nonce:
            raise TransientError("another hello of this site came since", hint="say hello again", code="hello")
        reply, taken = await self._answer(site, partial(self._take_in, site, push, frame), name="sync.push")
        if taken.is_answer:
            self._on_life()
        self._on_owed(taken.owed)
        self.wake(taken.sent_to)
        return reply

    async def pull(self, site: str, pull: Pull) -> bytes:
        """What there is for a site behind what it has; waits for news where there is nothing. Raises as `push`.

        It is cancelled where nobody is there any more to be answered.
        """
        if site not in self._sessions:
            raise TransientError("the hub began anew since this site said hello", hint="say hello again", code="hello")
        news = self._news[site]
        news.clear()
        here, peer, is_answer = await self._answer(site, partial(self._look, site, pull), name="sync.look")
        if is_answer:
            self._on_life()
        presence = self._errands.hear(site, pull.run)
        try:
            return await self._reply(site, pull, here, peer, news)
        except asyncio.CancelledError:
            self._errands.lose(site, presence)
            raise

    async def _reply(self, site: str, pull: Pull, here: Life, peer: Peer, news: asyncio.Event) -> bytes:
        has_said_more = await self._witness.hear(site, epoch=pull.epoch, said=pull.audit)
        look = partial(self._for_the_site, here, peer, pull)
        async with self._turns:
            found = await self._database.read(look)
            is_news = has_said_more or self._is_news(site, found) or self._errands.has_for(site, pull.run, pull.errands)
            if is_news or not pull.wait_seconds or self._is_retired:
                return await self._give(site, pull, found)
        await self._wait(news, min(pull.wait_seconds, LONGEST_WAIT))
        async with self._turns:
            return await self._give(site, pull, await self._database.read(look))

    async def _give(self, site: str, pull: Pull, found: _Found) -> bytes:
        reply = await self._answer(site, partial(self._hand_down, site, pull, found.word), name="sync.pull")
        self._witness.give(site, found.word)
        errands = self._errands.give(site, pull.run, pull.errands)
        head = reply.model_copy(update={"errands": errands}).to_head()
        return await asyncio.to_thread(encode, Frame(head=head, segments=found.segments, estates=found.documents))

    async def answer(self, site: str, raw: bytes) -> None:
        """Take a site's answer to an errand. Raises `LinkFencedError`, `RejectedError`."""
        answer = await asyncio.to_thread(unpack, raw)
        await self._answer(site, partial(self._may_answer, site, answer), name="sync.may_answer")
        self._errands.answer(site, answer)
        self.wake([site])  # its next call tells how it stands after that

    async def _wait(self, news: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), seconds)

    # Units of work. A fence must be kept, so it is returned, and raised behind the commit.

    def _welcome(self, site: str, hello: Hello, version: int, connection: sqlite3.Connection) -> Welcome | Fence:
        here, peer = life.get(connection), peers.ensure(connection, site)
        is_new_life = hello.epoch > peer.epoch
        if fence := self._forgotten(connection, here, peer, hello) or fence_of_hello(here, peer, hello, self._proofs):
            return self._fence(connection, peer, fence)
        if peer.state is PeerState.ADOPTING and not is_new_life:
            return self._introduce(connection, here, peer, version, begin_epoch=peer.epoch + 1)
        if fence := untrue(connection, here, peer, hello):
            return self._fence(connection, peer, fence)
        needs = needs_of(connection, here, peer, hello.standing(), self._incoming.outgoing)
        if isinstance(needs, Fence):
            return self._fence(connection, peer, held_against(peer, needs))
        if is_new_life or peer.nonce is None:
            nonce: Nonce | None = self._recognise(connection, here, peer, hello.epoch)
        else:
            nonce = None if has_used_a_nonce(peer) else peer.nonce  # the reply that gave it may have been lost
        streams.acknowledge(connection, peer.id, epoch=here.epoch, marks=needs.after)
        pass_over(connection, here.site, peer, hello, now=self._clock.now())
        self._bundles.outnumber(connection, hello)
        now = self._clock.now()
        peers.hear(connection, peer, now=to_millis(now), said=heard(hello.health, now))
        return self._introduce(connection, here, peers.ensure(connection, site), version, nonce=nonce)

    def _forgotten(self, connection: sqlite3.Connection, here: Life, peer: Peer, hello: Hello) -> Fence | None:
        if hello.receipt is None:
            return None
        received = streams.received(connection, peer.id, epoch=hello.receipt.of)
        return fence_of_receipt(here, peer, hello.receipt, received, self._proofs)

    def _take_in(
        self, site: str, push: Push, frame: Frame, connection: sqlite3.Connection
    ) -> tuple[PushReply, TakenIn] | Fence:
        here, peer = life.get(connection), peers.ensure(connection, site)
        if fence := fence_of_call(here, peer, push):
            return self._fence(connection, peer, fence)
        taken = self._take_in_estates(connection, site, push, frame)
        for segment in frame.segments:
            came = self._incoming.take_in(connection, peer, segment)
            if isinstance(came, Reason):
                return self._fence(connection, peer, _misfit(peer, segment, came))
            taken.add(came)
        peers.hear(connection, peer, now=to_millis(self._clock.now()))
        taken.is_answer = has_just_answered(connection, here, peer, push.sent)
        received = dict(streams.received(connection, peer.id, epoch=peer.epoch))
        reply = PushReply(
            version=VERSION,
            epoch=here.epoch,
            peer_epoch=peer.epoch,
            received=received,
            wanted=self._bundles.wanted(connection, site),
            receipt=self._proofs.receipt(site=site, epoch=here.epoch, of=peer.epoch, received=received),
        )
        return reply, taken

    def _take_in_estates(self, connection: sqlite3.Connection, site: str, push: Push, frame: Frame) -> TakenIn:
        ours = self._bundles.ours(connection, site, push, frame)
        return self._take_in_what_waited(connection) if estates.keep_all(connection, ours) else TakenIn()

    def _take_in_what_waited(self, connection: sqlite3.Connection) -> TakenIn:
        """At a hello too: its estate may have been adopted here meanwhile, or this version reads what the last one did not."""
        return self._incoming.take_in_what_waited(connection, partial(peers.list_all, connection))

    def _look(self, site: str, pull: Pull, connection: sqlite3.Connection) -> tuple[Life, Peer, bool] | Fence:
        """Whether this pull may wait for news; what it acknowledges is kept at once, and whether the site has answered by it."""
        here, peer = life.get(connection), peers.ensure(connection, site)
        if fence := fence_of_pull(here, peer, pull, self._proofs):
            return self._fence(connection, peer, fence)
        if pull.peer_epoch == here.epoch:
            streams.acknowledge(connection, peer.id, epoch=here.epoch, marks=pull.received)
        now = self._clock.now()
        peers.hear(connection, peer, now=to_millis(now), said=heard(pull.health, now) if pull.health else None)
        return here, peer, has_just_answered(connection, here, peer, pull.sent)

    def _hand_down(self, site: str, pull: Pull, word: AuditWord, connection: sqlite3.Connection) -> PullReply | Fence:
        """Use up the nonce, in the moment of the answer."""
        here, peer = life.get(connection), peers.ensure(connection, site)
        require_not_overtaken(peer, pull)
        if fence := fence_of_pull(here, peer, pull, self._proofs):
            return self._fence(connection, peer, fence)
        nonce = peer.nonce or NO_NONCE
        if pull.nonce == nonce:
            nonce = self._proofs.next_nonce(nonce, site=site, epoch=here.epoch)
            peers.issue(connection, peer, nonce, attempt=pull.attempt)
        held = retention.held_of(connection, peer.id)
        return PullReply(
            version=VERSION,
            epoch=here.epoch,
            peer_epoch=peer.epoch,
            nonce=nonce,
            received=dict(streams.received(connection, peer.id, epoch=peer.epoch)),
            sent=ends(connection, here, peer, self._incoming.outgoing),
            audit=word,
            backed_up=WireHeld.of(held) if held else None,
            bundle=self._bundles.news(connection, pull),
        )

    def _may_answer(self, site: str, answer: Answer, connection: sqlite3.Connection) -> Fence | None:
        """Whether the site may still say something; raises as a push does."""
        here, peer = life.get(connection), peers.ensure(connection, site)
        fence = fence_of_call(here, peer, answer)
        return self._fence(connection, peer, fence) if fence else None

    def _recognise(self, connection: sqlite3.Connection, here: Life, peer: Peer, epoch: int) -> Nonce:
        """The site lives in `epoch` now; returns its first nonce there."""
        nonce = self._proofs.next_nonce(peer.nonce or NO_NONCE, site=peer.site, epoch=here.epoch)
        peers.issue(connection, peer, nonce, attempt="")
        peers.know_epoch(connection, peer, epoch)
        peers.open_again(connection, peer)
        audit.append(
            connection,
            at_ms=to_millis(self._clock.now()),
            actor="agent",
            action="recognise",
            target=f"agent {peer.site}",
            reason="its store has begun a new epoch" if peer.epoch else "its first hello",
            before={"epoch": peer.epoch},
            after={"epoch": epoch},
        )
        return nonce

    def _introduce(
        self, connection: sqlite3.Connection, here: Life, peer: Peer, version: int, **further: object
    ) -> Welcome:
        return Welcome.of(
            standing(connection, here, peer),
            version=version,
            software=self._software,
            estate=self._estate,
            time=self._clock.now(),
            bundle=self._bundles.head(connection),
            wanted=self._bundles.wanted(connection, peer.site),
            **told(connection, peer),
            **further,
        )

    def _fence(self, connection: sqlite3.Connection, peer: Peer, fence: Fence) -> Fence:
        put_up(connection, peer, fence, now=self._clock.now())
        return fence

    async def _answer(self, site: str, unit: Unit[T | Fence], *, name: str) -> T:
        answer = await self._database.write(unit, name=name)
        if isinstance(answer, Fence):
            self._news[site].set()  # whoever waits under that name is told as well
            if answer.site != site:
                self._on_life()
            raise LinkFencedError(answer, hint=cure(answer, hub=self._site))
        return answer

    def _for_the_site(self, here: Life, peer: Peer, pull: Pull, connection: sqlite3.Connection) -> _Found:
        return _Found(
            segments=collect(connection, peer.id, epoch=here.epoch, after=pull.received, weights=self._weights),
            documents=estates.documents(connection, hashes=pull.wanted),
            word=self._witness.word(peer.site, connection),
        )

    def _is_news(self, site: str, found: _Found) -> bool:
        return bool(found.segments or found.documents) or self._witness.is_new(site, found.word)


def _misfit(peer: Peer, segment: Segment, reason: Reason) -> Fence:
    """Raises `TransientError` for a gap, which a hello explains."""
    if reason is Reason.GAP:
        raise TransientError(
            f"what {peer.site} sent of tier {segment.tier} does not follow what is here", hint="say hello", code="gap"
        )
    detail = f"event {segment.after.seq + 1} and on of its tier {segment.tier} are others here and there"
    return Fence(peer.site, reason, detail)
