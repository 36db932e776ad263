"""What an answer means for a delivery. Pure: the rules of sections 4.4 and 4.5 of the design are the functions of this module.

A call that was sent on a doubt (`resend`, `probe`) says nothing about the first one when it fails: the doubt stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from connectors.base import Found, NotFound, Outcome
from state.model.delivery import (
    Claim,
    DeliveryState,
    Doubt,
    OutcomeKind,
    TargetMemory,
    Verdict,
    denial_counts,
    judge,
)
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from state.model.ids import DeliveryId
from state.model.retry import RetryPolicy, honoured
from state.model.visible import visible
from state.outbox import Release, Settlement

Answer: TypeAlias = Outcome | Found | NotFound | DistctlError
Consequence: TypeAlias = Settlement | Release | RejectedError
"""It is settled, it waits, or it is parked for that reason."""

_ASK_DELAYED_AGAIN: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else the rules look at, alike for all answers of one call."""

    now: datetime
    memory: TargetMemory
    policy: RetryPolicy
    call_deadline: timedelta
    is_target_alive: Callable[[DeliveryId], bool]  # it took others since this one failed: the fault is the record's own
    dice: random.Random


def weigh(claim: Claim, answer: Answer, around: Circumstances) -> Consequence:
    """The consequence of `answer` for the delivery in `claim`."""
    match answer:
        case Found():
            return _heard(claim, answer.outcome, around)
        case NotFound():
            return _denied(claim, answer, around)
        case Outcome():
            return _heard(claim, answer, around)
        case DuplicateError():
            return Settlement(
                kind=OutcomeKind.ACCEPTED, reference=answer.reference, detail=f"already there: {answer.message}"
            )
        case RejectedError():
            return answer
        case InDoubtError():
            return _doubted(claim, answer, around)
        case TransientError():
            return _failed(claim, answer, around, retry_after=answer.retry_after)
        case NotConnectedError():
            return _unreached(claim, answer, around)
    return _doubted(claim, answer, around)


def legible(answer: Answer) -> Answer:
    """The answer with its words fit to be stored and shown: a connector may hand on what its partner wrote."""
    match answer:
        case Found():
            return Found(outcome=_legible_outcome(answer.outcome))
        case Outcome():
            return _legible_outcome(answer)
        case NotFound():
            return NotFound(detail=visible(answer.detail))
    for name, word in vars(answer).items():
        if isinstance(word, str):
            setattr(answer, name, visible(word))
    return answer


def _legible_outcome(outcome: Outcome) -> Outcome:
    reference, detail = visible(outcome.reference), visible(outcome.detail)
    if (reference, detail) == (outcome.reference, outcome.detail):
        return outcome
    return replace(outcome, reference=reference, detail=detail)


def _heard(claim: Claim, outcome: Outcome, around: Circumstances) -> Consequence:
    if outcome.kind is OutcomeKind.REJECTED:
        return RejectedError(
            outcome.detail or "the target refused it",
            rule=outcome.detail,
            hint="correct the record or the target; under order latest a newer snapshot closes this",
            code="rejected-by-target",
        )
    if outcome.kind is OutcomeKind.DELAYED and not around.memory.can_probe:
        detail = outcome.detail or "the target took it; it cannot be asked for what it decided later"
        return Settlement(kind=OutcomeKind.DELAYED, reference=outcome.reference, detail=detail)
    if outcome.kind is OutcomeKind.DELAYED:
        return Release(
            state=DeliveryState.DELAYED,
            due_at=around.now + max(honoured(_wish(outcome)), around.policy.first),
            code="delayed",
            detail=outcome.detail or "the target took it and answers later",
            document=outcome.document,
            doubt=claim.doubt,
            outcome=OutcomeKind.DELAYED,
            reference=outcome.reference,
        )
    if outcome.kind is OutcomeKind.IN_DOUBT:
        return _doubted(claim, InDoubtError(outcome.detail or "the target cannot say"), around)
    return Settlement(kind=outcome.kind, reference=outcome.reference, detail=outcome.detail)


def _wish(outcome: Outcome) -> timedelta:
    return _ASK_DELAYED_AGAIN if outcome.ask_again_in is None else outcome.ask_again_in


