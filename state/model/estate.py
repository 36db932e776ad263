"""The estate: everything one company connects, as the models behind its folder of YAML files.

These models are the reference: their JSON Schema ships for editors, unknown keys are errors. Reading the folder, and naming
file, line and column of a complaint, is `agent.estate`. An `Estate` is immutable and known by its hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Final, Self

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from state.model.delivery import OrderMode, TargetMemory
from state.model.event import Environment, Op
from state.model.ids import EstateHash, digest
from state.model.people import Action, Grant, People, Person, Role
from state.model.retry import RetryPolicy

NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"
_DURATION: Final = re.compile(r"^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$", re.ASCII)
_SHORTEST_RETENTION: Final = timedelta(days=7)
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """A duration as people write it: `500ms`, `30s`, `5m`, `24h`, `7d`. A bare number has no unit and is refused."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    raise ValueError("a duration is a number with its unit: 500ms, 30s, 5m, 24h or 7d")


def write_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back."""
    millis = round(value.total_seconds() * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if millis and millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms"


Name = Annotated[str, Field(pattern=NAME_PATTERN, description="lower-case letters, digits and inner hyphens")]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(write_duration, return_type=str),
]
Expression = Annotated[str, Field(min_length=1, max_length=4000, description="a path, or a CEL expression")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldType(StrEnum):
    """What a source field holds, before it is mapped."""

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"  # a plain date, ISO 8601
    INSTANT = "instant"  # a time with its offset, ISO 8601
    OBJECT = "object"
    LIST = "list"


class FieldSpec(_Part):
    """One declared field of a source. In a flow, `qty: decimal` is short for `qty: {type: decimal}`."""

    type: FieldType
    required: bool = Field(True, description="an absent or empty value is a bad record")
    pattern: str | None = Field(None, max_length=200, description="a regular expression that the whole text matches")
    decimal_mark: str = Field(".", pattern=r"^[.,]$", description="how decimals are written")
    grouping: str = Field("", pattern=r"^[., ']?$", description="the thousands separator, if any")
    date_format: str | None = Field(None, max_length=40, description="strptime format where it is not ISO 8601")

    @model_validator(mode="before")
    @classmethod
    def _type_alone(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("grouping")
    @classmethod
    def _marks_differ(cls, grouping: str, info: ValidationInfo) -> str:
        if grouping and grouping == info.data.get("decimal_mark"):
            raise ValueError("must differ from decimal_mark")
        return grouping

    @field_validator("date_format")
    @classmethod
    def _format_reads_dates(cls, form: str | None, info: ValidationInfo) -> str | None:
        if form is None:
            return None
        is_instant = info.data.get("type") is FieldType.INSTANT
        if not all(_comes_back(one, form, is_instant=is_instant) for one in _TRIED_DATES):
            whole, such_as = ("time with its offset", "%d.%m.%Y %H:%M %z") if is_instant else ("date", "%d.%m.%Y")
            raise ValueError(f"must be strptime codes of a whole {whole}, such as {such_as}")
        return form


_TRIED_DATES: Final = (datetime(2026, 3, 14, 15, tzinfo=UTC), datetime(1999, 12, 1, 5, tzinfo=UTC))


def _comes_back(moment: datetime, form: str, *, is_instant: bool) -> bool:
    """Whether what `form` writes of a moment is read back by it as the same."""
    try:
        read = datetime.strptime(moment.strftime(form), form)  # noqa: DTZ007  a plain date has no zone
    except (ValueError, re.error):  # re.error: a code stands twice
        return False
    return read == moment if is_instant else read.date() == moment.date()


class MappingSpec(_Part):
    """A table `field: expression` over `record`. Nested tables make nested documents."""

    group_by: list[Expression] = Field(
        default_factory=list, max_length=8, description="flat rows that agree in these become one document with lines"
    )
    fields: dict[str, Any] = Field(description="field: expression, or a nested table")
    lines: dict[str, Any] = Field(
        default_factory=dict,
        description="the table of one line: over the rows of a group, or over `line` of lines_from",
    )
    lines_from: Expression | None = Field(
        None, description="without group_by: the list whose items are `line`; default record.lines"
    )
    lines_field: str = Field("lines", description="the document's field that takes the lines")


class SourceSpec(_Part):
    """Where a flow's records come from."""

    system: str = Field(description="system, or site/system where the name is not unique")
    settings: dict[str, Any] = Field(default_factory=dict, description="over the system's own settings")
    fields: dict[str, FieldSpec] = Field(
        min_length=1, description="what a record has; anything else is an error of check"
    )
    sample: str | None = Field(None, description="a recorded file, in the estate folder, that check maps")
    every: Duration = Field(timedelta(seconds=5), description="how often it is read when nothing announces a change")


