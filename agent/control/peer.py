"""Who is at the other end of a Unix socket: the kernel says, nobody can claim (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.control.schema import Caller

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid


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


class IdentifyingProtocol(H11Protocol):
    """HTTP/1.1 that puts its `Caller` into each request's `scope["state"]["caller"]`."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Ask the kernel once a connection; its requests share the answer."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "caller": caller_at(transport.get_extra_info("socket").fileno())}
