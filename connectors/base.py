"""What a connector is: a `Source` that reads records, a `Sink` that delivers, and what either may raise.

A connector sees the vocabulary and never a store. What it must remember between two runs it hands over with each batch
(`checkpoint`, `remember`), and the agent commits that together with the events made of the batch; what it may look up again
it asks its `Memory`. A connector raises the classes of `state.model.errors` and nothing of its libraries.

Concurrency: `read` of one source is never run twice at once. `deliver` and `probe` of one sink run up to `in_flight` at once.
Deadlines: the agent puts a total deadline around each call; a connector cancelled inside a call leaves nothing half applied at
its own side (a temporary file, an open socket).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from state.model.clock import Clock
from state.model.delivery import OutcomeKind
from state.model.errors import DistctlError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """The bytes as they arrived: a file, a page. Exactly one of `content` and `path` is set."""

    name: str  # for people: plan-0412.csv, GET /orders?after=17
    sha256: str
    size: int
    content: bytes | None = None
    path: Path | None = None  # for one too large to hold; the agent copies it to its archive before it commits
    key: str = ""  # set where equal bytes were taken before and are new all the same

    @property
    def identity(self) -> str:
        """What the ids of its events are made of, as `batch`: equal bytes are one document unless `key` says otherwise."""
        return self.key or self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """One readable record and where it stands."""

    position: str  # unique inside the document: a record number, a server's id and revision
    place: str  # for people: line 14
    fields: dict[str, Any]
    raw: bytes
    changed_at: datetime | None = None  # when the source says it happened


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRecord:
    """One record, or the rest of a document, that cannot be read; it becomes a dead letter and the rest goes on."""

    position: str
    place: str
    rule: str
    shown: str
    message: str
    hint: str
    code: str
    raw: bytes
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records that are taken in together, in one transaction with the checkpoint.

    A long document comes as several batches; `last` marks its end and `settle` is called with it once it is committed.
    """

    document: RawDocument
    records: Sequence[SourceRecord | UnreadableRecord]
    checkpoint: bytes | None = None  # replaces the one before
    remember: Sequence[str] = ()  # items that the source's memory holds from now on
    last: bool = True


class Memory(Protocol):
    """What a source asked the agent to remember."""

    async def checkpoint(self) -> bytes | None:
        """The checkpoint of the last committed batch."""
        ...

    async def known(self, items: Collection[str]) -> set[str]:
        """Those of `items` that were remembered."""
        ...


class Source(Protocol):
    """Reads records from a system."""

    def read(self) -> AsyncGenerator[Batch, None]:
        """Everything new since the memory's last commit, oldest first; ends when nothing more is there.

        Raises `NotConnectedError` or `TransientError` where the system cannot be read now.
        """
        ...

    async def settle(self, batch: Batch) -> None:
        """The batch is on disk: archive the file, acknowledge the page. Called again after a crash; must bear it."""
        ...

    async def wait(self, longest: timedelta) -> None:
        """Return when there may be something to read, at the latest after `longest`."""
        ...

    async def close(self) -> None:
        """Let go of sockets and watchers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What a sink gets to deliver: a frozen payload and its idempotency key."""

    idempotency_key: str
    subject: str  # the business key
    partition_key: str
    contract: str
    payload: bytes  # JSON of the rendered record
    is_resend: bool  # the target may already have it under this key


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the target said. `document` is its own answer, cut to a few kilobytes."""

    kind: OutcomeKind
    reference: str = ""  # the target's number for it
    detail: str = ""
    document: bytes = b""
    duplicate: bool = False  # the target already had it by our key
    ask_again_in: timedelta | None = None  # for `delayed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A probe's answer: the target has it, with this outcome."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound:
    """A probe's answer: the target has nothing under our key. Whether that counts is the agent's to judge."""

    detail: str = ""


class Sink(Protocol):
    """Delivers to a system."""

    async def deliver(self, parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
        """One answer for each parcel, in their order.

        Answers are outcomes or errors: `RejectedError` parks, `TransientError` tries again, `InDoubtError` asks first,
        `NotConnectedError` (for all) opens the breaker, `DuplicateError` settles. Raising one means all of them.
        """
        ...

    async def probe(self, parcel: Parcel) -> Found | NotFound:
        """Ask the target for our key. Raises `NotConnectedError` or `TransientError` where it cannot be asked now."""
        ...

    async def close(self) -> None:
        """Let go of sockets."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the agent hands to every connector it builds."""

    clock: Clock
    memory: Memory
    name: str  # flow@site/system, for messages
    home: Path  # relative folders in settings start here: the estate folder
    deadline: timedelta = field(default=timedelta(seconds=30))
