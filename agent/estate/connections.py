"""The settings of each source and sink: a system's and a flow's, merged, checked by the connector's own model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ValidationError

from agent.estate.findings import Finding, Severity
from agent.estate.validation import Complaint, complaints
from agent.estate.yaml_document import Path, YamlDocument
from connectors.registry import Connector, find
from state.model.errors import ConfigError
from state.model.estate import FieldSpec, SourceSpec, SystemSpec

End: TypeAlias = Literal["source", "sink"]

_SETTINGS: Final = "settings"


def merged_settings(system: SystemSpec, own: Mapping[str, Any]) -> dict[str, Any]:
    """The system's settings with those of the flow over them, key by key; a nested table is replaced as a whole."""
    return {**system.settings, **own}


def source_settings(system: SystemSpec, source: SourceSpec) -> dict[str, Any]:
    """The merged settings of a source, told which columns the header of its CSV must name."""
    return _naming_columns(merged_settings(system, source.settings), source.fields)


def _naming_columns(settings: dict[str, Any], fields: Mapping[str, FieldSpec]) -> dict[str, Any]:
    """With the flow's required fields as the header's, so that a file without one of them is refused once and not row by row."""
    form = settings.get("format")
    if not isinstance(form, dict) or form.get("kind") != "csv" or form.get("columns") or "required" in form:
        return settings
    return {**settings, "format": {**form, "required": [name for name, spec in fields.items() if spec.required]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One end of a lane as the files write it: where its own settings stand, and where the system's do."""

    end: End
    system: SystemSpec
    own: Mapping[str, Any]
    file: YamlDocument
    path: Path  # of the source or the target in `file`
    system_file: YamlDocument
    system_path: Path
    fields: Mapping[str, FieldSpec] = field(default_factory=dict)  # that a source declares

    def check(self) -> tuple[BaseModel | None, list[Finding]]:
        """The validated settings, and what is wrong with them, in whichever file it stands."""
        try:
            connector = find(self.system.connector)
        except ConfigError as error:
            return None, [self._about_connector(error.message, error.hint, error.code)]
        except ImportError as error:
            message = f"connector {self.system.connector} needs {error.name or 'a library'}, which is not installed"
            hint = f"install distctl[{self.system.connector}]"
            return None, [self._about_connector(message, hint, "not-installed")]
        model = connector.source_settings if self.end == "source" else connector.sink_settings
        if model is None:
            what = "read from" if self.end == "source" else "deliver to"
            message = f"connector {connector.name} cannot {what} a system"
            return None, [self.file.finding((*self.path, "system"), message, hint="use another system", code="no-end")]
        return self._validated(connector, model)

    def _validated(self, connector: Connector, model: type[BaseModel]) -> tuple[BaseModel | None, list[Finding]]:
        settings = _naming_columns(merged_settings(self.system, self.own), self.fields)
        try:
            checked = model.model_validate(settings)
        except ValidationError as error:
            return None, [self._located(one) for one in complaints(model, error, settings)]
        return checked, list(self._warnings(connector, checked)) if self.end == "sink" else []

    def _located(self, complaint: Complaint) -> Finding:
        name = complaint.path[0] if complaint.path else ""
        file, path = self.file, (*self.path, _SETTINGS, *complaint.path)
        if name not in self.own and name in self.system.settings:
            file, path = self.system_file, (*self.system_path, _SETTINGS, *complaint.path)
        elif not self.own and not self.file.has((*self.path, _SETTINGS)):
            path = (*self.path, "system")
        return file.finding(path, complaint.message, hint=complaint.hint, code=complaint.code, key=complaint.about_key)

    def _warnings(self, connector: Connector, settings: BaseModel) -> Iterator[Finding]:
        """What the configuration allows but the night will pay for."""
        can_probe, memory = connector.can_probe(settings), self.system.memory
        if not can_probe and not memory.key_lifetime:
            yield self._warning(
                "a delivery in doubt will wait for a person: the system can neither be asked nor remembers our keys",
                "set memory.key_lifetime if it knows idempotency keys, or settings.probe if it can be asked",
                "waits-for-a-person",
            )
        if can_probe and connector.name == "http" and not memory.lands_within:
            yield self._warning(
                "nothing says how late a call may still land, so a `not found` counts at once and is sent again",
                "set memory.lands_within to the longest that the system works on a call",
                "no-lands-within",
            )

    def _warning(self, message: str, hint: str, code: str) -> Finding:
        return self.system_file.finding(
            self.system_path, message, hint=hint, code=code, key=True, severity=Severity.WARNING
        )

    def _about_connector(self, message: str, hint: str, code: str) -> Finding:
        return self.system_file.finding((*self.system_path, "connector"), message, hint=hint, code=code)
