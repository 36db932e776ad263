"""The relay works the outbox of one target: claim a lane, then keys, send, settle.

Each target has its own `TargetRelay` with as many slots as the target takes calls at once, so that a dead target never stops
another. A slot takes turns: one unit of work settles what the last call heard and claims the next heads under a new lease;
then the call is made, outside any transaction, under a total deadline. Lanes share the slots by tier.

Order: a key has at most one delivery in flight, which the store enforces; slots work different keys in parallel. A crash
between claim and settling leaves deliveries in flight; the next start finds them in doubt. A worker whose lease expired (the
process was stopped) does not send, and what it settles is refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

from agent import taken_ids
from agent.answers import Answer, Circumstances, legible, weigh
from agent.breaker import Breaker
from agent.crash_points import CrashPoint
from agent.leases import Leases
from agent.outcomes import ANSWERED_SITE, outcome_event
from agent.scheduler import FairShares
from agent.supervisor import sleep_unless
from agent.sync.outgoing import Departure, Outgoing
from connectors.base import Found, NotFound, Outcome, Parcel, Sink
from state import inbox, life, targets
from state.database import Database
from state.inbox import Arrival
from state.lanes import Lane, is_due, next_due
from state.model.clock import Clock
from state.model.delivery import Claim, DeliveryState, OutcomeKind, TargetMemory, Verdict
from state.model.errors import (
    DistctlError,
    FencedError,
    InDoubtError,
    InvariantError,
    NotConnectedError,
    RejectedError,
    StoreError,
    TransientError,
)
from state.model.estate import LimitSpec
from state.model.event import Event
from state.model.ids import DeliveryId, Fence
from state.model.retry import RetryPolicy
from state.outbox import Outbox, Release, Settlement, fenced, next_fence

_log = logging.getLogger("distctl.relay")
_SHORTEST_IDLE: Final = 0.02
_LONGEST_IDLE: Final = 30.0
_STORE_PAUSE: Final = 1.0
_STUMBLES: Final = 5
"""Calls in a row that got no clear answer count as an outage."""
_GRACE: Final = timedelta(seconds=5)
"""What a lease lasts beyond the call's own deadline."""


_TROUBLES: Final = (NotConnectedError, TransientError, InDoubtError)


