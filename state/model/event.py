"""The envelope: a CloudEvents 1.0 event with the documented extensions and our own.

`Event` is the form inside. `to_cloudevent` and `from_cloudevent` are its structured form, one JSON object; `attributes` and
`of_attributes` have the data beside it, as bytes that nobody writes anew. CloudEvents attribute names are lower-case letters
and digits. Attributes we do not know are kept in `extensions` and written back unchanged, so that an older agent never loses
what a newer one says. Source: https://github.com/cloudevents/spec, version 1.0.2, and its partitioning, sequence,
distributed tracing and correlation extensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

import orjson

from state.model.clock import from_millis, to_millis
from state.model.errors import RejectedError
from state.model.ids import EstateHash, EventId
from state.model.visible import shown, visible

SPECVERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"

Attribute: TypeAlias = str | int | bool
"""What CloudEvents allows an attribute to be, in JSON: String, Integer (32 bits) or Boolean."""

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
    extensions: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def entity(self) -> str:
        """The contract without its version."""
        return self.contract.partition("/")[0]

    def attributes(self) -> dict[str, Attribute]:
        """All but the data, as CloudEvents attributes; `of_attributes` reads them back to an equal event."""
        attributes: dict[str, Attribute] = {
            **self.extensions,
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
        if self.causationid:
            attributes["causationid"] = self.causationid
        if self.traceparent:
            attributes["traceparent"] = self.traceparent
        if self.place:
            attributes["place"] = self.place
        if self.rawref:
            attributes["rawref"] = self.rawref
        return attributes

    def to_cloudevent(self) -> dict[str, Any]:
        """The structured JSON form; `data` is embedded as it stands."""
        return {**self.attributes(), "data": orjson.Fragment(self.data)}

    def to_json(self) -> bytes:
        """The structured form as JSON bytes."""
        return orjson.dumps(self.to_cloudevent())


_REQUIRED: Final = (
    *("specversion", "id", "source", "type", "subject", "time", "dataschema", "partitionkey", "sequence"),
    *("recordedtime", "correlationid", "site", "system", "flow", "op", "environment", "estate"),
)
_OPTIONAL: Final = ("datacontenttype", "causationid", "traceparent", "place", "rawref")
_KNOWN: Final = frozenset((*_REQUIRED, *_OPTIONAL))
_FIXED: Final = {"specversion": SPECVERSION, "datacontenttype": CONTENT_TYPE}
_HEXADECIMAL: Final = {"id": 32, "correlationid": 32, "causationid": 32, "estate": 32, "rawref": 64}
_DIGITS: Final = {digits: re.compile(f"[0-9a-f]{{{digits}}}") for digits in _HEXADECIMAL.values()}
_EXTENSION_NAME: Final = re.compile(r"(?!data$)[a-z0-9]{1,20}")  # CloudEvents keeps `data` for the data
_LARGEST_SEQUENCE: Final = 2**63 - 1
_SEQUENCE_DIGITS: Final = 19


def from_cloudevent(cloudevent: Mapping[str, Any]) -> Event:
    """The event of a structured CloudEvent. Raises `RejectedError` naming the attribute that is missing or wrong."""
    attributes = dict(cloudevent)
    try:
        data = orjson.dumps(attributes.pop("data", None))
    except orjson.JSONEncodeError:
        raise _wrong("data", cloudevent["data"], "must be JSON") from None
    return of_attributes(attributes, data)


def of_attributes(attributes: Mapping[str, Any], data: bytes) -> Event:
    """The event of its CloudEvents attributes and its data, which stays byte for byte.

    Raises `RejectedError` naming the attribute that is missing or wrong. What passes can be stored and read back: ids are
    hexadecimal, times exist in UTC, numbers fit, the data is JSON.
    """
    _require_texts(attributes)
    _require_hexadecimal(attributes)
    _require_json(data)
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes["subject"],
        time=_instant("time", attributes["time"]),
        contract=attributes["dataschema"],
        data=data,
        partitionkey=attributes["partitionkey"],
        sequence=_sequence(attributes["sequence"]),
        recordedtime=_instant("recordedtime", attributes["recordedtime"]),
        correlationid=attributes["correlationid"],
        causationid=attributes.get("causationid"),
        traceparent=attributes.get("traceparent", ""),
        site=attributes["site"],
        system=attributes["system"],
        flow=attributes["flow"],
        op=_choice("op", attributes["op"], Op),
        environment=_choice("environment", attributes["environment"], Environment),
        estate=attributes["estate"],
        place=attributes.get("place", ""),
        rawref=attributes.get("rawref", ""),
        extensions={} if attributes.keys() <= _KNOWN else _extensions(attributes),
    )


def _require_texts(attributes: Mapping[str, Any]) -> None:
    """All attributes that we know are texts, and none is empty."""
    for name in _REQUIRED:
        if not isinstance(value := attributes.get(name), str) or not value:
            raise _wrong(name, value, "must be a text that is not empty")
    for name in _OPTIONAL:
        if name in attributes and (not isinstance(value := attributes[name], str) or not value):
            raise _wrong(name, value, "must be a text that is not empty, or left out")
    for name, fixed in _FIXED.items():
        if attributes.get(name, fixed) != fixed:
            raise _wrong(name, attributes[name], f"must be {fixed}")


def _require_hexadecimal(attributes: Mapping[str, str]) -> None:
    for name, digits in _HEXADECIMAL.items():
        value = attributes.get(name)
        if value is not None and _DIGITS[digits].fullmatch(value) is None:
            raise _wrong(name, value, f"must be {digits} hexadecimal digits, in lower case")


def _require_json(data: bytes) -> None:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _wrong("data", data, "must be JSON") from None


def _instant(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _wrong(name, text, "must be an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise _wrong(name, text, "must carry its offset")
    if moment.year in (MINYEAR, MAXYEAR) and not _is_in_calendar(moment):
        raise _wrong(name, text, "must lie in the years 1 to 9999, in UTC too")
    return moment


def _is_in_calendar(moment: datetime) -> bool:
    """Whether the store can keep it and read it back: an offset, or rounding, may lead out of the years that there are."""
    try:
        from_millis(to_millis(moment))
    except (ValueError, OverflowError):
        return False
    return True


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _SEQUENCE_DIGITS and int(text) <= _LARGEST_SEQUENCE):
        raise _wrong("sequence", text, f"must be a whole number up to {_LARGEST_SEQUENCE}")
    return int(text)


def _choice(name: str, text: str, choices: type[_Choice]) -> _Choice:
    try:
        return choices(text)
    except ValueError:
        raise _wrong(name, text, f"must be one of {', '.join(choices)}") from None


def _extensions(attributes: Mapping[str, Any]) -> dict[str, Attribute]:
    extensions = {name: value for name, value in attributes.items() if name not in _KNOWN}
    for name, value in extensions.items():
        if _EXTENSION_NAME.fullmatch(name) is None:
            raise _wrong(
                visible(name)[:40], value, "must have a name of 1 to 20 lower-case letters and digits, and not `data`"
            )
        if not _is_attribute(value):
            raise _wrong(name, value, "must be a text, a whole number of 32 bits, true or false")
    return extensions


def _is_attribute(value: object) -> bool:
    """Whether CloudEvents has a type for it that JSON shows as itself: String, Boolean (to Python an int too) or Integer."""
    return isinstance(value, str) or (isinstance(value, int) and -(2**31) <= value < 2**31)


def _wrong(name: str, value: object, rule: str) -> RejectedError:
    return RejectedError(
        f"the event's attribute {name} {rule}",
        place=name,
        rule=rule,
        shown=shown(value),
        hint="correct the sender: it does not write CloudEvents 1.0 as distctl agrees with its peers",
        code="envelope",
    )
