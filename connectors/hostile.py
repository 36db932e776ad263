"""A partner that misbehaves on purpose and keeps its own ledger, which is the judge of every delivery.

It is a real HTTP/1.1 server on loopback, written on raw sockets so that it can also break HTTP: stay silent, trickle, reset the
connection half way, lie about lengths. A `Behaviour` says two things apart: whether and when the order *lands* in the ledger,
and what the partner *replies*. Scripted behaviours are used up one by one, for each method; after the last one it is honest.

What it serves: POST or PUT to any path takes an order, or an array of them. GET `/by-key/{key}` answers the order or 404;
GET `/orders?key=K&subject=S` searches; GET `/records` pages through `records` by `since`, `after`, `page`, `offset`, `cursor`.

    async with HostilePartner() as partner:
        partner.script("POST", accepts_then_says_nothing())
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from connectors.simulators import http1
from connectors.simulators.http1 import Request, read_request

_LARGEST_HEAD: Final = 64 * 1024
_PATIENCE: Final = 60.0  # seconds that a silent partner holds a connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One effect: an order that the partner took. `number` counts from 1."""

    number: int
    key: str
    body: dict[str, Any]
    landed_at: datetime


class Connection:
    """One accepted socket, and all the ways of answering on it. `effects` is what landed by this request, now."""

    def __init__(self, writer: asyncio.StreamWriter, stop: asyncio.Event) -> None:
        self._writer = writer
        self._stop = stop
        self.request: Request
        self.effects: list[Entry] = []

    async def send(self, raw: bytes) -> None:
        """Bytes as they stand."""
        self._writer.write(raw)
        await self._writer.drain()

    async def wait(self, seconds: float) -> bool:
        """Let time pass; True where the partner was stopped meanwhile."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def reset(self) -> None:
        """Close with RST: what was not read at the other side is gone."""
        http1.reset(self._writer)


Reply = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What one request meets. `lands_after` is in seconds; None never lands. `reply` None is the honest answer."""

    name: str
    lands_after: float | None = 0.0
    reply: Reply | None = None
    reads_request: bool = True


