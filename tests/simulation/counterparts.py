"""The systems on both ends: sources that produce, targets that keep a ledger of what took effect. They are the judge's witnesses.

They live outside every agent: no crash, no restore and no clone of an agent changes what they recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

import orjson
from pydantic import BaseModel, Field

from connectors.base import (
    Batch,
    Found,
    NotFound,
    Outcome,
    Parcel,
    RawDocument,
    SourceRecord,
    Surroundings,
)
from connectors.registry import Connector
from state.model.delivery import OutcomeKind
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from tests.simulation.clock import SimulatedClock
from tests.simulation.estate import LANDS_WITHIN, ROUTES, SYSTEMS, SystemKind
from tests.simulation.loop import Life
from tests.simulation.trace import Trace

Record = tuple[str, str, int]
"""Flow, key, revision."""

_CALL_SECONDS: Final = (0.1, 1.5)
"""That a call takes, so that others of its lane gather meanwhile."""

_TROUBLES_EACH: Final = 4
"""No record has more: eight failures of its own are its fault, and it is set aside."""


# --- sources ------------------------------------------------------------------------------------------------------


class Producer:
    """The source system of one flow: documents of a few records, one after another, kept for ever."""

    def __init__(self, flow: str) -> None:
        self.flow = flow
        self.documents: list[list[Record]] = []
        self._news = asyncio.Event()
        self._batches: dict[int, Batch] = {}

    def produce(self, records: Sequence[Record]) -> None:
        """A document more."""
        self.documents.append(list(records))
        self._news.set()
        self._news = asyncio.Event()

    def batch(self, place: int) -> Batch:
        """The document at `place`, the same whoever reads it, and whenever."""
        if place not in self._batches:
            self._batches[place] = self._read(place)
        return self._batches[place]

    async def news(self) -> None:
        """Return when there is a document more: a notice is never lost here, so nobody looks in vain meanwhile."""
        await self._news.wait()

    def _read(self, place: int) -> Batch:
        raws = [_raw(record) for record in self.documents[place]]
        content = b"\n".join(raws)
        return Batch(
            document=RawDocument(
                name=f"{self.flow}-{place}",
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
                content=content,
            ),
            records=[
                SourceRecord(
                    position=str(number), place=f"{self.flow}-{place} line {number}", fields=orjson.loads(raw), raw=raw
                )
                for number, raw in enumerate(raws, 1)
            ],
            checkpoint=str(place + 1).encode(),
        )


def _raw(record: Record) -> bytes:
    flow, key, revision = record
    return orjson.dumps({"k": f"{flow}.{key}", "n": f"rev {revision}", "t": "bin", "z": "UTC", "a": True})


def record_in(payload: bytes) -> Record:
    """The record that a payload tells of."""
    said = orjson.loads(payload)
    flow, _, key = said["loc"].partition(".")
    return flow, key, int(said["name"].removeprefix("rev "))


class _Source:
    """A connector's source over a producer."""

    def __init__(self, producer: Producer, around: Surroundings) -> None:
        self._producer = producer
        self._around = around
        self._place = 0

    async def read(self) -> AsyncGenerator[Batch, None]:
        self._place = int(await self._around.memory.checkpoint() or b"0")
        while self._place < len(self._producer.documents):
            self._place += 1
            yield self._producer.batch(self._place - 1)

    async def settle(self, batch: Batch) -> None:
        return

    async def wait(self, longest: timedelta) -> None:
        if self._place >= len(self._producer.documents):
            await self._producer.news()

    async def close(self) -> None:
        return


# --- targets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """What a target's ledger says of one record."""

    at: float
    record: Record
    key: str