def _denied(claim: Claim, answer: NotFound, around: Circumstances) -> Release:
    if claim.is_delayed:
        return _asked_later(claim, "the target took it but does not show it yet", around)
    if not denial_counts(claim.doubt, around.memory, asked_at=around.now):
        doubt = claim.doubt
    elif claim.doubt.last_denied_at is None:
        doubt = Doubt(
            first_sent_at=claim.doubt.first_sent_at,
            last_sent_at=claim.doubt.last_sent_at,
            last_denied_at=around.now,
        )
    else:
        return Release(
            state=DeliveryState.PENDING,
            due_at=around.now,
            code="not-landed",
            detail=answer.detail or "asked twice, late enough: the target does not have it",
        )
    return _still_in_doubt(doubt, around, code="not-found", detail=answer.detail or "the target does not have it yet")


def _asked_later(claim: Claim, detail: str, around: Circumstances) -> Release:
    return Release(
        state=DeliveryState.DELAYED,
        due_at=around.now + around.policy.delay(claim.attempt, dice=around.dice),
        code="delayed",
        detail=detail,
        doubt=claim.doubt,
        outcome=OutcomeKind.DELAYED,
    )


def _doubted(claim: Claim, error: DistctlError, around: Circumstances) -> Release:
    if claim.is_delayed:
        return _asked_later(claim, error.message, around)
    sent = around.now if claim.verdict is not Verdict.PROBE else claim.doubt.last_sent_at
    denied = claim.doubt.last_denied_at if claim.verdict is Verdict.PROBE else None
    doubt = Doubt(first_sent_at=claim.doubt.first_sent_at, last_sent_at=sent, last_denied_at=denied)
    return _still_in_doubt(doubt, around, code=error.code, detail=error.message, pause=_pause(claim, around))


def _failed(
    claim: Claim, error: TransientError, around: Circumstances, *, retry_after: timedelta | None
) -> Consequence:
    pause = max(_pause(claim, around), honoured(retry_after))
    if claim.may_have_landed:
        return _as_it_was(claim, error, around.now + pause)
    is_alive = around.is_target_alive(claim.delivery)
    if is_alive and around.policy.is_spent(claim.failures + 1):
        return RejectedError(
            f"gave up after {claim.failures + 1} attempts: {error.message}",
            rule=error.message,
            hint=error.hint or "the target works for others: look at what it says about this one",
            code="attempts-spent",
        )
    return Release(
        state=DeliveryState.PENDING,
        due_at=around.now + pause,
        code=error.code,
        detail=error.message,
        counts=is_alive,
    )


def _unreached(claim: Claim, error: NotConnectedError, around: Circumstances) -> Release:
    if claim.may_have_landed:
        return _as_it_was(claim, error, around.now)
    return Release(state=DeliveryState.PENDING, due_at=around.now, code=error.code, detail=error.message)


def _as_it_was(claim: Claim, error: DistctlError, due_at: datetime) -> Release:
    if claim.is_delayed:
        state, outcome = DeliveryState.DELAYED, OutcomeKind.DELAYED
    else:
        state, outcome = DeliveryState.IN_DOUBT, OutcomeKind.IN_DOUBT
    return Release(
        state=state, due_at=due_at, code=error.code, detail=error.message, doubt=claim.doubt, outcome=outcome
    )


def _still_in_doubt(
    doubt: Doubt, around: Circumstances, *, code: str, detail: str, pause: timedelta = timedelta(0)
) -> Release:
    verdict, at = judge(doubt, around.memory, now=around.now, call_deadline=around.call_deadline)
    waits_for_a_person = verdict is Verdict.ASK_A_PERSON
    return Release(
        state=DeliveryState.IN_DOUBT,
        due_at=None if waits_for_a_person else max(at, around.now + pause),
        code=code,
        detail=f"{detail}; the target can be asked by nobody but a person" if waits_for_a_person else detail,
        doubt=doubt,
        outcome=OutcomeKind.IN_DOUBT,
    )


def _pause(claim: Claim, around: Circumstances) -> timedelta:
    return around.policy.delay(claim.attempt, dice=around.dice)
