"""Who is at the other end of a Unix socket: the kernel says, nobody can claim (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import socket
import struct
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.control.schema import Caller

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid
_MOST_CONNECTIONS: Final = 64


def caller_at(fileno: int) -> Caller:
    """The process that opened the connection on the descriptor `fileno`."""
    with socket.socket(fileno=os.dup(fileno)) as connection:
        pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(pid=pid, uid=uid, gid=gid, user=user_name(uid))


def user_name(uid: int) -> str:
    """The account's name, or `uid 1234` where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def most_connections() -> int:
    """How many callers are served at once: at most a quarter of the descriptors that this process may have.

    The rest is for deliveries. Without a limit, callers who hold connections open would use up all of them.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if descriptors < 0 else min(_MOST_CONNECTIONS, descriptors // 4)


class IdentifyingProtocol(H11Protocol):
    """HTTP/1.1 that puts its `Caller` into each request's `scope["state"]["caller"]`."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Ask the kernel once a connection; its requests share the answer. One connection too many is hung up on."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
            return
        self.app_state = {**self.app_state, "caller": caller_at(transport.get_extra_info("socket").fileno())}