class Target:
    """A target system: its memory is as it declares, and its ledger is for ever."""

    def __init__(self, name: str, kind: SystemKind, dice: random.Random, trace: Trace, counts: Counter[str]) -> None:
        self.name = name
        self.kind = kind
        self.ledger: list[Effect] = []
        self.refusals: list[tuple[float, Record]] = []
        self.refuses: set[Record] = set()
        self.mood: dict[str, float] = {}  # how likely each trouble is in a call
        self.is_down = False
        self._calls: Counter[Record] = Counter()
        self._landed: dict[str, float] = {}  # by idempotency key
        self._answered_at: dict[str, float] = {}  # of what was taken and is answered later
        self._dice = dice
        self._trace = trace
        self._counts = counts
        self._loop = asyncio.get_running_loop()

    def land(self, parcel: Parcel) -> bool:
        """The call takes effect, unless the target remembers its key. Answers whether it did."""
        now, key = self._loop.time(), parcel.idempotency_key
        landed = self._landed.get(key)
        if landed is not None and now < landed + self.kind.key_lifetime:
            self._trace.note("known", self.name, key[:8])
            return False
        self._landed[key] = now
        record = record_in(parcel.payload)
        self.ledger.append(Effect(now, record, key))
        self._trace.note("effect", self.name, *record, key[:8])
        return True

    async def take(self, parcel: Parcel) -> Outcome | DistctlError:
        """One parcel; what becomes of it depends on the mood."""
        record = record_in(parcel.payload)
        trouble = self._trouble() if self._calls[record] < _TROUBLES_EACH else ""
        if trouble:
            self._calls[record] += 1
            self._counts[f"target {trouble}"] += 1
            self._trace.note("trouble", self.name, trouble, *record)
        match trouble:
            case "error":
                return TransientError("500: try later", code="http-500")
            case "timeout":
                return InDoubtError("no answer", code="timeout")
            case "timeout, landed":
                self.land(parcel)
                return InDoubtError("no answer", code="timeout")
            case "timeout, lands late":
                self._loop.call_later(self._dice.uniform(0.05, LANDS_WITHIN * 0.9), self.land, parcel)
                return InDoubtError("no answer", code="timeout")
            case "hangs":
                self._loop.call_later(self._dice.uniform(0.1, 5.0), self.land, parcel)
                await asyncio.sleep(60)
        if record in self.refuses:
            self.refusals.append((self._loop.time(), record))
            return RejectedError("the target refuses it", code="refused")
        is_new = self.land(parcel)
        if trouble == "answers later" and self.kind.can_probe:
            self._answered_at[parcel.idempotency_key] = self._loop.time() + self._dice.uniform(1, 10)
            return Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta(seconds=2))
        if not is_new and self._dice.random() < 0.5:
            return DuplicateError("it is there", reference="4711")
        return Outcome(kind=OutcomeKind.ACCEPTED, reference="4711", duplicate=not is_new)

    async def ask(self, life: Life, parcel: Parcel) -> Found | NotFound:
        """Whether the call landed."""
        self._require_up()
        await asyncio.sleep(self._dice.uniform(*_CALL_SECONDS))
        life.require()
        if self._trouble() == "error":
            raise TransientError("500: try later", code="http-500")
        key = parcel.idempotency_key
        if key not in self._landed:
            return NotFound()
        if self._answered_at.get(key, 0) > self._loop.time():
            return Found(outcome=Outcome(kind=OutcomeKind.DELAYED, ask_again_in=timedelta(seconds=2)))
        return Found(outcome=Outcome(kind=OutcomeKind.ACCEPTED, reference="4711"))

    def _require_up(self) -> None:
        if self.is_down:
            self._counts["target down"] += 1
            raise NotConnectedError("connection refused", code="down")

    def _trouble(self) -> str:
        if not self.mood:
            return ""
        throw = self._dice.random()
        for trouble, share in self.mood.items():
            throw -= share
            if throw < 0:
                return trouble
        return ""

    async def deliver(self, life: Life, parcels: Sequence[Parcel]) -> list[Outcome | DistctlError]:
        """A call with one parcel or more."""
        self._require_up()
        await asyncio.sleep(self._dice.uniform(*_CALL_SECONDS))
        life.require()
        return [await self.take(parcel) for parcel in parcels]


class _Sink:
    """A connector's sink over a target."""

    def __init__(self, target: Target, life: Life) -> None:
        self._target = target
        self._life = life

    async def deliver(self, parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
        self._life.require()
        return await self._target.deliver(self._life, parcels)

    async def probe(self, parcel: Parcel) -> Found | NotFound:
        self._life.require()
        return await self._target.ask(self._life, parcel)

    async def close(self) -> None:
        return


# --- both ---------------------------------------------------------------------------------------------------------


class Counterparts:
    """All systems of the estate."""

    def __init__(self, dice: random.Random, trace: Trace, counts: Counter[str]) -> None:
        self.producers = {flow: Producer(flow) for flow in ROUTES}
        self.targets = {name: Target(name, kind, dice, trace, counts) for name, kind in SYSTEMS.items()}


class CounterpartsClock(SimulatedClock):
    """The clock that an agent hands to its connectors: by it they find the systems of their own simulation."""

    counterparts: Counterparts


class _Settings(BaseModel):
    """Of a system."""

    can_be_asked: bool = Field(True, description="whether it can be asked for our key")


def _clock(around: Surroundings) -> CounterpartsClock:
    return cast("CounterpartsClock", around.clock)


def _make_source(_: object, around: Surroundings) -> _Source:
    flow = around.name.partition("@")[0]
    return _Source(_clock(around).counterparts.producers[flow], around)


def _make_sink(_: object, around: Surroundings) -> _Sink:
    clock = _clock(around)
    return _Sink(clock.counterparts.targets[around.name.partition("@")[2]], clock.life)


CONNECTOR: Final = Connector(
    name="simulated",
    source_settings=_Settings,
    sink_settings=_Settings,
    make_source=_make_source,
    make_sink=_make_sink,
    can_probe=lambda settings: bool(settings.can_be_asked),
)