class OrderSpec(_Part):
    """How events of a flow stand to each other."""

    mode: OrderMode = OrderMode.STRICT
    domain: Name | None = Field(
        None, description="flows that write one entity at one target share it; default the flow"
    )
    key: Expression | None = Field(None, description="partition key over the mapped document; default its business key")


class RetrySpec(_Part):
    """How a delivery is tried again."""

    first: Duration = timedelta(seconds=1)
    longest: Duration = timedelta(minutes=5)
    attempts: Annotated[int, Field(ge=1, le=100)] = 8

    def policy(self) -> RetryPolicy:
        """The pure policy of these settings."""
        return RetryPolicy(first=self.first, longest=self.longest, attempts=self.attempts)


class TargetSpec(_Part):
    """One system that a flow delivers to; (flow, target) is a lane."""

    system: str
    settings: dict[str, Any] = Field(default_factory=dict, description="over the system's own settings")
    mapping: MappingSpec | None = Field(
        None, description="canonical to the system's own record; default the canonical JSON"
    )
    when: Expression | None = Field(None, description="a condition over `record` and `event`; false makes no delivery")
    shadow_of: str | None = Field(None, description="delivered beside that target and compared, never counted")
    retry: RetrySpec = RetrySpec()


class FlowSpec(_Part):
    """A governed path: source, contract, mapping, targets, owner, tier."""

    flow: Name
    owner: str = Field(min_length=1, max_length=200, description="who is asked about it")
    tier: Annotated[int, Field(ge=1, le=3)] = 2
    source: SourceSpec
    contract: str = Field(pattern=r"^[a-z][a-z-]*/[1-9][0-9]*$", description="canonical entity and version")
    op: Op = Op.SNAPSHOT
    mapping: MappingSpec
    order: OrderSpec = OrderSpec()
    targets: list[TargetSpec] = Field(min_length=1)

    @property
    def order_domain(self) -> str:
        """The order domain: the flow itself unless it shares one."""
        return self.order.domain or self.flow


class MemorySpec(_Part):
    """What a system remembers of our calls; the connector says what it can be asked."""

    key_lifetime: Duration = Field(timedelta(0), description="how long it remembers an idempotency key; 0s: not at all")
    lands_within: Duration = Field(timedelta(0), description="how late a call may still land after it ended for us")

    def memory(self, *, can_probe: bool) -> TargetMemory:
        """The pure form, with what the connector can do."""
        return TargetMemory(key_lifetime=self.key_lifetime, lands_within=self.lands_within, can_probe=can_probe)


class LimitSpec(_Part):
    """How hard a system is worked."""

    in_flight: Annotated[int, Field(ge=1, le=64)] = Field(2, description="calls at once")
    batch: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="deliveries a call, where the sink takes batches"
    )
    deadline: Duration = Field(timedelta(seconds=30), description="total for one call, from connect to last byte")


class SystemSpec(_Part):
    """An application at a site and how it is reached."""

    connector: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    settings: dict[str, Any] = Field(default_factory=dict)
    memory: MemorySpec = MemorySpec()
    limits: LimitSpec = LimitSpec()


class SiteSpec(_Part):
    """A place with systems and one agent."""

    site: Name
    timezone: str = Field("UTC", description="IANA name")
    systems: dict[Name, SystemSpec] = Field(default_factory=dict, description="none at a hub that only passes on")
    forbids: list[Action] = Field(
        default_factory=list, description="what nobody may do through this site's agent, whatever their roles"
    )


class HubSpec(_Part):
    """The agent that the others dial."""

    site: Name = Field(description="the site at which it runs")
    url: str = Field(
        pattern=r"^https://[^/?#@]+$", max_length=300, description="how the others reach it: https://host:port"
    )
    listen: str = Field("0.0.0.0:7443", pattern=r"^.+:[0-9]{1,5}$", description="the address and port it listens on")
    second: Name | None = Field(
        None, description="the site that keeps a copy of what the hub alone knows, to rebuild it from"
    )


class GrantSpec(_Part):
    """A role, at some sites or at all."""

    role: Role
    sites: list[Name] | None = Field(None, min_length=1, description="where it holds; left out: at every site")

    def grant(self) -> Grant:
        """The pure grant of these settings."""
        return Grant(role=self.role, sites=None if self.sites is None else frozenset(self.sites))


class PersonSpec(_Part):
    """Somebody who may do something: one person, whichever account or token they come with."""

    name: str = Field(min_length=1, max_length=200, description="what people call them")
    uids: dict[Name, Annotated[int, Field(ge=1, lt=2**32 - 1, strict=True)]] = Field(
        default_factory=dict, description="their account's number at each site, as `id -u` says it; root is nobody's"
    )
    roles: list[GrantSpec] = Field(min_length=1, description="what they are, and where")

    def person(self, identifier: str) -> Person:
        """The pure person of these settings."""
        grants = tuple(spec.grant() for spec in self.roles)
        return Person(id=identifier, name=self.name, grants=grants, uids=self.uids)