def response(status: int, body: bytes | object = b"", **headers: str) -> bytes:
    """A whole answer; underscores in header names become hyphens."""
    return http1.response(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


# --- replies --------------------------------------------------------------------------------------------------------


def answers(status: int, body: bytes | object = b"", **headers: str) -> Reply:
    """A whole answer."""
    raw = response(status, body, **headers)
    return lambda connection: connection.send(raw)


async def silence(connection: Connection) -> None:
    """No byte, and the connection stays open: a peer that is gone without RST looks so."""
    await connection.wait(_PATIENCE)


async def reset(connection: Connection) -> None:
    """RST instead of an answer."""
    connection.reset()


async def hang_up(connection: Connection) -> None:
    """An orderly close instead of an answer."""


def sends_then_resets(raw: bytes) -> Reply:
    """Some bytes, then RST."""

    async def reply(connection: Connection) -> None:
        await connection.send(raw)
        await connection.wait(0.02)
        connection.reset()

    return reply


def sends_then_closes(raw: bytes) -> Reply:
    """Some bytes, then an orderly close."""
    return lambda connection: connection.send(raw)


def trickles(raw: bytes, *, every: float = 0.05) -> Reply:
    """One byte at a time, so that no single read ever times out."""

    async def reply(connection: Connection) -> None:
        for byte in raw:
            await connection.send(bytes((byte,)))
            if await connection.wait(every):
                return

    return reply


async def endless_body(connection: Connection) -> None:
    """A chunked body without an end, as fast as it is read."""
    await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while not await connection.wait(0.0001):
        await connection.send(chunk)


async def endless_head(connection: Connection) -> None:
    """Header lines without an end."""
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    while not await connection.wait(0.0001):
        await connection.send(b"x-filler: " + b"a" * 4000 + b"\r\n")


def gzip_bomb(size: int) -> Reply:
    """A small body that inflates to `size` blanks."""
    packed = gzip.compress(b" " * size, mtime=0)
    return answers(200, packed, content_encoding="gzip")


# --- behaviours -----------------------------------------------------------------------------------------------------


def accepts_then_says_nothing() -> Behaviour:
    """The order lands, the caller times out."""
    return Behaviour(name="accepts, then says nothing", reply=silence)


def lands_late(seconds: float) -> Behaviour:
    """The caller times out, and the order lands `seconds` after it came: perhaps after a probe said no."""
    return Behaviour(name=f"lands {seconds} s late", lands_after=seconds, reply=silence)


def refuses(status: int, body: bytes | object = b"", **headers: str) -> Behaviour:
    """An answer, and nothing lands."""
    return Behaviour(name=f"refuses with {status}", lands_after=None, reply=answers(status, body, **headers))


def accepts_but_answers(status: int, body: bytes | object = b"", **headers: str) -> Behaviour:
    """The order lands, and the answer says something else."""
    return Behaviour(name=f"accepts, answers {status}", reply=answers(status, body, **headers))


def is_half_open() -> Behaviour:
    """Nothing lands and nothing is ever said."""
    return Behaviour(name="is half open", lands_after=None, reply=silence)


def closes_unread() -> Behaviour:
    """The connection is accepted and closed before the request is read."""
    return Behaviour(name="closes unread", lands_after=None, reply=hang_up, reads_request=False)


def promises(seconds: float, **headers: str) -> Behaviour:
    """202 now, the order lands after `seconds`."""
    return Behaviour(name="promises", lands_after=seconds, reply=answers(202, {"status": "queued"}, **headers))


# --- the partner ----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class HostilePartner:
    """The server. `remembers_keys` False is a target without idempotency: a blind resend shows as a second effect."""

    remembers_keys: bool = True
    conflict_status: int | None = None  # what a known key meets; None replays the first answer
    key_header: str = "idempotency-key"
    records: list[dict[str, Any]] = field(default_factory=list)  # what GET /records serves
    page_style: str = "none"  # none, next_link, link_header, token
    page_size: int = 100
    ledger: list[Entry] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._scripts: dict[str, deque[Behaviour]] = {}
        self._server: asyncio.Server | None = None
        self._stop = asyncio.Event()
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._late: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base address; the port stays over stop and start."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; again on the same port after a stop."""
        self._stop = asyncio.Event()
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=_LARGEST_HEAD, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end every connection. What was to land late lands first: the ledger never lies."""
        if self._server is not None:
            self._server.close()
        self._stop.set()
        await asyncio.gather(*self._late)
        for writer in list(self._serving.values()):
            writer.transport.abort()
        await asyncio.gather(*self._serving)

    def script(self, method: str, *behaviours: Behaviour) -> None:
        """What the next requests of that method meet, in this order."""
        self._scripts.setdefault(method, deque()).extend(behaviours)

    def effects(self, key: str) -> int:
        """How often an order landed under `key`."""
        return sum(entry.key == key for entry in self.ledger)

    def doubled(self) -> list[str]:
        """Keys that landed more than once."""
        return [key for key, count in Counter(entry.key for entry in self.ledger).items() if count > 1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve(reader, Connection(writer, self._stop)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the caller gave up first, or the partner stops
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, connection: Connection) -> bool:
        """One request; False where the connection is not to be used again."""
        first = next(iter(self._scripts.get("POST", ())), None)
        if first is not None and not first.reads_request:
            self._scripts["POST"].popleft()
            return False
        connection.request = request = await read_request(reader)
        self.requests.append(request)
        script = self._scripts.get(request.method)
        behaviour = script.popleft() if script else _HONEST
        if request.method in ("POST", "PUT"):
            await self._take(connection, behaviour)
        if behaviour.reply is not None:
            await behaviour.reply(connection)
            return False
        await connection.send(self._honest(connection))
        return True

    async def _take(self, connection: Connection, behaviour: Behaviour) -> None:
        """Let the orders of a request land, now, later or never."""
        if behaviour.lands_after is None:
            return
        orders = list(self._orders(connection.request))
        if behaviour.lands_after == 0:
            connection.effects = [entry for key, body in orders if (entry := self._land(key, body))]
            return
        task = asyncio.create_task(self._land_late(orders, behaviour.lands_after))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _land_late(self, orders: list[tuple[str, dict[str, Any]]], seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        for key, body in orders:
            self._land(key, body)

    def _orders(self, request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
        document = json.loads(request.body)
        for body in document if isinstance(document, list) else [document]:
            yield str(body.get("idempotency_key") or request.headers.get(self.key_header, "")), body

    def _land(self, key: str, body: dict[str, Any]) -> Entry | None:
        """The new entry; None where the key is known and remembered."""
        if self.remembers_keys and self._entry(key) is not None:
            return None
        entry = Entry(number=len(self.ledger) + 1, key=key, body=body, landed_at=datetime.now(UTC))
        self.ledger.append(entry)
        return entry

    def _entry(self, key: str) -> Entry | None:
        return next((entry for entry in self.ledger if entry.key == key), None)

    # --- the honest answers -------------------------------------------------------------------------------------------

    def _honest(self, connection: Connection) -> bytes:
        request = connection.request
        if request.method != "GET":
            return self._answer_orders(connection)
        if "/by-key/" in request.path:
            entry = self._entry(request.path.rpartition("/")[2])
            return response(404, {"detail": "no such order"}) if entry is None else response(200, _shown(entry))
        if request.path.endswith("/orders"):
            return response(200, {"items": [_shown(entry) for entry in self.ledger if _is_asked_for(entry, request)]})
        if request.path.endswith("/records"):
            return self._page(request)
        return response(404, {"detail": "no such address"})

    def _answer_orders(self, connection: Connection) -> bytes:
        fresh = {entry.key for entry in connection.effects}
        answers_ = [self._answer_order(key, is_new=key in fresh) for key, _ in self._orders(connection.request)]
        if json.loads(connection.request.body).__class__ is list:
            return response(207, answers_)
        status = answers_[0]["status"]
        replayed = {"idempotent_replayed": "true"} if answers_[0]["replayed"] else {}
        return response(status, answers_[0], **replayed)

    def _answer_order(self, key: str, *, is_new: bool) -> dict[str, Any]:
        entry = next(entry for entry in reversed(self.ledger) if entry.key == key)
        if not is_new and self.conflict_status is not None:
            return {"status": self.conflict_status, "detail": "duplicate key", "key": key, "replayed": False}
        return {**_shown(entry), "status": 201, "replayed": not is_new}

    def _page(self, request: Request) -> bytes:
        query = request.query
        rows = [row for row in self.records if _is_new(row, query)]
        size = int(query.get("limit", query.get("size", self.page_size)))
        start = int(query.get("cursor") or query.get("offset") or (int(query.get("page", "1")) - 1) * size)
        if self.page_style == "none" and "page" not in query and "offset" not in query:
            return response(200, {"items": rows})
        page: dict[str, Any] = {"items": rows[start : start + size]}
        headers: dict[str, str] = {}
        if start + size < len(rows):
            link = f"/records?cursor={start + size}&size={size}"
            if self.page_style == "next_link":
                page["next"] = link
            elif self.page_style == "token":
                page["next"] = str(start + size)
            elif self.page_style == "link_header":
                headers["link"] = f'</records>; rel="first", <{link}>; rel="next"'
        return response(200, page, **headers)


_HONEST: Final = Behaviour(name="is honest")


def _shown(entry: Entry) -> dict[str, Any]:
    return {"id": f"PO-{entry.number}", "key": entry.key, "order": entry.body}


def _is_asked_for(entry: Entry, request: Request) -> bool:
    key, subject = request.query.get("key"), request.query.get("subject")
    return (key is None or entry.key == key) and (subject is None or entry.body.get("subject") == subject)


def _is_new(row: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if "since" in query:
        return str(row.get("updated_at", "")) >= query["since"]
    return "after" not in query or int(row["id"]) > int(query["after"])
