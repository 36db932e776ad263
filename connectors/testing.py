"""What every connector promises, as suites that its tests inherit. The one module here that imports pytest.

A connector's test gives a rig: how its counterpart is set up, and how it misbehaves. The suite does the rest:

    class TestHttpSink(SinkContract):
        @pytest.fixture
        async def rig(self, tmp_path): ...

`HostilePartner`, in `connectors.hostile`, is the counterpart of everything that speaks HTTP; it needs no pytest.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Protocol

import orjson
import pytest

from connectors.base import (
    Batch,
    Found,
    Memory,
    NotFound,
    Outcome,
    Parcel,
    Sink,
    Source,
    SourceRecord,
    Surroundings,
    UnreadableRecord,
)
from state.model.delivery import OutcomeKind
from state.model.errors import DistctlError, DuplicateError, InDoubtError, NotConnectedError, TransientError
from state.model.ids import digest

TAKEN = frozenset((OutcomeKind.ACCEPTED, OutcomeKind.MODIFIED, OutcomeKind.DELAYED))


class WallClock:
    """The time of this machine."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(seconds)


class HeldMemory:
    """A source's memory as the store keeps it: `commit` takes checkpoint and remembered items at once."""

    def __init__(self) -> None:
        self.stored: bytes | None = None
        self.items: set[str] = set()

    async def checkpoint(self) -> bytes | None:
        """The checkpoint of the last committed batch."""
        return self.stored

    async def known(self, items: Collection[str]) -> set[str]:
        """Those of `items` that were remembered."""
        return self.items.intersection(items)

    def commit(self, batch: Batch) -> None:
        """What the agent's transaction does."""
        if batch.checkpoint is not None:
            self.stored = batch.checkpoint
        self.items.update(batch.remember)


def surroundings(
    home: Path, *, memory: Memory | None = None, deadline: timedelta = timedelta(seconds=2)
) -> Surroundings:
    """What the agent would hand to a connector."""
    return Surroundings(
        clock=WallClock(), memory=memory or HeldMemory(), name="flow@site/system", home=home, deadline=deadline
    )


def make_parcel(subject: str, *, version: int = 1, is_resend: bool = False, partition_key: str = "") -> Parcel:
    """A parcel whose key is a function of subject and version."""
    return Parcel(
        idempotency_key=digest("parcel", subject, str(version), size=16).hex(),
        subject=subject,
        partition_key=partition_key or subject,
        contract="purchase-order/1",
        payload=orjson.dumps({"subject": subject, "version": version}),
        is_resend=is_resend,
    )


async def take_in(source: Source, memory: HeldMemory) -> list[Batch]:
    """Read to the end, commit and settle each batch as intake does."""
    batches = []
    async for batch in source.read():
        memory.commit(batch)
        await source.settle(batch)
        batches.append(batch)
    return batches


def records_of(batches: Sequence[Batch]) -> list[SourceRecord]:
    """The readable records of all batches."""
    return [record for batch in batches for record in batch.records if isinstance(record, SourceRecord)]


async def deliver(sink: Sink, *parcels: Parcel) -> list[Outcome | DistctlError]:
    """One answer for each parcel, whether the sink returned or raised it."""
    try:
        return list(await sink.deliver(parcels))
    except DistctlError as error:
        return [error for _ in parcels]


class SourceRig(Protocol):
    """A counterpart with records, each named by its field `id`."""

    def open(self, memory: HeldMemory) -> Source:
        """A source on it."""
        ...

    async def publish(self, *names: str) -> None:
        """The counterpart has these further records from now on."""
        ...

    async def publish_spoiled(self, before: str, after: str) -> None:
        """It has two good records with one between that cannot be read."""
        ...

    async def unplug(self) -> None:
        """It cannot be reached any more."""
        ...