Render: TypeAlias = Callable[[sqlite3.Connection, Lane, Event], bytes]
"""The payload of an event for a lane, by the estate that the event carries. Raises `RejectedError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLane:
    """A lane that can be worked: how it is reached, what its target remembers, how it is tried again."""

    lane: Lane
    sink: Sink
    memory: TargetMemory
    policy: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTerms:
    """What is agreed with one target."""

    name: str  # site/system
    limits: LimitSpec
    weights: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Parked:
    """What was set aside in a turn. `revision` is the attempt that ended so; 0 where nothing could be sent."""

    delivery: DeliveryId
    event: Event
    revision: int
    error: RejectedError


@dataclass(slots=True)
class _Turn:
    """What a slot holds between two units of work."""

    lane: Lane | None = None
    fence: Fence | None = None
    claims: Sequence[Claim] = ()
    answers: Sequence[Answer] = ()
    next_due: datetime | None = None
    is_more_due: bool = False
    settled: list[tuple[Claim, Settlement]] = field(default_factory=list)
    parked: list[_Parked] = field(default_factory=list)
    failed: list[DeliveryId] = field(default_factory=list)
    ended: list[DeliveryId] = field(default_factory=list)
    sent_to: set[str] = field(default_factory=set)  # the sites that are to have an outcome


class TargetRelay:
    """The outbox of one target."""

    def __init__(
        self,
        terms: TargetTerms,
        *,
        database: Database,
        lanes: Sequence[OpenLane],
        render: Render,
        leases: Leases,
        breaker: Breaker,
        clock: Clock,
        dice: random.Random,
        crash: CrashPoint,
        shadowed: Collection[str] = (),
        outgoing: Outgoing,
        on_turn: Callable[[str, int, int], None],
        on_sent: Callable[[Collection[str]], None],
    ) -> None:
        self._terms = terms
        self._database = database
        self._lanes = {one.lane.id: one for one in lanes}
        self._render = render
        self._leases = leases
        self._clock = clock
        self._dice = dice
        self._crash = crash
        self._shadowed = frozenset(shadowed)  # flows with a target that is compared
        self._outgoing = outgoing
        self._on_turn = on_turn
        self._on_sent = on_sent
        self._shares = FairShares(terms.weights)
        self._breaker = breaker
        self._stumbles = 0
        self._successes = 0
        self._success_marks: dict[DeliveryId, int] = {}  # how many successes there were when it last failed
        self._wakeups = [asyncio.Event() for _ in range(terms.limits.in_flight)]

    @property
    def breaker(self) -> Breaker:
        """The target's circuit breaker."""
        return self._breaker

    @property
    def slots(self) -> int:
        """How many slots are to be run."""
        return len(self._wakeups)

    def wake(self) -> None:
        """There may be new work."""
        for event in self._wakeups:
            event.set()

    async def run(self, slot: int, stopping: asyncio.Event) -> None:
        """Work as slot number `slot` until `stopping` is set and `wake` was called; what is under way is settled first."""
        turn = _Turn()
        wakeup = self._wakeups[slot]
        try:
            while True:
                wakeup.clear()
                turn = await self._next(turn, stopping)
                if turn.claims:
                    await self._call(turn)
                elif stopping.is_set():
                    return
                else:
                    await self._idle(turn, wakeup)
        finally:
            if turn.fence is not None:
                self._leases.end(turn.fence)

    async def _next(self, last: _Turn, stopping: asyncio.Event) -> _Turn:
        """Settle the last turn and, unless it is to stop, claim the next, in one unit of work."""
        claiming = not stopping.is_set()
        trial = claiming and self._breaker.is_open
        may_claim = claiming and self._breaker.lets_through()
        if not may_claim and not last.claims:
            return _Turn(next_due=self._breaker.next_try)
        turn = _Turn()
        try:
            turn = await self._write(
                last,
                self._shares.order(one.lane for one in self._lanes.values()) if may_claim else (),
                1 if trial else None,
                stopping,
            )
        finally:
            if trial and may_claim and turn.lane is None:
                self._breaker.forgo()
        if last.fence is not None:
            self._leases.end(last.fence)
        if turn.lane is not None:
            self._shares.charge(turn.lane, len(turn.claims))
        if last.claims or turn.parked:
            self._report(turn)
        if turn.is_more_due:
            self.wake()  # the other slots may have found nothing when this one held all that was due
        if not may_claim:
            turn.next_due = self._breaker.next_try
        return turn

    async def _write(self, last: _Turn, order: Sequence[Lane], most: int | None, stopping: asyncio.Event) -> _Turn:
        """Results are never lost to a store that is full or locked for a while: they are written when it can take them.

        An agent that stops does not wait for that: what has no result in the store is in doubt at the next start.
        """
        unit = partial(self._take_turn, last, order, most)
        while True:
            try:
                return await self._database.write(unit, name="relay.turn")
            except StoreError as error:
                _log.warning("%s: the store cannot take results now: %s", self._terms.name, error)
                if await sleep_unless(stopping, _STORE_PAUSE, clock=self._clock):
                    raise

    def _take_turn(self, last: _Turn, order: Sequence[Lane], most: int | None, connection: sqlite3.Connection) -> _Turn:
        now = self._clock.now()
        turn = _Turn(next_due=None)
        with Outbox(connection, now=now) as outbox:
            if last.lane is not None and last.claims:
                self._settle(connection, outbox, last, last.lane, turn, now)
            for lane in order:
                if not turn.claims and is_due(connection, lane.id, now=now):
                    self._claim(connection, outbox, lane, turn, most or self._terms.limits.batch)
            for one in outbox.unsent:
                parked = _Parked(one.delivery, one.event, 0, one.error)
                turn.parked.append(parked)
                turn.sent_to |= self._tell(connection, one.lane, [_parked(parked, one.lane, _epoch(connection), now)])
        turn.is_more_due = bool(turn.claims) and any(is_due(connection, lane.id, now=now) for lane in order)
        if not turn.claims:
            dues = [due for lane in order if (due := next_due(connection, lane.id)) is not None]
            turn.next_due = min(dues, default=None)
        return turn

    def _claim(self, connection: sqlite3.Connection, outbox: Outbox, lane: Lane, turn: _Turn, limit: int) -> None:
        fence = next_fence(connection)
        claims = outbox.claim(
            lane,
            fence=fence,
            limit=limit,
            memory=self._lanes[lane.id].memory,
            call_deadline=self._terms.limits.deadline,
            render=partial(self._render, connection, lane),
        )
        if claims:
            calls = len({claim.verdict is Verdict.PROBE for claim in claims})  # one sends, one asks
            self._leases.grant(fence, (calls * self._terms.limits.deadline + _GRACE).total_seconds())
            turn.lane, turn.fence, turn.claims = lane, fence, claims

    # The call.

    async def _call(self, turn: _Turn) -> None:
        """Send or ask, and keep the answers in the turn. Never raises but when cancelled."""
        lane = turn.lane
        if lane is None or turn.fence is None:
            raise InvariantError("a turn with claims has a lane and a fence")
        if not self._leases.holds(turn.fence):
            turn.answers = [FencedError("the lease expired before the call") for _ in turn.claims]
            self._breaker.forgo()
            return
        sink = self._lanes[lane.id].sink
        probes = [claim for claim in turn.claims if claim.verdict is Verdict.PROBE]
        sends = [claim for claim in turn.claims if claim.verdict is not Verdict.PROBE]
        self._crash("relay.before_send")
        answers: dict[int, Answer] = {}
        if sends:
            heard = await self._deliver(sink, sends)
            answers.update((claim.delivery, answer) for claim, answer in zip(sends, heard, strict=True))
        if probes:
            until = asyncio.get_running_loop().time() + self._terms.limits.deadline.total_seconds()
            answers.update([(claim.delivery, await self._probe(sink, claim, until)) for claim in probes])
        self._crash("relay.after_send")
        turn.answers = [legible(answers[claim.delivery]) for claim in turn.claims]
        self._learn(turn.answers)

    async def _deliver(self, sink: Sink, claims: Sequence[Claim]) -> Sequence[Answer]:
        try:
            async with asyncio.timeout(self._terms.limits.deadline.total_seconds()):
                answers = await sink.deliver([_parcel(claim) for claim in claims])
            if not _is_answered(claims, answers):
                raise InvariantError("the connector did not give an answer for each parcel")
        except TimeoutError:
            limit = self._terms.limits.deadline.total_seconds()
            return [InDoubtError(f"no answer within {limit:g} s", code="deadline") for _ in claims]
        except InvariantError as error:
            return [InDoubtError(error.message, code="connector-fault") for _ in claims]
        except DistctlError as error:
            return [error for _ in claims]
        except Exception:  # noqa: BLE001 - a connector's own fault must not lose what may have been sent
            _log.exception("the connector of %s failed by its own fault", self._terms.name)
            return [
                InDoubtError("the connector failed in the middle of the call", code="connector-fault") for _ in claims
            ]
        return answers

    async def _probe(self, sink: Sink, claim: Claim, until: float) -> Answer:
        """Ask, by `until` on the loop's clock: all that are asked in one call share its deadline, or the lease would end."""
        if asyncio.get_running_loop().time() >= until:
            return TransientError("not asked in this call: those before it took all its time", code="deadline")
        try:
            async with asyncio.timeout_at(until):
                answer = await sink.probe(_parcel(claim))
            if not isinstance(answer, Found | NotFound):
                raise TransientError("the connector gave no answer when asked", code="connector-fault")
            return answer
        except TimeoutError:
            return TransientError("the target did not answer when asked for our key", code="deadline")
        except DistctlError as error:
            return error
        except Exception:  # noqa: BLE001 - as above; asking again is harmless
            _log.exception("the connector of %s failed by its own fault when asked", self._terms.name)
            return TransientError("the connector failed when asking", code="connector-fault")

    def _learn(self, answers: Sequence[Answer]) -> None:
        """Open or close the breaker by what this call heard: one clear answer shows that the target works."""
        troubles = [answer for answer in answers if isinstance(answer, _TROUBLES)]
        if len(troubles) < len(answers):
            self._stumbles = 0
            if self._breaker.succeed():
                _log.info("%s works again", self._terms.name, extra={"target": self._terms.name})
                self.wake()
            return
        self._stumbles += 1
        error = troubles[0]
        if isinstance(error, NotConnectedError) or self._stumbles >= _STUMBLES or self._breaker.is_open:
            wish = error.retry_after if isinstance(error, NotConnectedError) else None
            if not self._breaker.is_open:
                _log.warning(
                    "%s takes nothing now, so it is tried from time to time and nothing is set aside: %s",
                    self._terms.name,
                    error,
                    extra={"target": self._terms.name, "code": error.code},
                )
            self._breaker.fail(reason=error.message, retry_after=wish)

    # The settling.

    def _settle(
        self, connection: sqlite3.Connection, outbox: Outbox, last: _Turn, lane: Lane, turn: _Turn, now: datetime
    ) -> None:
        around = self._circumstances(lane, now)
        for claim, answer in zip(last.claims, last.answers, strict=True):
            try:
                self._apply(outbox, claim, lane, answer, turn, around)
            except FencedError as error:
                _log.warning("a late result is dropped: %s", error)
        epoch = _epoch(connection)
        outcomes = [_parked(one, lane, epoch, now) for one in turn.parked]
        held = outbox.settle(turn.settled)
        for claim, settlement in turn.settled:
            if claim.delivery in held:
                outcomes.append(_delivered(claim, lane, settlement, epoch, now))
            else:
                _log.warning("a late result is dropped: %s", fenced(claim))
        if lane.flow in self._shadowed:
            for claim in last.claims:
                outbox.compare(claim.event, lane)
        turn.sent_to |= self._tell(connection, lane, outcomes)
        targets.note(
            connection,
            self._terms.name,
            retry_at=self._breaker.retry_at,
            reason=self._breaker.reason,
            failures=self._breaker.failures,
            succeeded_at=now if turn.settled else None,
        )

    def _tell(self, connection: sqlite3.Connection, lane: Lane, outcomes: Sequence[Event]) -> frozenset[str]:
        """Admit what became of deliveries of the lane, and send it to where their events arose; returns who is to have it."""
        set_aside = partial(taken_ids.set_aside, connection, came_from=lane.target, now=self._clock.now())
        admitted = inbox.admit(connection, [Arrival(event) for event in outcomes], on_taken=set_aside)
        departures = [Departure(one, lane.tier, {str(one.event.extensions[ANSWERED_SITE])}) for one in admitted]
        return self._outgoing.send(connection, departures)

    def _apply(
        self, outbox: Outbox, claim: Claim, lane: Lane, answer: Answer, turn: _Turn, around: Circumstances
    ) -> None:
        """Write the consequence of one answer. Settlements are kept, to be written as one. Raises `FencedError`."""
        if isinstance(answer, FencedError):
            raise answer
        consequence = weigh(claim, answer, around)
        match consequence:
            case Settlement():
                turn.settled.append((claim, consequence))
                turn.ended.append(claim.delivery)
            case Release():
                if isinstance(answer, TransientError):
                    turn.failed.append(claim.delivery)
                if lane.shadow_of and consequence.due_at is None:
                    outbox.discard(claim, Settlement(kind=OutcomeKind.REJECTED, detail=consequence.detail))
                else:
                    outbox.release(claim, consequence)
            case RejectedError():
                turn.ended.append(claim.delivery)
                if lane.shadow_of:
                    outbox.discard(claim, Settlement(kind=OutcomeKind.REJECTED, detail=consequence.message))
                else:
                    outbox.park(claim, consequence, lane=lane)
                    turn.parked.append(_Parked(claim.delivery, claim.event, claim.attempt, consequence))

    def _circumstances(self, lane: Lane, now: datetime) -> Circumstances:
        return Circumstances(
            now=now,
            memory=self._lanes[lane.id].memory,
            policy=self._lanes[lane.id].policy,
            call_deadline=self._terms.limits.deadline,
            is_target_alive=self._is_target_alive,
            dice=self._dice,
        )

    def _is_target_alive(self, delivery: DeliveryId) -> bool:
        return self._successes > self._success_marks.get(delivery, self._successes - 1)

    def _report(self, turn: _Turn) -> None:
        """What follows from a turn that is on disk; the unit itself has no other effect, since it may run again."""
        self._success_marks.update(dict.fromkeys(turn.failed, self._successes))
        for delivery in turn.ended:
            self._success_marks.pop(delivery, None)
        self._successes += len(turn.settled)
        self._on_turn(self._terms.name, len(turn.settled), len(turn.parked))
        self._on_sent(turn.sent_to)
        for one in turn.parked:
            _log.warning(
                "parked %s for %s: %s",
                one.event.subject,
                self._terms.name,
                one.error,
                extra={"delivery": one.delivery, "code": one.error.code, "target": self._terms.name},
            )

    async def _idle(self, turn: _Turn, wakeup: asyncio.Event) -> None:
        seconds = _LONGEST_IDLE
        if turn.next_due is not None:
            seconds = min(max((turn.next_due - self._clock.now()).total_seconds(), _SHORTEST_IDLE), _LONGEST_IDLE)
        await sleep_unless(wakeup, seconds, clock=self._clock)


