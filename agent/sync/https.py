"""The exchange over HTTPS: a hub's routes on its listener, and how a site calls them. Who calls is proved by TLS, never said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import httpx
import orjson
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agent.identity.judgement import AgentIdentity
from agent.identity.listener import Listener, read_body
from agent.sync.errands import PACKED_BYTES, pack
from agent.sync.fencing import LinkFencedError, cure
from agent.sync.frames import BODY_BYTES, CONTENT_TYPE
from agent.sync.hub import Hub
from agent.sync.wire import PROBLEM_TYPE, Answer, Hello, Pull, PushReply, Refusal, Welcome, read
from state.model.errors import DistctlError, RejectedError

HELLO: Final = "/sync/1/hello"
PUSH: Final = "/sync/1/push"
PULL: Final = "/sync/1/pull"
ANSWER: Final = "/sync/1/answer"

DEAD_AFTER: Final = 30.0
"""Seconds after which a call without an answer is given up and the hub is dialled again."""

_HEAD_BYTES: Final = 1024 * 1024
_Answer: TypeAlias = Callable[[Request, str, bytes], Awaitable[Response]]
Said = TypeVar("Said", bound=BaseModel)
T = TypeVar("T")


# --- the hub ------------------------------------------------------------------------------------------------------


def add_routes(listener: Listener, hub: Callable[[], Hub]) -> None:
    """Answer for `hub`, which changes with the estate in force."""

    async def hello(_: Request, site: str, body: bytes) -> Response:
        return _json(await hub().hello(site, read(Hello, _object(body))))

    async def push(_: Request, site: str, body: bytes) -> Response:
        return _json(await hub().push(site, body))

    async def pull(request: Request, site: str, body: bytes) -> Response:
        reply = await _while_there(request, hub().pull(site, read(Pull, _object(body))))
        return Response(reply, media_type=CONTENT_TYPE)

    async def answer(_: Request, site: str, body: bytes) -> Response:
        await hub().answer(site, body)
        return Response(b"{}", media_type="application/json")

    for path, handler, limit in (
        (HELLO, hello, _HEAD_BYTES),
        (PUSH, push, BODY_BYTES),
        (PULL, pull, _HEAD_BYTES),
        (ANSWER, answer, PACKED_BYTES),
    ):
        listener.add(path, _refusing(handler, limit))


async def _while_there(request: Request, answering: Awaitable[T]) -> T:
    """What `answering` gives; it is cancelled when the connection ends before. The body was read."""
    working, gone = asyncio.ensure_future(answering), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def _refusing(answer: _Answer, limit: int) -> Callable[[Request, AgentIdentity], Awaitable[Response]]:
    """What is refused is told as a `Refusal`, with what a person does about it."""

    async def handle(request: Request, identity: AgentIdentity) -> Response:
        try:
            return await answer(request, identity.site, await read_body(request, limit=limit))
        except LinkFencedError as error:
            refusal = Refusal.of_fence(error.fence, hint=error.hint)
        except DistctlError as error:
            refusal = Refusal.of(error)
        return Response(refusal.to_json(), status_code=refusal.status, media_type=PROBLEM_TYPE)

    return handle


def _json(said: BaseModel) -> Response:
    return Response(said.model_dump_json(), media_type="application/json")


def _object(body: bytes) -> dict[str, object]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise RejectedError("the request is no JSON object", rule="a head is a JSON object", code="malformed")
    return said


# --- a site -------------------------------------------------------------------------------------------------------


class HttpsExchange:
    """An `agent.sync.site.Exchange` with the hub that `client` reaches."""

    def __init__(self, client: httpx.AsyncClient, *, hub: str) -> None:
        """`hub` is the hub's site."""
        self._client = client
        self._hub = hub

    async def hello(self, hello: Hello) -> Welcome:
        """Say who we are."""
        return self._read(Welcome, await self._call(HELLO, hello.model_dump_json().encode(), "application/json"))

    async def push(self, frame: bytes) -> PushReply:
        """Hand up a frame."""
        return self._read(PushReply, await self._call(PUSH, frame, CONTENT_TYPE))

    async def pull(self, pull: Pull) -> bytes:
        """Ask for a frame."""
        return await self._call(PULL, pull.model_dump_json().encode(), "application/json")

    async def answer(self, answer: Answer) -> None:
        """Hand up what became of an errand."""
        await self._call(ANSWER, await asyncio.to_thread(pack, answer), "application/zstd")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _call(self, path: str, body: bytes, kind: str) -> bytes:
        answer = await self._client.post(path, content=body, headers={"content-type": kind})
        if answer.status_code == httpx.codes.OK:
            return answer.content
        refusal = Refusal.of_answer(answer.status_code, answer.content)
        if (fence := refusal.fence) is not None:
            raise LinkFencedError(fence, hint=cure(fence, hub=self._hub))
        raise refusal.error()

    def _read(self, kind: type[Said], body: bytes) -> Said:
        return read(kind, _object(body))
