"""The envelope: a CloudEvents 1.0 event with the documented extensions and our own.

`Event` is the form inside; `to_cloudevent` and `from_cloudevent` are the form on the wire. CloudEvents attribute names are
lower-case letters and digits. Attributes we do not know are kept in `extensions` and written back unchanged, so that an older
agent never loses what a newer one says. Source: https://github.com/cloudevents/spec, version 1.0.2, and its
partitioning, sequence, distributed tracing and correlation extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from state.model.errors import RejectedError
from state.model.ids import EstateHash, EventId
from state.model.visible import visible

SPECVERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"

_Choice = TypeVar("_Choice", bound=StrEnum)


class Op(StrEnum):
    """What an event says about its document."""

    SNAPSHOT = "snapshot"  # the whole document as it is now; a newer one replaces it
    DELTA = "delta"  # a change; none may be left out
    COMMAND = "command"  # an order to do something (OAGIS Process)
    ACK = "ack"  # an answer to a command
    CORRECTION = "correction"  # an earlier event was wrong (EPCIS errorDeclaration)


class Environment(StrEnum):
    """Test and production never meet (ISA15, OAGIS systemEnvironmentCode)."""

    TEST = "test"
    PRODUCTION = "production"


def event_type(contract: str, op: str) -> str:
    """The CloudEvents type of an entity's event: `distctl.purchase-order.snapshot`."""
    return f"distctl.{contract.partition('/')[0]}.{op}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A canonical business fact or command. `data` is the entity as canonical JSON bytes."""

    id: EventId
    source: str  # URI-reference: /site/system
    type: str  # distctl.<entity>.<op>
    subject: str  # the business key: what people call the thing
    time: datetime  # when it happened, with its offset
    contract: str  # entity/version, the CloudEvents dataschema
    data: bytes
    partitionkey: str  # order is kept inside one
    sequence: int  # per source, rising
    recordedtime: datetime  # when we took it in
    correlationid: str  # the first event of the chain
    causationid: EventId | None = None  # the event that led to this one
    traceparent: str = ""  # W3C trace context
    site: str
    system: str
    flow: str
    op: Op
    environment: Environment
    estate: EstateHash  # the estate that routes it, everywhere
    place: str = ""  # where its raw record stands: plan.csv line 14
    rawref: str = ""  # SHA-256 of the raw document it was read from
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def entity(self) -> str:
        """The contract without its version."""
        return self.contract.partition("/")[0]

    def to_cloudevent(self) -> dict[str, Any]:
        """The structured JSON form; `data` is embedded as it stands."""
        attributes: dict[str, Any] = {
            "specversion": SPECVERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.isoformat(),
            "datacontenttype": CONTENT_TYPE,
            "dataschema": self.contract,
            "partitionkey": self.partitionkey,
            "sequence": str(self.sequence),
            "recordedtime": self.recordedtime.isoformat(),
            "correlationid": self.correlationid,
            "site": self.site,
            "system": self.system,
            "flow": self.flow,
            "op": self.op.value,
            "environment": self.environment.value,
            "estate": self.estate,
        }
        optional = {
            "causationid": self.causationid,
            "traceparent": self.traceparent,
            "place": self.place,
            "rawref": self.rawref,
        }
        return {
            **self.extensions,
            **attributes,
            **{name: value for name, value in optional.items() if value},
            "data": orjson.Fragment(self.data),
        }

    def to_json(self) -> bytes:
        """The structured form as JSON bytes."""
        return orjson.dumps(self.to_cloudevent())


_KNOWN: Final = frozenset(
    (
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey"),
        *("sequence", "recordedtime", "correlationid", "causationid", "traceparent", "site", "system", "flow", "op"),
        *("environment", "estate", "place", "rawref", "data"),
    )
)


def from_cloudevent(attributes: Mapping[str, Any]) -> Event:
    """The event of a structured CloudEvent. Raises `RejectedError` naming the attribute that is missing or wrong."""
    if attributes.get("specversion") != SPECVERSION:
        raise _wrong("specversion", attributes.get("specversion"), "must be 1.0")
    return Event(
        id=EventId(_text(attributes, "id")),
        source=_text(attributes, "source"),
        type=_text(attributes, "type"),
        subject=_text(attributes, "subject"),
        time=_instant(attributes, "time"),
        contract=_text(attributes, "dataschema"),
        data=orjson.dumps(attributes.get("data")),
        partitionkey=_text(attributes, "partitionkey"),
        sequence=_sequence(attributes),
        recordedtime=_instant(attributes, "recordedtime"),
        correlationid=_text(attributes, "correlationid"),
        causationid=EventId(cause) if (cause := attributes.get("causationid")) else None,
        traceparent=str(attributes.get("traceparent", "")),
        site=_text(attributes, "site"),
        system=_text(attributes, "system"),
        flow=_text(attributes, "flow"),
        op=_choice(attributes, "op", Op),
        environment=_choice(attributes, "environment", Environment),
        estate=EstateHash(_text(attributes, "estate")),
        place=str(attributes.get("place", "")),
        rawref=str(attributes.get("rawref", "")),
        extensions={name: value for name, value in attributes.items() if name not in _KNOWN},
    )


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, "must be a text that is not empty")
    return value


def _instant(attributes: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(attributes, name))
    except ValueError:
        raise _wrong(name, attributes.get(name), "must be an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise _wrong(name, attributes.get(name), "must carry its offset")
    return moment


def _sequence(attributes: Mapping[str, Any]) -> int:
    text = _text(attributes, "sequence")
    if not (text.isascii() and text.isdecimal()):
        raise _wrong("sequence", text, "must be a whole number")
    return int(text)


def _choice(attributes: Mapping[str, Any], name: str, choices: type[_Choice]) -> _Choice:
    value = attributes.get(name)
    try:
        return choices(str(value))
    except ValueError:
        raise _wrong(name, value, f"must be one of {', '.join(choices)}") from None


def _wrong(name: str, value: object, rule: str) -> RejectedError:
    return RejectedError(
        f"the event's attribute {name} {rule}",
        place=name,
        rule=rule,
        shown=visible(repr(value))[:80],
        hint="correct the sender: it does not write CloudEvents 1.0 as distctl agrees with its peers",
        code="envelope",
    )