def _epoch(connection: sqlite3.Connection) -> int:
    here = life.find(connection)
    return here.epoch if here else 1


def _is_answered(claims: Sequence[Claim], answers: object) -> bool:
    return (
        isinstance(answers, Sequence)
        and len(answers) == len(claims)
        and all(isinstance(answer, Outcome | DistctlError) for answer in answers)
    )


def _delivered(claim: Claim, lane: Lane, settlement: Settlement, epoch: int, now: datetime) -> Event:
    return outcome_event(
        claim.event,
        lane,
        life=epoch,
        revision=claim.attempt,
        state=DeliveryState.DELIVERED,
        kind=settlement.kind,
        reference=settlement.reference,
        detail=settlement.detail,
        now=now,
    )


def _parked(one: _Parked, lane: Lane, epoch: int, now: datetime) -> Event:
    return outcome_event(
        one.event,
        lane,
        life=epoch,
        revision=one.revision,
        state=DeliveryState.PARKED,
        kind=OutcomeKind.REJECTED,
        reference="",
        detail=one.error.message,
        now=now,
    )


def _parcel(claim: Claim) -> Parcel:
    return Parcel(
        idempotency_key=claim.idempotency_key,
        subject=claim.event.subject,
        partition_key=claim.event.partitionkey,
        contract=claim.event.contract,
        payload=claim.payload,
        is_resend=claim.may_have_landed,
    )
