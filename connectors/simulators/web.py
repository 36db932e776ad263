"""A small web server for partners: a handler answers, or hangs up, in its own time.

Connections are kept alive. A handler that waits is not cancelled when its client goes away: what it set out to do, it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from connectors.simulators.http1 import Request, read_request, reset, response


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer with a JSON document."""

    status: int
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class HangUp(Exception):  # noqa: N818 - a wish, not an error
    """Raised by a handler to reset the connection instead of answering."""


Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]


async def serve(handler: Handler, *, port: int) -> asyncio.Server:
    """A server on 127.0.0.1; port 0 lets the system choose."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                reply = await handler(await read_request(reader))
                writer.write(response(reply.status, reply.document, reply.headers))
                await writer.drain()
        except HangUp:
            reset(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    return await asyncio.start_server(converse, "127.0.0.1", port)