class RetentionSpec(_Part):
    """How long what is settled stays."""

    settled: Duration = Field(
        timedelta(days=30),
        description="what had been settled for so long when the last verified backup was made, and is in it, goes; 7d at least",
    )

    @field_validator("settled")
    @classmethod
    def _is_long_enough(cls, settled: timedelta) -> timedelta:
        if settled < _SHORTEST_RETENTION:
            raise ValueError("must be 7d at least: a backup and whoever was away need that long to be put back")
        return settled


class EstateSettings(_Part):
    """`estate.yaml`: what holds for the whole company."""

    name: Name
    environment: Environment
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217, for totals")
    tier_weights: dict[Annotated[int, Field(ge=1, le=3)], Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=lambda: {1: 8, 2: 3, 3: 1}, description="shares of the relay; none starves"
    )
    hub: HubSpec | None = Field(None, description="an estate of more than one agent has one")
    retention: RetentionSpec = RetentionSpec()
    people: dict[Name, PersonSpec] = Field(
        default_factory=dict, description="who may do what; with nobody here, whoever may open the agent's socket"
    )

    @cached_property
    def directory(self) -> People:
        """The people, by account and by name."""
        return People([spec.person(identifier) for identifier, spec in self.people.items()])


def hash_of(document: bytes) -> EstateHash:
    """The hash of an estate in its canonical JSON, which may be of a version that this one cannot read."""
    return EstateHash(digest(document, size=16).hex())


_TABLES: Final = ("fields", "lines")
_ORDERED: Final = "="
"""No field has this name."""


def _mappings(document: Any) -> Iterator[dict[str, Any]]:
    """The mappings of an estate that was dumped."""
    for flow in document["flows"].values():
        for part in (flow, *flow["targets"]):
            if part.get("mapping"):
                yield part["mapping"]


def _in_order(value: Any) -> Any:
    """A table of a mapping as a list of pairs, which sorting leaves alone; lists may hold tables."""
    if isinstance(value, list):
        return [_in_order(inner) for inner in value]
    return {_ORDERED: [[name, _in_order(inner)] for name, inner in value.items()]} if isinstance(value, dict) else value


def _as_written(value: Any) -> Any:
    """What `_in_order` was made of."""
    if isinstance(value, list):
        return [_as_written(inner) for inner in value]
    return {name: _as_written(inner) for name, inner in value[_ORDERED]} if isinstance(value, dict) else value


class Estate(_Part):
    """The whole estate, validated and immutable."""

    settings: EstateSettings
    sites: dict[str, SiteSpec]
    flows: dict[str, FlowSpec]

    @cached_property
    def hash(self) -> EstateHash:
        """32 hexadecimal digits over the canonical JSON: equal hashes route alike."""
        return hash_of(self.to_json())

    def to_json(self) -> bytes:
        """Canonical JSON, keys sorted; `from_json` reads it back to an equal estate.

        Defaults are left out, so that a version that knows more settings comes to the same hash. The tables of a mapping are
        lists of pairs: documents have their fields in that order.
        """
        return self._written

    @cached_property
    def _written(self) -> bytes:
        document = self.model_dump(mode="json", exclude_defaults=True)
        for mapping in _mappings(document):
            mapping.update({name: _in_order(mapping[name]) for name in _TABLES if name in mapping})
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """The estate that `to_json` wrote."""
        try:
            document = orjson.loads(raw)
            for mapping in _mappings(document):
                mapping.update({name: _as_written(mapping[name]) for name in _TABLES if name in mapping})
        except (LookupError, TypeError, ValueError, AttributeError):  # no estate: the model says what is wrong with it
            return cls.model_validate_json(raw)
        return cls.model_validate_json(orjson.dumps(document))

    def resolve(self, reference: str) -> tuple[str, str] | None:
        """(site, system) of a reference `system` or `site/system`; None where it is unknown or not unique."""
        matches = [
            (site.site, system)
            for site in self.sites.values()
            for system in site.systems
            if reference in (system, f"{site.site}/{system}")
        ]
        return matches[0] if len(matches) == 1 else None

    def system(self, site: str, system: str) -> SystemSpec:
        """The system's specification. KeyError where there is none."""
        return self.sites[site].systems[system]

    def lanes(self) -> Iterator[tuple[FlowSpec, TargetSpec, str]]:
        """Every (flow, target, full target name site/system)."""
        for flow in self.flows.values():
            for target in flow.targets:
                resolved = self.resolve(target.system)
                if resolved is not None:
                    yield flow, target, "/".join(resolved)
