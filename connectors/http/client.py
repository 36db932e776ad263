"""One HTTP system over httpx: sends a request under a total deadline and returns the whole answer, or says what is known.

The one place that names httpx. It knows exactly whether a byte of a request may have left (httpcore's trace tells), so a failure
either sent nothing (`NotConnectedError`) or is `InDoubtError`: it was sent and no whole answer came. A connection that the
server closed while our request travelled is the second: it may have read it.

No redirect is followed, no proxy of the environment used, no cookie kept. An answer is bounded in bytes after decompression,
piece by piece, so neither an endless body nor a gzip bomb is ever held.

Concurrency: any number of calls at once over one pool. Cancellation closes the connection of the call.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from connectors.http.settings import Auth, BasicAuth, BearerAuth, ConnectionSettings, HeaderAuth
from connectors.secrets import resolve
from state.model.errors import ConfigError, DistctlError, InDoubtError, NotConnectedError, TransientError
from state.model.visible import visible

SHARE_OF_DEADLINE: Final = 0.95
"""Ours ends a little before the one that the agent puts around the call, so that what we know is not lost."""

_LONGEST_CONNECT: Final = 10.0  # seconds; a host that drops packets is unreachable, not slow
_MOST_CONNECTIONS: Final = 64  # the highest in_flight of an estate: the pool itself never makes a call wait
_IDLE: Final = 4.0  # seconds; shorter than the 5 s after which common servers close an idle connection
_SHOWN: Final = 300
_DISTRUST_HINT: Final = "nothing was sent; have the server's certificate renewed, or name its authority in ca_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. Header names are in lower case; `body` is decompressed."""

    call: str  # for people: POST /purchase-orders
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Calls one server. Raises `ConfigError` at once for a secret or authority that cannot be read."""

    def __init__(self, settings: ConnectionSettings, *, home: Path, deadline: timedelta) -> None:
        self._base = settings.base_url
        self._origin = _origin(self._base)
        self._byte_limit = settings.byte_limit
        self._seconds = deadline.total_seconds() * SHARE_OF_DEADLINE
        credentials, secrets = _credentials(settings.auth, home)
        self._secrets = secrets
        self._headers = {
            "user-agent": "distctl",
            "accept-encoding": "gzip, deflate",
            **settings.headers,
            **credentials,
        }
        connect = min(_LONGEST_CONNECT, self._seconds / 2)
        self._timeout = {"connect": connect, "pool": connect, "read": None, "write": None}
        self._transport = httpx.AsyncHTTPTransport(
            verify=_authorities(settings, home),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=_MOST_CONNECTIONS,
                max_keepalive_connections=_MOST_CONNECTIONS,
                keepalive_expiry=_IDLE,
            ),
        )

    def deadline(self) -> float:
        """When a call that starts now must have ended, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._seconds

    def address(self, path: str) -> str:
        """The full address of a path of the settings."""
        return self._base + path

    def follow(self, link: str, *, current: str) -> str:
        """The address of a link in an answer from `current`.

        Raises `NotConnectedError` where it leads to another server: our credentials do not go there.
        """
        address = urljoin(current, link)
        if not link.isascii() or not link.isprintable() or _origin(address) != self._origin:
            raise NotConnectedError(
                f"the next page leads elsewhere: {self.safe(link)}",
                hint=f"links are followed on {self._origin} only; set base_url to the server that serves the pages",
                code="foreign-link",
            )
        return address

    async def send(
        self,
        method: str,
        address: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        until: float | None = None,
    ) -> Answer:
        """One request and its whole answer, whatever its status, before `until` (default a whole deadline from now).

        Raises `NotConnectedError` where nothing could be sent, `TransientError` where the time was over before it was, and
        `InDoubtError` where it was sent and no whole answer came.
        """
        progress = _Progress()
        call = f"{method} {self.safe(urlsplit(address).path)}"
        try:
            request = httpx.Request(
                method,
                address,
                headers={**self._headers, **(headers or {})},
                content=body,
                extensions={"timeout": self._timeout, "trace": progress.note},
            )
            async with asyncio.timeout_at(self.deadline() if until is None else until):
                response = await self._transport.handle_async_request(request)
                try:
                    content = await self._read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, _UnreadableAnswerError) as error:
            raise self._translated(error, call, progress) from None
        return Answer(
            call=call, status=response.status_code, headers=_lowered(response.headers.multi_items()), body=content
        )

    async def ask(self, address: str, *, until: float | None = None) -> Answer:
        """One GET, which changes nothing: an answer that got lost is a `TransientError`."""
        try:
            return await self.send("GET", address, until=until)
        except InDoubtError as error:
            raise TransientError(error.message, hint="it is asked again", code=error.code) from None

    def safe(self, text: str, limit: int = _SHOWN) -> str:
        """Text from the server as it may be shown: on one line, cut, without our own secrets."""
        cut = self.without_secrets(text)
        return visible(cut if len(cut) <= limit else f"{cut[: limit - 1]}…")

    def without_secrets(self, text: str) -> str:
        """`text` with our own secrets blotted out: servers like to repeat them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Close every connection. May be called again."""
        await self._transport.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        inflater = _inflater(response.headers.get("content-encoding", ""))
        body = bytearray()
        async for piece in response.aiter_raw():
            body += inflater.feed(piece, self._byte_limit + 1 - len(body))
            if len(body) > self._byte_limit:
                raise _UnreadableAnswerError(f"the answer is larger than {self._byte_limit} bytes (byte_limit)")
        inflater.finish()
        return bytes(body)

    def _translated(self, error: Exception, call: str, progress: _Progress) -> DistctlError:
        why = self.safe(_words(error))
        if not progress.was_sent and isinstance(error, TimeoutError):
            return NotConnectedError(
                f"{call} was not sent: no time was left for it", hint="it is tried again", code="not-sent"
            )
        if not progress.was_sent:
            is_distrust = "certificate" in why.lower()
            return NotConnectedError(
                f"{self._origin} cannot be reached: {why}",
                hint=_DISTRUST_HINT if is_distrust else "nothing was sent; look whether it runs, and at base_url",
                code="certificate" if is_distrust else "unreachable",
            )
        return InDoubtError(
            f"{call} was sent to {self._origin} and no whole answer came: {why}",
            hint="it is asked, or sent again under the same key, never blindly",
            code="no-answer",
        )


