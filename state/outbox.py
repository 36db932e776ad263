"""The outbox: what is owed to whom, claimed head by head of each partition key, and settled.

`Outbox` is the outbox inside one unit of work; it is used as a context manager and writes the lanes' counters when it ends, so
rows and counters move together. A claim looks at a lane, then at its due keys, never at events; what it costs does not depend
on how much waits. A result is written only under the fence of its claim: a worker that was given up for dead changes nothing.

What a crash leaves: deliveries in flight. `recover` turns them into deliveries in doubt, since nobody can say whether their
call left.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import orjson

from state import dead_letters, inbox, lanes
from state.dead_letters import Letter
from state.key_queues import KeyQueues
from state.lanes import Lane
from state.model.clock import from_millis, to_millis
from state.model.delivery import (
    Claim,
    DeliveryState,
    Doubt,
    OrderMode,
    OutcomeKind,
    TargetMemory,
    Verdict,
    judge,
)
from state.model.errors import FencedError, RejectedError
from state.model.event import Event
from state.model.ids import DeliveryId, Fence, LaneId, Seq, idempotency_key
from state.origins import Origins
from state.queries import load

_SQL = load("outbox")
_BEFORE_THIS_LIFE: Final = "it came again after this store was put back: it may have been sent before"
_ENDED_IN_FLIGHT: Final = "the agent ended while the call was under way"
_CLOCK_SLACK: Final = timedelta(minutes=1)
"""A clock is set by less than this to be right, and by more because it was wrong."""


@dataclass(frozen=True, slots=True)
class Owed:
    """One event owed to one lane."""

    event_seq: Seq
    lane: Lane
    partition_key: str
    is_snapshot: bool
    doubt: Doubt | None = None  # it may have been sent by a life of this store that ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a delivery ended at its target."""

    kind: OutcomeKind
    reference: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A delivery that was parked because there is nothing to send: its event cannot be rendered for the target."""

    delivery: DeliveryId
    lane: Lane
    event: Event
    error: RejectedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How a delivery goes on: the state it waits in, until when (None: for a person), and the evidence."""

    state: DeliveryState
    due_at: datetime | None
    code: str
    detail: str
    counts: bool = False  # against the budget of attempts
    document: bytes = b""
    doubt: Doubt | None = None  # kept with what is in doubt; None: it is known not to be at the target
    outcome: OutcomeKind | None = None
    reference: str = ""


def next_fence(connection: sqlite3.Connection) -> Fence:
    """The number of a new lease; every later one is higher."""
    return Fence(connection.execute(_SQL.next_fence).fetchone()[0])


