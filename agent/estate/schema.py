"""JSON Schema of the estate's files, for editors: completion and red lines while somebody types.

A first line `# yaml-language-server: $schema=../flow.schema.json` names the schema of a file. The schemas are made of the
models that `load` validates with, and of the settings models of the connectors that are installed.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel

from connectors.registry import find, names
from state.model.estate import EstateSettings, FieldType, FlowSpec, SiteSpec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ISO_DURATION: Final = re.compile(r"-?P(?:\d+D)?(?:T[0-9.HMS]+)?")


def schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON Schema (draft 2020-12): `estate.schema.json`, `site.schema.json`, `flow.schema.json`."""
    return {
        "estate.schema.json": _without_machine_defaults(_schema(EstateSettings, "estate.yaml")),
        "site.schema.json": _without_machine_defaults(_of_site()),
        "flow.schema.json": _without_machine_defaults(_of_flow()),
    }


def _without_machine_defaults(node: Any) -> Any:
    """The same without defaults that pydantic writes as ISO 8601 durations: people write `5s`."""
    if isinstance(node, dict):
        return {
            name: _without_machine_defaults(one)
            for name, one in node.items()
            if not (name == "default" and isinstance(one, str) and _ISO_DURATION.fullmatch(one))
        }
    return [_without_machine_defaults(one) for one in node] if isinstance(node, list) else node


def _schema(kind: type[BaseModel], title: str) -> dict[str, Any]:
    made = kind.model_json_schema(mode="validation")
    return {"$schema": DIALECT, **made, "title": title}


def _of_site() -> dict[str, Any]:
    schema = _schema(SiteSpec, "sites/*.yaml")
    parts = schema["$defs"]
    parts["SystemSpec"]["properties"]["connector"]["enum"] = names()
    parts["SystemSpec"]["allOf"] = [
        {
            "if": {"properties": {"connector": {"const": name}}, "required": ["connector"]},
            "then": {"properties": {"settings": {"$ref": f"#/$defs/{_settings_name(name)}"}}},
        }
        for name in names()
    ]
    for name in names():
        parts[_settings_name(name)] = _shared_settings(name, parts)
    return schema


def _settings_name(connector: str) -> str:
    return f"settings_of_{connector}"


def _shared_settings(connector: str, parts: dict[str, Any]) -> dict[str, Any]:
    """What a system may say for both its ends: nothing is required here, since a flow adds the rest."""
    found = find(connector)
    properties: dict[str, Any] = {}
    for end, model in (("source", found.source_settings), ("sink", found.sink_settings)):
        if model is None:
            continue
        made = model.model_json_schema(mode="validation", ref_template=f"#/$defs/{connector}_{end}_{{model}}")
        parts.update({f"{connector}_{end}_{name}": part for name, part in made.get("$defs", {}).items()})
        for name, one in made.get("properties", {}).items():
            properties[name] = one if properties.get(name, one) == one else {"anyOf": [properties[name], one]}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _of_flow() -> dict[str, Any]:
    schema = _schema(FlowSpec, "flows/*.yaml")
    short = {"enum": [one.value for one in FieldType], "description": "short for {type: ...}"}
    fields = schema["$defs"]["SourceSpec"]["properties"]["fields"]
    fields["additionalProperties"] = {"anyOf": [short, fields["additionalProperties"]]}
    for name in ("fields", "lines"):
        schema["$defs"]["MappingSpec"]["properties"][name]["additionalProperties"] = {"$ref": "#/$defs/MappingNode"}
    schema["$defs"]["MappingNode"] = _mapping_node()
    return schema


def _mapping_node() -> dict[str, Any]:
    inner = {"$ref": "#/$defs/MappingNode"}
    return {
        "description": "an expression, a constant, a nested table, or a list of these",
        "anyOf": [
            {"type": ["string", "number", "boolean", "null"]},
            {"type": "object", "additionalProperties": inner},
            {"type": "array", "items": inner},
        ],
    }
