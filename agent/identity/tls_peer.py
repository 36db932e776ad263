"""Who is at the other end of a TLS connection: its certificate, which OpenSSL has verified but for the time.

A connection costs the hub a descriptor, so strangers get few of them and little time: a request without a certificate has
arrived within 20 s or is cut off; an agent on a poor line takes as long as it needs, but is never silent for 30 s in the middle
of one.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.identity.certificates import AgentCertificate, read_certificate

_STRANGERS: Final = 64
_MOST_CONNECTIONS: Final = 4096
_STRANGERS_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 30.0


class AgentProtocol(H11Protocol):
    """HTTP/1.1 that puts the peer's `AgentCertificate`, or None, into each request's `scope["state"]["certificate"]`."""

    app_state: dict[str, Any]
    certificate: AgentCertificate | None = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Look at the certificate once a connection; its requests share the answer. One connection too many is hung up on."""
        super().connection_made(transport)
        self.certificate = _certificate_of(transport)
        self.app_state = {**self.app_state, "certificate": self.certificate}
        if self._is_one_too_many():
            transport.abort()
            return
        self._wait_for_the_rest()

    def data_received(self, data: bytes) -> None:
        """Take in what came; where a request is not whole yet, wait for the rest of it."""
        super().data_received(data)
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY} and (
            self.conn.their_state is h11.SEND_BODY or self._is_begun
        ):
            if self.certificate is not None:
                self._stop_waiting()
            self._wait_for_the_rest()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_begun(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _is_one_too_many(self) -> bool:
        if self.certificate is not None:
            return len(self.connections) > most_connections()
        strangers = [one for one in self.connections if isinstance(one, AgentProtocol) and one.certificate is None]
        return len(strangers) > _STRANGERS or len(self.connections) > most_connections()

    def _wait_for_the_rest(self) -> None:
        if self._patience is None:
            seconds = _STRANGERS_SECONDS if self.certificate is None else _SILENT_SECONDS
            self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self.flow.read_paused and self.certificate is not None:
            self._wait_for_the_rest()  # it is we who do not read
        else:
            self.transport.abort()


def most_connections() -> int:
    """How many agents and strangers are served at once: at most half of the descriptors that this process may have."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if descriptors < 0 else min(_MOST_CONNECTIONS, descriptors // 2)


def _certificate_of(transport: asyncio.Transport) -> AgentCertificate | None:
    der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    try:
        return read_certificate(der) if der else None
    except ValueError:  # of our authority, and no agent's: as good as none
        return None
