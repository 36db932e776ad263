"""An estate made ready to run: readers, mappings, conditions and partition keys of every flow and lane.

Compiling is pure in the estate: it opens no folder, no sample and no connector, since an estate is kept by its hash and
compiled again from the store when the agent starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from agent.expressions import Compiled, Expressions, Read
from agent.mapping import CompiledMapping, Document, Problem, Refused, compile_mapping, documents, render
from agent.record_reader import RecordReader
from agent.shapes import ANYTHING, EVENT, Shape, of_entity, of_fields
from connectors.base import SourceRecord, UnreadableRecord
from state.model.canonical.entity import Entity
from state.model.canonical.registry import entity_type
from state.model.canonical.writing import to_json_bytes
from state.model.errors import ConfigError, RejectedError
from state.model.estate import Estate, FieldType, FlowSpec, TargetSpec
from state.model.event import Environment, Event, event_type
from state.model.ids import EstateHash, EventId
from state.model.suggestion import suggestion
from state.model.visible import shown

PARTITION_KEY_LIMIT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledLane:
    """One leg of a flow. `name` is `site/system` of the target."""

    flow: str
    target: TargetSpec
    name: str
    condition: Read | None
    mapping: CompiledMapping | None

    @property
    def site(self) -> str:
        """The site of the target, whose agent works the lane."""
        return self.name.partition("/")[0]

    def wants(self, event: Event) -> bool:
        """Whether the event makes a delivery here. Raises `RejectedError` where the condition cannot be told."""
        if self.condition is None:
            return True
        answer = self.condition(_scope(event))
        if isinstance(answer, bool):
            return answer
        rule = "a condition is true or false"
        message = f"`when` of {self.flow} to {self.name} gives {shown(answer)}"
        raise RejectedError(message, place="when", rule=rule, shown=shown(answer), hint="compare it", code="condition")

    def render(self, event: Event) -> bytes:
        """The target's own record as JSON; without a mapping the canonical JSON as it stands. Raises `RejectedError`."""
        return event.data if self.mapping is None else render(self.mapping.apply(_scope(event)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFlow:
    """A flow ready to run. `source` is `site/system`; `estate` and its environment are what its events are routed by."""

    spec: FlowSpec
    estate: EstateHash
    environment: Environment
    source: str
    reader: RecordReader
    mapping: CompiledMapping
    key: Read | None
    lanes: tuple[CompiledLane, ...]

    @property
    def is_grouped(self) -> bool:
        """Whether rows become documents with lines, so that a whole file is needed at once."""
        return bool(self.mapping.group_by)

    def documents(self, rows: Iterable[SourceRecord | UnreadableRecord]) -> Iterator[Document | Refused]:
        """The canonical documents of the rows, in their order; where the flow `is_grouped`, of all rows of a file."""
        return documents(rows, self.reader, self.mapping)

    def event(
        self,
        entity: Entity,
        *,
        identity: EventId,
        time: datetime,
        recorded: datetime,
        sequence: int = 0,
        place: str = "",
        rawref: str = "",
    ) -> Event:
        """The event that tells of `entity`, which this flow read. The first of its chain.

        Raises `RejectedError` for a partition key that is empty or longer than `PARTITION_KEY_LIMIT` characters.
        """
        spec, data, key = self.spec, to_json_bytes(entity), entity.business_key
        site, _, system = self.source.partition("/")
        return Event(
            id=identity,
            source=f"/{self.source}",
            type=event_type(spec.contract, spec.op),
            subject=key,
            time=time,
            contract=spec.contract,
            data=data,
            partitionkey=key if self.key is None else self._partition_key(self.key, data),
            sequence=sequence,
            recordedtime=recorded,
            correlationid=identity,
            site=site,
            system=system,
            flow=spec.flow,
            op=spec.op,
            environment=self.environment,
            estate=self.estate,
            place=place,
            rawref=rawref,
        )

    def _partition_key(self, read: Read, data: bytes) -> str:
        """The key in which order is kept, over the canonical record as JSON shows it."""
        key = read({"record": orjson.loads(data)})
        if isinstance(key, int) and not isinstance(key, bool):
            return str(key)
        if isinstance(key, str) and 0 < len(key) <= PARTITION_KEY_LIMIT:
            return key
        rule = f"a partition key is a text of 1 to {PARTITION_KEY_LIMIT} characters"
        message = f"order.key of {self.spec.flow} gives {shown(key)}: {rule}"
        raise RejectedError(
            message, place="order.key", rule=rule, shown=shown(key), hint="give it a default", code="partition-key"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledEstate:
    """An estate ready to run."""

    estate: Estate
    flows: Mapping[str, CompiledFlow]

    def lanes(self) -> Iterator[CompiledLane]:
        """Every lane of every flow."""
        for flow in self.flows.values():
            yield from flow.lanes


def compile_estate(estate: Estate) -> CompiledEstate:
    """The estate ready to run. Raises `ConfigError` for the first mistake, telling how many more there are."""
    problems: list[Problem] = []
    flows = {
        name: flow for name, spec in estate.flows.items() if (flow := compile_flow(estate, spec, problems)) is not None
    }
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        place = ".".join(map(str, first.path))
        raise ConfigError(
            f"flow {place}: {first.error.message}{more}",
            hint=first.error.hint or "run distctl check",
            code=first.error.code,
        )
    return CompiledEstate(estate=estate, flows=flows)


def compile_flow(estate: Estate, spec: FlowSpec, problems: list[Problem]) -> CompiledFlow | None:
    """One flow; what is wrong in it is added to `problems`, with paths that begin with its name."""
    found: list[Problem] = []
    source = _resolved(estate, spec.source.system, ("source", "system"), found)
    entity = _entity_shape(spec.contract, found)
    reader = _reader(spec, found)
    lanes = tuple(_lane(estate, spec, number, entity, found) for number in range(len(spec.targets)))
    mapping: list[Problem] = []
    compiled = compile_mapping(spec.mapping, {"record": of_fields(spec.source.fields)}, mapping)
    found += [problem.below("mapping") for problem in mapping]
    key = _expression(spec.order.key, {"record": entity}, ("order", "key"), found)
    problems += [problem.below(spec.flow) for problem in found]
    if found or reader is None:
        return None
    return CompiledFlow(
        spec=spec,
        estate=estate.hash,
        environment=estate.settings.environment,
        source=source,
        reader=reader,
        mapping=compiled,
        key=key.evaluate if key else None,
        lanes=lanes,
    )


def _lane(estate: Estate, spec: FlowSpec, number: int, entity: Shape, found: list[Problem]) -> CompiledLane:
    target = spec.targets[number]
    path = ("targets", number)
    roots = {"record": entity, "event": EVENT}
    name = _resolved(estate, target.system, (*path, "system"), found)
    condition = _expression(target.when, roots, (*path, "when"), found)
    if condition and condition.shape is not None and condition.shape.type is not FieldType.BOOLEAN:
        error = ConfigError(
            f"a condition is true or false, not {condition.shape.type}",
            line=1,
            column=1,
            hint="compare it: record.status == 'open'",
            code="condition",
        )
        found.append(Problem(path=(*path, "when"), error=error))
    inside: list[Problem] = []
    mapping = compile_mapping(target.mapping, roots, inside) if target.mapping is not None else None
    found += [problem.below(*path, "mapping") for problem in inside]
    if target.mapping is not None and target.mapping.group_by:
        error = ConfigError("a target's mapping does not group", hint="leave group_by out", code="group-by")
        found.append(Problem(path=(*path, "mapping", "group_by"), error=error))
    read = condition.evaluate if condition else None
    return CompiledLane(flow=spec.flow, target=target, name=name, condition=read, mapping=mapping)


def _resolved(estate: Estate, reference: str, path: tuple[str | int, ...], found: list[Problem]) -> str:
    resolved = estate.resolve(reference)
    if resolved is None:
        found.append(Problem(path=path, error=_unresolved(estate, reference)))
        return reference
    return "/".join(resolved)


def _unresolved(estate: Estate, reference: str) -> ConfigError:
    sites = [site.site for site in estate.sites.values() if reference in site.systems]
    if len(sites) > 1:
        hint = f"write {sites[0]}/{reference}"
        return ConfigError(f"system {shown(reference)} is at {len(sites)} sites", hint=hint, code="ambiguous-system")
    known = [name for site in estate.sites.values() for one in site.systems for name in (one, f"{site.site}/{one}")]
    return ConfigError(
        f"there is no system {shown(reference)}", hint=suggestion(reference, known), code="unknown-system"
    )


def _entity_shape(contract: str, found: list[Problem]) -> Shape:
    try:
        return of_entity(entity_type(contract))
    except ConfigError as error:
        found.append(Problem(path=("contract",), error=error))
        return ANYTHING


def _reader(spec: FlowSpec, found: list[Problem]) -> RecordReader | None:
    for name, one in spec.source.fields.items():
        try:
            RecordReader({name: one})
        except ConfigError as error:
            found.append(Problem(path=("source", "fields", name, "pattern"), error=error))
    return RecordReader(spec.source.fields) if not any(one.path[:2] == ("source", "fields") for one in found) else None


def _expression(
    source: str | None, roots: Mapping[str, Shape], path: tuple[str | int, ...], found: list[Problem]
) -> Compiled | None:
    if source is None:
        return None
    try:
        return Expressions(roots).compile(source, place=".".join(map(str, path)))
    except ConfigError as error:
        found.append(Problem(path=path, error=error))
        return None


def _scope(event: Event) -> dict[str, Any]:
    return {
        "record": orjson.loads(event.data),
        "event": {
            "id": event.id,
            "subject": event.subject,
            "op": event.op.value,
            "flow": event.flow,
            "site": event.site,
            "system": event.system,
            "correlationid": event.correlationid,
            "partitionkey": event.partitionkey,
            "time": event.time.isoformat(),
            "sequence": event.sequence,
        },
    }
