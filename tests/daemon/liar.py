"""An agent that was taken over: it has the certificate of its site, and says what it likes."""

from __future__ import annotations

from typing import Any

from agent.sync.frames import Frame, Segment, decode, encode
from agent.sync.site import Exchange
from agent.sync.wire import VERSION, Hello, Pull, PullReply, Push, PushReply, Welcome, read
from state.model.event import Event
from state.model.stream import BEGINNING, Mark

_HEAD: dict[str, Any] = {"version": VERSION, "epoch": 1, "peer_epoch": 1}


class Liar:
    """An agent that keeps to nothing: each call says what it is given, and as much else as makes it a call."""

    def __init__(self, wire: Exchange, site: str = "north") -> None:
        self._site = site
        self._wire = wire
        self._attempts = 0
        self._marks: dict[int, Mark] = {}
        self.nonce: Any = None

    async def hello(self, **said: Any) -> Welcome:
        welcome = await self._wire.hello(Hello(**{**_HEAD, "site": self._site, **said}))
        self.nonce = welcome.nonce or said.get("nonce")
        return welcome

    async def pull(self, **said: Any) -> PullReply:
        self._attempts += 1
        pull = Pull(**{**_HEAD, "nonce": self.nonce, "attempt": f"a{self._attempts}", **said})
        reply = read(PullReply, decode(await self._wire.pull(pull)).head)
        self.nonce = reply.nonce
        return reply

    async def push(self, *events: Event) -> PushReply:
        segment = Segment(tier=1, after=self._marks.get(1, BEGINNING), events=events)
        head = Push(**{**_HEAD, "nonce": self.nonce}).to_head()
        reply = await self._wire.push(encode(Frame(head=head, segments=[segment])))
        self._marks |= reply.received
        return reply
