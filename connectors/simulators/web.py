"""As much of an HTTP/1.1 server as a partner needs who wants to misbehave below HTTP: hang up, answer late, never answer.

Bodies have a Content-Length; connections are kept alive. A handler that waits is not cancelled when its client goes away: what
it set out to do, it does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


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
            while (request := await _read(reader)) is not None:
                _write(writer, await handler(request))
                await writer.drain()
        except HangUp:
            _reset(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    return await asyncio.start_server(converse, "127.0.0.1", port)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, target, _ = start.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    address = urlsplit(target)
    return Request(
        method=method,
        path=address.path,
        query=dict(parse_qsl(address.query)),
        headers=headers,
        body=await reader.readexactly(int(headers.get("content-length", "0"))),
    )


def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    body = json.dumps(reply.document).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a process does that is killed with unread data."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
