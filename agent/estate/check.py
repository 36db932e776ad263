"""`check`: everything that can be known about an estate folder before the night.

References resolve, settings fit their connectors, expressions compile, mappings fill their contract, samples pass through
every step, and flows that meet at a target agree. Each complaint names file, line and column.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from agent.estate.compiled import CompiledFlow, compile_flow
from agent.estate.connections import Connection, End
from agent.estate.contract_fields import check_fields
from agent.estate.findings import Finding, Severity, in_order
from agent.estate.hub_check import check_hub
from agent.estate.load import Loaded, load
from agent.estate.people_check import check_people
from agent.estate.samples import Sample
from agent.estate.yaml_document import Path
from agent.mapping import Problem
from state.model.canonical.registry import ENTITIES
from state.model.delivery import OrderMode
from state.model.estate import Estate, FlowSpec
from state.model.event import Op
from state.model.money import currency_code
from state.model.suggestion import suggestion
from state.model.visible import shown


def check(folder: FilePath) -> list[Finding]:
    """All findings of the folder, sorted by place; without an error among them the estate can run."""
    return load_checked(folder).findings


def load_checked(folder: FilePath) -> Loaded:
    """What the folder holds, with all findings of `check`."""
    loaded = load(folder)
    findings = list(loaded.findings)
    estate = loaded.readable
    if estate is not None:
        findings += _settings_findings(loaded, estate)
        findings += check_people(loaded, estate)
        findings += check_hub(loaded, estate)
        checked = [_FlowCheck(folder, loaded, estate, flow) for flow in estate.flows.values()]
        for one in checked:
            findings += one.findings()
        findings += _order_between_flows(loaded, estate)
        findings += _same_files(checked, estate)
    return replace(loaded, findings=in_order(_without_echoes(findings)))


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """Without what a connector says of a value that is told to be a secret already."""
    secrets = {one.place for one in findings if one.code == "literal-secret"}
    return [one for one in findings if one.code != "bad-value" or one.place not in secrets]


def _settings_findings(loaded: Loaded, estate: Estate) -> Iterator[Finding]:
    if loaded.settings_file is not None:
        try:
            currency_code(estate.settings.currency)
        except ValueError as error:
            hint = getattr(error, "hint", "")
            message = f"{shown(estate.settings.currency)} is no currency of ISO 4217"
            yield loaded.settings_file.finding(("currency",), message, hint=hint, code="unknown-currency")
    for name, site in estate.sites.items():
        if not _is_zone(site.timezone):
            message = f"there is no time zone {shown(site.timezone)}"
            hint = "write an IANA name such as Europe/Berlin"
            yield loaded.site_files[name].finding(("timezone",), message, hint=hint, code="unknown-zone")


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


class _FlowCheck:
    """One flow against everything it names."""

    def __init__(self, folder: FilePath, loaded: Loaded, estate: Estate, spec: FlowSpec) -> None:
        self._folder = folder
        self._loaded = loaded
        self._estate = estate
        self.spec = spec
        self.file = loaded.flow_files[spec.flow]
        self.source_settings: BaseModel | None = None

    def findings(self) -> list[Finding]:
        """Everything that concerns this flow alone."""
        problems: list[Problem] = []
        flow = compile_flow(self._estate, self.spec, problems)
        found = [self.file.finding_inside(problem.path[1:], problem.error) for problem in self._known(problems)]
        found += self._contract_findings()
        found += self._connection_findings()
        found += self._order_findings()
        found += self._target_findings()
        if flow is not None and not found and self.source_settings is not None:
            found += self._sample_findings(flow, self.source_settings)
        return found

    def _known(self, problems: Iterable[Problem]) -> list[Problem]:
        """Without complaints about systems of a site whose own file could not be read."""
        if len(self._loaded.site_files) == len(self._estate.sites):
            return list(problems)
        return [problem for problem in problems if problem.error.code != "unknown-system"]

    def _contract_findings(self) -> Iterator[Finding]:
        kind = ENTITIES.get(self.spec.contract)
        if kind is None:
            return
        for problem in check_fields(self.spec.mapping, kind):
            path = ("mapping", *problem.path)
            is_about_key = problem.error.code == "unknown-field" or path == ("mapping", "fields")
            yield self.file.finding(
                path, problem.error.message, hint=problem.error.hint, code=problem.error.code, key=is_about_key
            )

    def _connection_findings(self) -> list[Finding]:
        found: list[Finding] = []
        connection = self._connection("source", self.spec.source.system, self.spec.source.settings, ("source",))
        if connection is not None:
            self.source_settings, complaints = connection.check()
            found += complaints
        for number, target in enumerate(self.spec.targets):
            sink = self._connection("sink", target.system, target.settings, ("targets", number))
            if sink is not None:
                found += sink.check()[1]
        return found

    def _connection(self, end: End, reference: str, own: dict[str, object], path: Path) -> Connection | None:
        resolved = self._estate.resolve(reference)
        if resolved is None:
            return None
        site, system = resolved
        return Connection(
            end=end,
            system=self._estate.system(site, system),
            own=own,
            file=self.file,
            path=path,
            system_file=self._loaded.site_files[site],
            system_path=("systems", system),
            fields=self.spec.source.fields if end == "source" else {},
        )

    def _order_findings(self) -> Iterator[Finding]:
        if self.spec.order.mode is OrderMode.LATEST and self.spec.op is not Op.SNAPSHOT:
            message = f"order latest lets newer snapshots replace older ones, and a {self.spec.op} replaces nothing"
            hint = "set order.mode to strict, or op to snapshot if each record is the whole document"
            yield self.file.finding(("order", "mode"), message, hint=hint, code="latest-needs-snapshots")

    def _target_findings(self) -> Iterator[Finding]:
        names = [self._full_name(target.system) for target in self.spec.targets]
        for number, target in enumerate(self.spec.targets):
            path: Path = ("targets", number)
            if names[number] in names[:number]:
                message = f"{target.system} is a target of this flow twice"
                hint = "one target takes an event once; use `when` or a second flow"
                yield self.file.finding((*path, "system"), message, hint=hint, code="duplicate-target")
            if target.shadow_of is not None:
                yield from self._shadow_findings(number, target.shadow_of, names)

    def _shadow_findings(self, number: int, shadow_of: str, names: list[str]) -> Iterator[Finding]:
        path: Path = ("targets", number, "shadow_of")
        others = [one.system for index, one in enumerate(self.spec.targets) if index != number]
        compared = self._full_name(shadow_of)
        if compared not in [name for index, name in enumerate(names) if index != number]:
            message = f"{shown(shadow_of)} is no other target of this flow"
            yield self.file.finding(path, message, hint=suggestion(shadow_of, others), code="unknown-shadow")
        elif self.spec.targets[names.index(compared)].shadow_of is not None:
            hint = "compare it with a target that counts"
            yield self.file.finding(path, f"{shadow_of} is a shadow itself", hint=hint, code="shadow-of-shadow")

    def _full_name(self, reference: str) -> str:
        resolved = self._estate.resolve(reference)
        return "/".join(resolved) if resolved else reference

    def _sample_findings(self, flow: CompiledFlow, settings: BaseModel) -> list[Finding]:
        if self.spec.source.sample is None:
            message = "the flow has no sample, so its mapping is not tried"
            hint = "record a few real records and name the file: source.sample"
            return [
                self.file.finding(
                    ("source",), message, hint=hint, code="no-sample", key=True, severity=Severity.WARNING
                )
            ]
        sample = Sample(folder=self._folder, flow=flow, file=self.file, settings=settings)
        return sample.check()


def _order_between_flows(loaded: Loaded, estate: Estate) -> Iterator[Finding]:
    """Flows that write one entity at one target must agree, or nothing keeps their events in order."""
    writers: dict[tuple[str, str], list[FlowSpec]] = defaultdict(list)
    for flow, _, target in estate.lanes():
        if flow not in writers[flow.contract.partition("/")[0], target]:
            writers[flow.contract.partition("/")[0], target].append(flow)
    for (entity, target), flows in writers.items():
        first = flows[0]
        for flow in flows[1:]:
            both = f"{first.flow} and {flow.flow} both write {entity} to {target}"
            file = loaded.flow_files[flow.flow]
            if flow.order_domain != first.order_domain:
                hint = f"set order.domain to {first.order_domain} in both, or let one flow do it"
                yield file.finding(("order",), f"{both} in different order domains", hint=hint, code="order-domain")
            if flow.order.mode is not first.order.mode:
                hint = f"set order.mode to {first.order.mode} here, or change {first.flow}"
                message = f"{both} in {first.order.mode} and {flow.order.mode} order"
                yield file.finding(("order",), message, hint=hint, code="order-mode")
            if flow.tier != first.tier:
                hint = f"set tier to {first.tier} here, or change {first.flow}"
                message = f"{both} in tiers {first.tier} and {flow.tier}"
                yield file.finding(("tier",), message, hint=hint, code="order-tier")


def _same_files(checked: list[_FlowCheck], estate: Estate) -> Iterator[Finding]:
    """Two flows that take the same files would each see some of them."""
    taken: dict[tuple[object, ...], _FlowCheck] = {}
    for one in checked:
        folder = getattr(one.source_settings, "folder", None)
        pattern = getattr(one.source_settings, "pattern", None)
        if folder is None or pattern is None:
            continue
        resolved = estate.resolve(one.spec.source.system)
        first = taken.setdefault((resolved and resolved[0], folder, pattern), one)
        if first is not one:
            message = f"{first.spec.flow} takes the same files: {pattern} in {folder}"
            path: Path = (
                ("source", "settings", "pattern") if one.file.has(("source", "settings", "pattern")) else ("source",)
            )
            yield one.file.finding(path, message, hint="a file is taken once: use two patterns", code="same-files")