class Outbox:
    """The outbox inside one unit of work, at one moment."""

    def __init__(self, connection: sqlite3.Connection, *, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._millis = to_millis(now)
        self._moved: Counter[tuple[LaneId, DeliveryState]] = Counter()
        self._keys = KeyQueues(connection, now=now)
        self._origins = Origins(connection)
        self.unsent: list[Unsent] = []
        """What `claim` has parked so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            lanes.count(self._connection, self._moved)

    def add(self, owed: Iterable[Owed]) -> list[DeliveryId]:
        """Owe each event to its lane, behind what its key already waits for. Returns the snapshots that this superseded."""
        numbered = list(enumerate(owed, self._last_delivery() + 1))
        self._keys.ensure((item.lane, item.partition_key, number) for number, item in numbered)
        self._connection.executemany(_SQL.add_delivery, [self._new_row(number, item) for number, item in numbered])
        self._moved.update((item.lane.id, _first_state(item)) for _, item in numbered)
        passing = [(number, item) for number, item in numbered if item.lane.order_mode is not OrderMode.STRICT]
        return [old for number, item in passing for old in self._overtake(DeliveryId(number), item)]

    def claim(
        self,
        lane: Lane,
        *,
        fence: Fence,
        limit: int,
        memory: TargetMemory,
        call_deadline: timedelta,
        render: Callable[[Event], bytes],
    ) -> list[Claim]:
        """Take up to `limit` due heads of the lane under the lease `fence`, with their payloads frozen.

        One that cannot be rendered is parked, as `unsent` says; one whose time has not come is put back, one that only a person
        can decide blocks its key; none of them hinders the rest. In the lane of a shadow, what would need a person is discarded.
        """
        heads = self._connection.execute(_SQL.due_heads, (lane.id, self._millis, limit)).fetchall()
        taken = [self._take(lane, row, fence, memory, call_deadline, render) for row in heads]
        claims = [(key, claim) for key, claim in taken if claim is not None]
        self._connection.executemany(_SQL.claim, [_claim_row(claim) for _, claim in claims])
        self._keys.claim(key for key, _ in claims)
        return [claim for _, claim in claims]

    def settle(self, settlements: Sequence[tuple[Claim, Settlement]]) -> set[DeliveryId]:
        """The target has them. Returns those that are settled now: where the lease is lost, nothing changes."""
        return self._close(DeliveryState.DELIVERED, settlements)

    def discard(self, claim: Claim, settlement: Settlement) -> None:
        """A shadow that was refused: noted, owed no more. Raises `FencedError` where the lease is lost."""
        if not self._close(DeliveryState.DISCARDED, [(claim, settlement)]):
            raise fenced(claim)

    def release(self, claim: Claim, release: Release) -> None:
        """It is not settled: it waits as `release` says, with what was heard. Raises `FencedError`."""
        doubt = release.doubt
        key = self._end(
            claim,
            _SQL.release,
            (
                release.state,
                _millis(release.due_at),
                int(release.counts),
                _millis(doubt.last_sent_at) if doubt else None,
                _millis(doubt.last_denied_at) if doubt else None,
                _millis(doubt.first_sent_at) if doubt else None,
                release.outcome,
                release.reference,
                release.detail,
            ),
        )
        self._note(claim, release.state, release.code, release.detail, release.document)
        self._move(claim.lane, DeliveryState.INFLIGHT, release.state)
        self._keys.advance([(key, claim.lane)])

    def park(self, claim: Claim, error: RejectedError, *, lane: Lane, document: bytes = b"") -> None:
        """Set it aside with its cause; newer events of a strict key wait behind it. Raises `FencedError`."""
        doubt = claim.doubt if claim.may_have_landed else None
        self.release(
            claim,
            Release(
                state=DeliveryState.PARKED,
                due_at=None,
                code=error.code,
                detail=error.message,
                document=document,
                doubt=doubt,
                outcome=OutcomeKind.REJECTED,
            ),
        )
        letter = letter_of(lane, claim.event, claim.delivery, claim.payload, error)
        dead_letters.add(self._connection, [letter], now=self._millis)

    def recover(self, is_held: Callable[[Fence], bool]) -> list[DeliveryId]:
        """What is in flight under a lease that nobody holds becomes in doubt: its call may have left at any moment until now."""
        inflight = self._connection.execute(_SQL.list_inflight).fetchall()
        abandoned = [row for row in inflight if not is_held(Fence(row[1]))]
        for delivery, _, key, lane, first_sent_at, outcome in abandoned:
            state = DeliveryState.DELAYED if outcome == OutcomeKind.DELAYED else DeliveryState.IN_DOUBT
            row = (state, self._millis, self._millis, first_sent_at, state, _ENDED_IN_FLIGHT, delivery)
            self._connection.execute(_SQL.doubt, row)
            self._move(lane, DeliveryState.INFLIGHT, state)
            self._keys.advance([(key, lane)])
        return [DeliveryId(row[0]) for row in abandoned]

    def reconsider(self) -> None:
        """Judge again what waits for a person: the target may have been given a memory or a probe meanwhile."""
        waiting = self._connection.execute(_SQL.list_waiting_for_a_person).fetchall()
        for delivery, key, lane in waiting:
            self._connection.execute(_SQL.set_due, (self._millis, delivery))
            if not self._keys.is_busy(key, lane):
                self._keys.advance([(key, lane)])

    def compare(self, event: Event, lane: Lane) -> None:
        """Compare the flow's shadows of `event` with what they shadow, once both have ended: payload and outcome."""
        for shadow, shadow_lane, is_alike in self._connection.execute(
            _SQL.comparable, (event.sequence, lane.flow)
        ).fetchall():
            self._connection.execute(_SQL.set_alike, (is_alike, shadow))
            lanes.count_compared(self._connection, shadow_lane, is_alike=bool(is_alike))

    def _take(
        self,
        lane: Lane,
        row: Sequence[Any],
        fence: Fence,
        memory: TargetMemory,
        call_deadline: timedelta,
        render: Callable[[Event], bytes],
    ) -> tuple[int, Claim | None]:
        """The head's key and, where it can be worked, its claim; otherwise it was put back or parked."""
        key, delivery, state, version, attempts, failures, payload, first_sent, last_sent, last_denied = row[:10]
        doubt = Doubt(
            first_sent_at=self._now if first_sent is None else from_millis(first_sent),
            last_sent_at=self._past(last_sent) or self._now,
            last_denied_at=self._past(last_denied),
        )
        verdict, at = self._verdict(state, doubt, memory, call_deadline)
        event = inbox.event_of(row[10:], self._origins)
        if verdict is Verdict.ASK_A_PERSON and lane.shadow_of:
            self._drop_shadow(key, delivery, DeliveryState(state), lane, event, _ENDED_IN_FLIGHT)
            return key, None
        if verdict is Verdict.WAIT or verdict is Verdict.ASK_A_PERSON:
            self._put_back(key, delivery, lane, at if verdict is Verdict.WAIT else None, doubt)
            return key, None
        try:
            frozen = payload if payload is not None else event.data if attempts else render(event)
        except RejectedError as error:
            if lane.shadow_of:
                self._drop_shadow(key, delivery, DeliveryState(state), lane, event, error.message)
            else:
                self._park_unsent(key, DeliveryState(state), Unsent(delivery, lane, event, error))
            return key, None
        self._move(lane.id, DeliveryState(state), DeliveryState.INFLIGHT)
        claim = Claim(
            delivery=delivery,
            lane=lane.id,
            event=event,
            fence=fence,
            verdict=verdict,
            is_delayed=state == DeliveryState.DELAYED,
            attempt=attempts + 1,
            failures=failures,
            idempotency_key=idempotency_key(event=event.id, target=lane.target, version=version),
            payload=frozen,
            doubt=doubt,
        )
        return key, claim

    def _verdict(
        self, state: str, doubt: Doubt, memory: TargetMemory, call_deadline: timedelta
    ) -> tuple[Verdict, datetime]:
        if state == DeliveryState.PENDING:
            return Verdict.SEND, self._now
        if state == DeliveryState.DELAYED:
            return Verdict.PROBE, self._now
        if doubt.first_sent_at > self._now + _CLOCK_SLACK:
            # The wall clock was set back. How long ago the call was nobody knows, so the target's memory proves nothing.
            memory = replace(memory, key_lifetime=timedelta(0))
        return judge(doubt, memory, now=self._now, call_deadline=call_deadline)

    def _past(self, millis: int | None) -> datetime | None:
        """A moment that was written; now, where a clock that was set back puts it into the future: what waits, waits anew."""
        return None if millis is None else min(from_millis(millis), self._now)

    def _put_back(self, key: int, delivery: DeliveryId, lane: Lane, due_at: datetime | None, doubt: Doubt) -> None:
        row = (_millis(due_at), _millis(doubt.last_sent_at), _millis(doubt.last_denied_at), delivery)
        self._connection.execute(_SQL.put_back, row)
        self._keys.advance([(key, lane.id)])

    def _park_unsent(self, key: int, state: DeliveryState, unsent: Unsent) -> None:
        delivery, lane, event, error = unsent.delivery, unsent.lane, unsent.event, unsent.error
        self._connection.execute(_SQL.park_unsent, (error.message, delivery))
        dead_letters.add(self._connection, [letter_of(lane, event, delivery, event.data, error)], now=self._millis)
        self._move(lane.id, state, DeliveryState.PARKED)
        self._keys.advance([(key, lane.id)])
        self.compare(event, lane)
        self.unsent.append(unsent)

    def _drop_shadow(
        self, key: int, delivery: DeliveryId, state: DeliveryState, lane: Lane, event: Event, detail: str
    ) -> None:
        self._connection.execute(_SQL.drop_shadow, (self._millis, detail, delivery))
        self._move(lane.id, state, DeliveryState.DISCARDED)
        self._keys.advance([(key, lane.id)])
        self.compare(event, lane)

    def _close(self, state: DeliveryState, settlements: Sequence[tuple[Claim, Settlement]]) -> set[DeliveryId]:
        keys = self._held(claim for claim, _ in settlements)
        held = [(claim, end) for claim, end in settlements if (claim.delivery, claim.fence) in keys]
        rows = [(state, self._millis, end.kind, end.reference, end.detail, claim.delivery) for claim, end in held]
        self._connection.executemany(_SQL.settle, rows)
        for claim, end in held:
            if claim.attempt > 1:
                self._note(claim, state, end.kind, end.detail, b"")
            self._move(claim.lane, DeliveryState.INFLIGHT, state)
        self._keys.advance([(keys[claim.delivery, claim.fence], claim.lane) for claim, _ in held])
        return {claim.delivery for claim, _ in held}

    def _held(self, claims: Iterable[Claim]) -> dict[tuple[DeliveryId, Fence], int]:
        """The keys of those deliveries that are held, each with its lease."""
        given = orjson.dumps([claim.delivery for claim in claims]).decode()
        found = self._connection.execute(_SQL.list_held, (given,))
        return {(delivery, fence): key for delivery, fence, key in found}

    def _end(self, claim: Claim, statement: str, row: tuple[Any, ...]) -> int:
        """Write how an attempt ended, if the lease still holds; returns the key. Raises `FencedError`."""
        found = self._connection.execute(statement, (*row, claim.delivery, claim.fence)).fetchone()
        if found is None:
            raise fenced(claim)
        return int(found[0])

    def _note(self, claim: Claim, state: DeliveryState, code: str, detail: str, document: bytes) -> None:
        row = (claim.delivery, claim.attempt, claim.verdict, self._millis, state, code, detail, document or None)
        self._connection.execute(_SQL.add_attempt, row)

    def _new_row(self, number: int, item: Owed) -> tuple[Any, ...]:
        lane, doubt = item.lane, item.doubt
        sent = (to_millis(doubt.first_sent_at), to_millis(doubt.last_sent_at)) if doubt else (None, None)
        why = (OutcomeKind.IN_DOUBT, _BEFORE_THIS_LIFE) if doubt else (None, "")
        key = (lane.target_id, lane.order_domain, item.partition_key)
        return (
            number,
            item.event_seq,
            lane.id,
            item.is_snapshot,
            self._millis,
            _first_state(item),
            *sent,
            *why,
            *key,
        )

    def _overtake(self, delivery: DeliveryId, item: Owed) -> list[DeliveryId]:
        """Let a delivery pass what the order of its lane lets it pass. Returns what it superseded."""
        superseded: list[DeliveryId] = []
        key, head = self._keys.of(delivery)
        if head == delivery:
            return superseded
        if item.lane.order_mode is OrderMode.LATEST and item.is_snapshot:
            superseded = self._supersede(key, delivery, item.lane)
        if not self._keys.is_busy(key, item.lane.id):
            self._keys.advance([(key, item.lane.id)])
        return superseded

    def _supersede(self, key: int, delivery: DeliveryId, lane: Lane) -> list[DeliveryId]:
        superseded = []
        for old, was in self._connection.execute(_SQL.older_snapshots, (key, lane.id, delivery)).fetchall():
            self._connection.execute(_SQL.supersede, (self._millis, f"by delivery {delivery}", old))
            dead_letters.close(self._connection, old, "superseded", now=self._millis)
            self._move(lane.id, DeliveryState(was), DeliveryState.SUPERSEDED)
            superseded.append(DeliveryId(old))
        return superseded

    def _last_delivery(self) -> int:
        row = self._connection.execute(_SQL.last_delivery).fetchone()
        return int(row[0]) if row else 0

    def _move(self, lane: LaneId, before: DeliveryState, after: DeliveryState) -> None:
        self._moved[lane, before] -= 1
        self._moved[lane, after] += 1


def fenced(claim: Claim) -> FencedError:
    """The lease of a claim is lost: its result is dropped."""
    return FencedError(f"delivery {claim.delivery} is no longer held under lease {claim.fence}")


def letter_of(lane: Lane, event: Event, delivery: DeliveryId, payload: bytes, error: RejectedError) -> Letter:
    """The dead letter of a delivery that its target, or its mapping, refused."""
    site, _, system = lane.target.partition("/")
    return Letter(
        delivery=delivery,
        site=site,
        system=system,
        flow=lane.flow,
        subject=event.subject,
        place=event.place or event.subject,
        field=error.place,
        rule=error.rule or error.message,
        code=error.code,
        shown=error.shown,
        message=error.message,
        hint=error.hint,
        raw=payload,
    )


def _first_state(item: Owed) -> DeliveryState:
    return DeliveryState.IN_DOUBT if item.doubt else DeliveryState.PENDING


def _claim_row(claim: Claim) -> tuple[Any, ...]:
    first_sent = to_millis(claim.doubt.first_sent_at)
    payload = None if claim.payload == claim.event.data else claim.payload
    return (claim.fence, bytes.fromhex(claim.idempotency_key), payload, first_sent, claim.delivery)


def _millis(moment: datetime | None) -> int | None:
    return None if moment is None else to_millis(moment)