class SourceContract:
    """What every source promises."""

    @pytest.fixture
    def rig(self) -> SourceRig:
        """Give the rig here, in the test of the connector."""
        raise NotImplementedError

    async def test_everything_published_is_read_once(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish("a", "b", "c")
        assert _names(await take_in(source, memory)) == ["a", "b", "c"]
        await source.close()

    async def test_what_was_committed_is_not_read_again(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish("a", "b")
        await take_in(source, memory)
        assert records_of(await take_in(source, memory)) == []
        await rig.publish("c")
        assert _names(await take_in(source, memory)) == ["c"]
        await source.close()

    async def test_another_source_with_the_same_memory_goes_on_where_the_first_ended(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        first = rig.open(memory)
        await rig.publish("a")
        await take_in(first, memory)
        await first.close()
        await rig.publish("b")
        second = rig.open(memory)
        assert _names(await take_in(second, memory)) == ["b"]
        await second.close()

    async def test_reading_again_without_a_commit_gives_the_same_positions_and_bytes(self, rig: SourceRig) -> None:
        await rig.publish("a", "b", "c")
        first, second = await _read_uncommitted(rig), await _read_uncommitted(rig)
        assert first == second
        assert len(first) == 3

    async def test_positions_are_unique_inside_a_document(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish(*(f"r{number}" for number in range(20)))
        batches = await take_in(source, memory)
        positions = Counter((batch.document.name, record.position) for batch in batches for record in batch.records)
        assert len(positions) == 20
        await source.close()

    async def test_one_spoiled_record_does_not_stop_the_rest(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish_spoiled("before", "after")
        batches = await take_in(source, memory)
        spoiled = [record for batch in batches for record in batch.records if isinstance(record, UnreadableRecord)]
        assert _names(batches) == ["after", "before"]
        assert len(spoiled) == 1
        assert all((spoiled[0].place, spoiled[0].rule, spoiled[0].hint, spoiled[0].code, spoiled[0].raw))
        assert await take_in(source, memory) == [], "it is set aside once, not at every reading"
        await source.close()

    async def test_a_document_comes_with_its_bytes_and_their_hash(self, rig: SourceRig) -> None:
        source = rig.open(HeldMemory())
        await rig.publish("a")
        documents = [batch.document async for batch in source.read()]
        assert documents
        for document in documents:
            assert (document.content is None) is not (document.path is None)
            raw = document.path.read_bytes() if document.path is not None else document.content or b""
            assert (hashlib.sha256(raw).hexdigest(), len(raw)) == (document.sha256, document.size)
        await source.close()

    async def test_settling_may_be_repeated(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish("a")
        for batch in await take_in(source, memory):
            await source.settle(batch)
            await source.settle(batch)
        assert await take_in(source, memory) == []
        await source.close()

    async def test_a_reading_that_is_cancelled_leaves_the_next_one_whole(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish("a", "b")
        for _ in range(5):
            reading = asyncio.create_task(_drain(source))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert _names(await take_in(source, memory)) == ["a", "b"]
        await source.close()

    async def test_waiting_ends_in_time(self, rig: SourceRig) -> None:
        source = rig.open(HeldMemory())
        async with asyncio.timeout(5):
            await source.wait(timedelta(milliseconds=50))
        await source.close()

    async def test_closing_twice_does_no_harm(self, rig: SourceRig) -> None:
        source = rig.open(HeldMemory())
        await source.close()
        await source.close()

    async def test_a_system_that_cannot_be_reached_says_so_and_moves_nothing(self, rig: SourceRig) -> None:
        memory = HeldMemory()
        source = rig.open(memory)
        await rig.publish("a")
        await rig.unplug()
        with pytest.raises((NotConnectedError, TransientError)) as raised:
            await take_in(source, memory)
        assert raised.value.hint
        assert (memory.stored, memory.items) == (None, set())
        await source.close()


class SinkRig(Protocol):
    """A counterpart that takes deliveries and counts their effects by itself."""

    def open(self) -> Sink:
        """A sink on it."""
        ...

    def effects(self, parcel: Parcel) -> int:
        """How often the counterpart holds it, by its own records."""
        ...

    async def go_silent(self) -> None:
        """The next delivery lands and no answer comes."""
        ...

    async def unplug(self) -> None:
        """It cannot be reached any more."""
        ...


class SinkContract:
    """What every sink promises. A connector whose counterpart cannot do a thing says so in these flags."""

    can_probe: ClassVar[bool] = True
    can_go_silent: ClassVar[bool] = True

    @pytest.fixture
    def rig(self) -> SinkRig:
        """Give the rig here, in the test of the connector."""
        raise NotImplementedError

    async def test_each_parcel_gets_one_answer_in_order(self, rig: SinkRig) -> None:
        sink = rig.open()
        parcels = [make_parcel(f"PO-{number}") for number in range(5)]
        answers = await deliver(sink, *parcels)
        assert len(answers) == 5
        assert all(isinstance(answer, Outcome) and answer.kind in TAKEN for answer in answers)
        assert [rig.effects(parcel) for parcel in parcels] == [1] * 5
        await sink.close()

    async def test_no_parcels_get_no_answers(self, rig: SinkRig) -> None:
        sink = rig.open()
        assert await deliver(sink) == []
        await sink.close()

    async def test_the_same_key_sent_again_has_one_effect(self, rig: SinkRig) -> None:
        sink = rig.open()
        await deliver(sink, make_parcel("PO-1"))
        [answer] = await deliver(sink, make_parcel("PO-1", is_resend=True))
        assert isinstance(answer, Outcome | DuplicateError)
        assert rig.effects(make_parcel("PO-1")) == 1
        await sink.close()

    async def test_two_versions_of_one_document_are_two_effects(self, rig: SinkRig) -> None:
        sink = rig.open()
        first, second = make_parcel("PO-1"), make_parcel("PO-1", version=2)
        await deliver(sink, first)
        await deliver(sink, second)
        assert (rig.effects(first), rig.effects(second)) == (1, 1)
        await sink.close()

    async def test_an_answer_that_never_comes_is_in_doubt_though_it_landed(self, rig: SinkRig) -> None:
        if not self.can_go_silent:
            pytest.skip("this counterpart answers by itself: a call cannot end without an answer")
        sink = rig.open()
        await rig.go_silent()
        [answer] = await deliver(sink, make_parcel("PO-1"))
        assert isinstance(answer, InDoubtError)
        assert rig.effects(make_parcel("PO-1")) == 1
        await sink.close()

    async def test_a_system_that_cannot_be_reached_got_nothing(self, rig: SinkRig) -> None:
        sink = rig.open()
        await rig.unplug()
        answers = await deliver(sink, make_parcel("PO-1"), make_parcel("PO-2"))
        assert [type(answer) for answer in answers] == [NotConnectedError] * 2
        assert rig.effects(make_parcel("PO-1")) == 0
        await sink.close()

    async def test_a_probe_finds_what_landed_and_not_what_did_not(self, rig: SinkRig) -> None:
        if not self.can_probe:
            pytest.skip("this counterpart cannot be asked")
        sink = rig.open()
        await deliver(sink, make_parcel("PO-1"))
        assert isinstance(await sink.probe(make_parcel("PO-1")), Found)
        assert isinstance(await sink.probe(make_parcel("PO-2")), NotFound)
        assert isinstance(await sink.probe(make_parcel("PO-1", version=2)), NotFound)
        assert rig.effects(make_parcel("PO-2")) == 0
        await sink.close()

    async def test_a_probe_of_what_cannot_be_reached_is_no_denial(self, rig: SinkRig) -> None:
        if not self.can_probe:
            pytest.skip("this counterpart cannot be asked")
        sink = rig.open()
        await rig.unplug()
        with pytest.raises((NotConnectedError, TransientError)):
            await sink.probe(make_parcel("PO-1"))
        await sink.close()

    async def test_many_deliveries_at_once_have_one_effect_each(self, rig: SinkRig) -> None:
        sink = rig.open()
        parcels = [make_parcel(f"PO-{number}") for number in range(16)]
        async with asyncio.TaskGroup() as group:
            for parcel in parcels:
                group.create_task(deliver(sink, parcel))
        assert [rig.effects(parcel) for parcel in parcels] == [1] * 16
        await sink.close()

    async def test_a_delivery_that_is_cancelled_leaves_the_sink_usable(self, rig: SinkRig) -> None:
        sink = rig.open()
        for turns in range(6):
            sending = asyncio.create_task(deliver(sink, make_parcel("PO-1", is_resend=turns > 0)))
            for _ in range(turns):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await deliver(sink, make_parcel("PO-1", is_resend=True))
        assert rig.effects(make_parcel("PO-1")) == 1
        await sink.close()

    async def test_closing_twice_does_no_harm(self, rig: SinkRig) -> None:
        sink = rig.open()
        await sink.close()
        await sink.close()


def _names(batches: Sequence[Batch]) -> list[str]:
    return sorted(str(record.fields["id"]) for record in records_of(batches))


async def _read_uncommitted(rig: SourceRig) -> list[tuple[str, str, bytes]]:
    source = rig.open(HeldMemory())
    try:
        return [
            (batch.document.name, record.position, record.raw)
            async for batch in source.read()
            for record in batch.records
        ]
    finally:
        await source.close()


async def _drain(source: Source) -> None:
    async for _ in source.read():
        pass