class _Progress:
    """How far one request came, as httpcore reports it."""

    def __init__(self) -> None:
        self.was_sent = False

    async def note(self, event: str, _info: object) -> None:
        """Called by httpcore at each step; the name is `http11.send_request_headers.started`."""
        if event.endswith(".send_request_headers.started"):
            self.was_sent = True


class _UnreadableAnswerError(Exception):
    """The answer breaks its own encoding or our limit; never leaves this module."""


class _Plain:
    """A body without content coding."""

    def feed(self, piece: bytes, room: int) -> bytes:
        """`piece`, at most `room` bytes of it."""
        return piece[:room]

    def finish(self) -> None:
        """Nothing can be missing that HTTP itself does not notice."""


class _Inflater:
    """A gzip or deflate body, inflated no further than there is room."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either, by its header

    def feed(self, piece: bytes, room: int) -> bytes:
        """The next bytes of the body, at most `room` of them."""
        try:
            content = self._inflate.decompress(piece, room)
        except zlib.error as error:
            raise _UnreadableAnswerError(f"its compression is broken ({error})") from None
        if self._inflate.unused_data:
            raise _UnreadableAnswerError("bytes follow its compressed body")
        return content

    def finish(self) -> None:
        """Refuse a body that was cut inside its compression."""
        if not self._inflate.eof:
            raise _UnreadableAnswerError("its compressed body is cut short")


def _inflater(coding: str) -> _Plain | _Inflater:
    match coding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip" | "deflate":
            return _Inflater()
        case other:
            raise _UnreadableAnswerError(f"it is compressed as {other!r}, which nobody asked for")


def _words(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return "no connection in time"
        case TimeoutError():
            return "no whole answer before the deadline"
        case _:
            return str(error) or type(error).__name__


def _origin(address: str) -> str:
    """Scheme, host and port as one text; empty for what is no HTTP address."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _lowered(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; what comes several times is joined (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    for name, value in items:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _credentials(auth: Auth | None, home: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The header that says who we are, and every text that must not be shown."""
    match auth:
        case BearerAuth():
            token = _sendable(resolve(auth.token, home=home), auth.token)
            return {"authorization": f"Bearer {token}"}, (token,)
        case BasicAuth():
            password = resolve(auth.password, home=home)
            pair = base64.b64encode(f"{auth.user}:{password}".encode()).decode()
            return {"authorization": f"Basic {pair}"}, (pair, password)
        case HeaderAuth():
            value = _sendable(resolve(auth.value, home=home), auth.value)
            return {auth.name: value}, (value,)
        case None:
            return {}, ()


def _sendable(secret: str, reference: str) -> str:
    if not secret.isascii() or not secret.isprintable():
        raise ConfigError(
            f"the secret {reference} has characters that a header cannot carry",
            hint="it holds a line end or letters beyond ASCII; store the token alone",
            code="secret",
        )
    return secret


def _authorities(settings: ConnectionSettings, home: Path) -> ssl.SSLContext | bool:
    if settings.base_url.startswith("http://"):
        return False  # no redirect is followed, so no TLS ever happens here
    path = None if settings.ca_file is None else str(home / settings.ca_file)
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_file {settings.ca_file} cannot be used: {error.strerror or error}",
            hint="name a PEM file with the certificates of the authorities",
            code="ca-file",
        ) from None
