"""A delivery: one event owed to one target, its states, and what to do about one that is in doubt.

`TRANSITIONS` is the state machine; the store holds the same rules as CHECK constraints and partial unique indexes, and a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from state.model.event import Event
from state.model.ids import DeliveryId, Fence, LaneId


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"  # owed; will be sent when it is the head of its key and due
    INFLIGHT = "inflight"  # a worker with a lease is sending or asking; the payload is frozen
    IN_DOUBT = "in_doubt"  # the call ended and nobody can say whether it landed
    DELAYED = "delayed"  # the target took it and will answer later; it is asked
    PARKED = "parked"  # set aside as a dead letter with its cause and a hint
    DELIVERED = "delivered"  # settled: the target has it
    SUPERSEDED = "superseded"  # settled: a newer snapshot of its scope made it pointless
    DISCARDED = "discarded"  # settled: a person, or the shadow rule, dropped it


TRANSITIONS: Final[Mapping[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.PENDING: frozenset(
        {
            DeliveryState.INFLIGHT,
            DeliveryState.IN_DOUBT,  # in a store that was put back from a backup
            DeliveryState.SUPERSEDED,
            DeliveryState.PARKED,
            DeliveryState.DISCARDED,
        }
    ),
    DeliveryState.INFLIGHT: frozenset(
        {
            DeliveryState.PENDING,
            DeliveryState.IN_DOUBT,
            DeliveryState.DELAYED,
            DeliveryState.PARKED,
            DeliveryState.DELIVERED,
            DeliveryState.DISCARDED,
        }
    ),
    DeliveryState.IN_DOUBT: frozenset(
        {
            DeliveryState.INFLIGHT,
            DeliveryState.PENDING,
            DeliveryState.PARKED,
            DeliveryState.DELIVERED,
            DeliveryState.SUPERSEDED,  # in a store that was put back from a backup
            DeliveryState.DISCARDED,
        }
    ),
    DeliveryState.DELAYED: frozenset({DeliveryState.INFLIGHT, DeliveryState.PARKED, DeliveryState.DELIVERED}),
    DeliveryState.PARKED: frozenset(
        {
            DeliveryState.PENDING,
            DeliveryState.DELIVERED,  # in a store that was put back from a backup
            DeliveryState.SUPERSEDED,
            DeliveryState.DISCARDED,
        }
    ),
    DeliveryState.SUPERSEDED: frozenset({DeliveryState.PENDING}),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.DISCARDED: frozenset(),
}

SETTLED: Final = frozenset({DeliveryState.DELIVERED, DeliveryState.SUPERSEDED, DeliveryState.DISCARDED})
"""The target is owed nothing any more. Everything else makes newer events of a strict key wait."""


class OutcomeKind(StrEnum):
    """What a target said."""

    ACCEPTED = "accepted"
    MODIFIED = "modified"  # accepted, with changes of the target's own
    DELAYED = "delayed"  # taken, the answer comes later
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"


class OrderMode(StrEnum):
    """How newer events of a partition key stand to an older one that is unsettled."""

    STRICT = "strict"  # they wait
    LATEST = "latest"  # a newer snapshot supersedes older snapshots; deltas wait
    ANY = "any"  # they go


class Verdict(StrEnum):
    """What to do with a delivery when its turn comes."""

    SEND = "send"  # first attempt, or known not to have landed
    RESEND = "resend"  # the same payload under the same key: the target remembers it
    PROBE = "probe"  # ask the target by our key
    WAIT = "wait"  # too early for the probe to mean anything
    ASK_A_PERSON = "ask a person"  # nobody can say: neither memory nor probe


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetMemory:
    """What a target declares about our calls. Zero is "not at all"."""

    key_lifetime: timedelta = timedelta(0)  # how long it remembers an idempotency key
    lands_within: timedelta = timedelta(0)  # how late a call may still land after it ended for us
    can_probe: bool = False  # it can be asked for our key


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What is known about a delivery in doubt: when it was sent, and when the target last said it has nothing."""

    first_sent_at: datetime
    last_sent_at: datetime
    last_denied_at: datetime | None = None  # the last probe that counted and found nothing


def judge(doubt: Doubt, memory: TargetMemory, *, now: datetime, call_deadline: timedelta) -> tuple[Verdict, datetime]:
    """What to do about a delivery in doubt, and when. Pure: the whole of promise 2 is in these lines.

    Inside the target's memory of our key the same call is safe, if it also ends inside it. Otherwise the target is asked, and
    "not landed" counts only when asked after `lands_within` and asked twice; the second asking comes one `lands_within` (at
    least a second) after the first. A target that can do neither waits for a person.
    """
    if memory.key_lifetime and now + call_deadline < doubt.first_sent_at + memory.key_lifetime:
        return Verdict.RESEND, now
    if not memory.can_probe:
        return Verdict.ASK_A_PERSON, now
    settled_at = doubt.last_sent_at + memory.lands_within
    if doubt.last_denied_at is not None:
        settled_at = doubt.last_denied_at + max(memory.lands_within, timedelta(seconds=1))
    return (Verdict.WAIT, settled_at) if now < settled_at else (Verdict.PROBE, now)


def denial_counts(doubt: Doubt, memory: TargetMemory, *, asked_at: datetime) -> bool:
    """Whether a "not landed" heard now is late enough to count."""
    return asked_at >= doubt.last_sent_at + memory.lands_within


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery in a worker's hands under a lease."""

    delivery: DeliveryId
    lane: LaneId
    event: Event
    fence: Fence
    verdict: Verdict
    is_delayed: bool  # the target has it and owes its answer
    attempt: int  # counts from 1
    failures: int  # attempts so far that count against the budget
    idempotency_key: str
    payload: bytes
    doubt: Doubt  # as it stood before this attempt; only of meaning for what is in doubt

    @property
    def may_have_landed(self) -> bool:
        """An earlier call of this delivery may be at the target, whatever this attempt hears."""
        return self.verdict is not Verdict.SEND
