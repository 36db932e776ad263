"""Outcomes as events: what a target said about a delivery, written in the transaction that settles it.

An outcome is a document about the same business key as the event that it answers; its id is (delivery, life, revision), of the
latest life of the agent that delivers the highest revision wins, and it is never answered itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import orjson

from state.lanes import Lane
from state.model.delivery import DeliveryState
from state.model.event import Event, Op, event_type
from state.model.ids import outcome_id

CONTRACT: Final = "delivery-outcome/1"

ANSWERED_SITE: Final = "answeredsite"
"""The extension attribute with the site where the answered event arose: a hub that has lost the event knows it by this."""


def outcome_event(
    cause: Event,
    lane: Lane,
    *,
    life: int,
    revision: int,
    state: DeliveryState,
    kind: str,
    reference: str,
    detail: str,
    now: datetime,
) -> Event:
    """The event that says how the delivery of `cause` to `lane` stands, in that life of the store.

    `revision` is the attempt that it is the end of; 0 where nothing could be sent.
    """
    site, _, system = lane.target.partition("/")
    return Event(
        id=outcome_id(delivery_event=cause.id, target=lane.target, life=life, revision=revision),
        source=f"/{site}/{system}",
        type=event_type(CONTRACT, Op.ACK),
        subject=cause.subject,
        time=now,
        contract=CONTRACT,
        data=orjson.dumps(
            {
                "flow": lane.flow,
                "target": lane.target,
                "state": state,
                "outcome": kind,
                "reference": reference,
                "detail": detail,
                "life": life,
                "revision": revision,
            }
        ),
        partitionkey=cause.partitionkey,
        sequence=0,
        recordedtime=now,
        correlationid=cause.correlationid,
        causationid=cause.id,
        traceparent=cause.traceparent,
        site=site,
        system=system,
        flow=lane.flow,
        op=Op.ACK,
        environment=cause.environment,
        estate=cause.estate,
        extensions={ANSWERED_SITE: cause.site},
    )
