"""Runs `distctl`, and marks what it tells others in the recording before it is told: `python -m tests.powercut.launch ...`.

The agent is the shipped one. From outside it gets two things: a smaller limit above which raw documents go to the archive, so
that the run has some, and, in the control run, another `PRAGMA synchronous`, which the store sets and reads back as ever.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.sync import https
from agent.sync.frames import Segment, decode
from agent.sync.hub import Hub
from agent.sync.wire import Hello, Pull, PullReply, PushReply, Welcome, read
from agent.sync.wire import Marks as WireMarks
from connectors.files import reading
from state import engine
from state.model.stream import Mark
from tests.powercut.recording import Marks

HELD_SIZE = 1024
"""Bytes: larger files of the planner go to the archive of raw documents."""


def main() -> None:
    """Become `distctl`."""
    marks = Marks(Path(os.environ["POWERCUT_LOG"]))
    site = os.environ["POWERCUT_SITE"]
    engine._PRAGMAS["synchronous"] = int(os.environ["POWERCUT_SYNCHRONOUS"])
    reading.HELD_SIZE = HELD_SIZE  # type: ignore[misc]
    _mark_hub(marks, site)
    _mark_site(marks, site)
    sys.argv[0] = "distctl"
    runpy.run_module("console.cli.app", run_name="__main__")


def _mark_hub(marks: Marks, here: str) -> None:
    hello, push, pull = Hub.hello, Hub.push, Hub.pull

    async def marked_hello(hub: Hub, site: str, said: Hello) -> Welcome:
        welcome = await hello(hub, site, said)
        _say(marks, here, site, received=welcome.received, nonce=_count(welcome.nonce))
        return welcome

    async def marked_push(hub: Hub, site: str, raw: bytes) -> PushReply:
        reply = await push(hub, site, raw)
        _say(marks, here, site, received=reply.received)
        return reply

    async def marked_pull(hub: Hub, site: str, said: Pull) -> bytes:
        raw = await pull(hub, site, said)
        frame = decode(raw)
        reply = read(PullReply, frame.head)
        _say(marks, here, site, received=reply.received, sent=_ends(frame.segments), nonce=_count(reply.nonce))
        return raw

    _replace(Hub, hello=marked_hello, push=marked_push, pull=marked_pull)


def _mark_site(marks: Marks, here: str) -> None:
    exchange = https.HttpsExchange
    hello, push, pull = exchange.hello, exchange.push, exchange.pull

    async def marked_hello(one: https.HttpsExchange, said: Hello) -> Welcome:
        _say(marks, here, one._hub, received=said.received, nonce=_count(said.nonce))
        return await hello(one, said)

    async def marked_push(one: https.HttpsExchange, raw: bytes) -> PushReply:
        _say(marks, here, one._hub, sent=_ends(decode(raw).segments))
        return await push(one, raw)

    async def marked_pull(one: https.HttpsExchange, said: Pull) -> bytes:
        _say(marks, here, one._hub, received=said.received, nonce=_count(said.nonce))
        return await pull(one, said)

    _replace(exchange, hello=marked_hello, push=marked_push, pull=marked_pull)


def _replace(kind: type, **methods: Callable[..., Awaitable[Any]]) -> None:
    for name, method in methods.items():
        setattr(kind, name, method)


def _say(
    marks: Marks,
    here: str,
    to: str,
    *,
    received: WireMarks | None = None,
    sent: WireMarks | None = None,
    nonce: int = 0,
) -> None:
    marks.say("exchange", by=here, to=to, received=_shown(received or {}), sent=_shown(sent or {}), nonce=nonce)


def _shown(by_tier: Mapping[int, Mark]) -> dict[str, tuple[int, str]]:
    return {str(tier): (mark.seq, mark.chain.hex()) for tier, mark in by_tier.items()}


def _ends(segments: Sequence[Segment]) -> dict[int, Mark]:
    ends = {}
    for segment in segments:
        end = segment.after
        for event in segment.events:
            end = end.after(event.id, event.data)
        ends[segment.tier] = end
    return ends


def _count(nonce: Any) -> int:
    return 0 if nonce is None else nonce.count


if __name__ == "__main__":
    main()
