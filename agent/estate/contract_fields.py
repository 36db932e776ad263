"""A mapping held against its contract: every field it fills is one of the entity, every required one is filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from agent.mapping import Problem
from state.model.canonical.entity import Entity
from state.model.errors import ConfigError
from state.model.estate import MappingSpec
from state.model.suggestion import suggestion
from state.model.visible import shown


def check_fields(spec: MappingSpec, kind: type[Entity]) -> Iterator[Problem]:
    """The problems of a mapping to `kind`, with paths from `spec`; line and column are those of the key."""
    filled = {**spec.fields, **({spec.lines_field: [spec.lines]} if spec.lines else {})}
    for problem in _table(filled, kind, (), kind.contract()):
        in_lines = spec.lines and problem.path[:1] == (spec.lines_field,)
        if in_lines and spec.lines_field not in spec.fields:
            yield Problem(path=("lines", *problem.path[2:]), error=problem.error)
        else:
            yield problem.below("fields")


def _table(entries: Mapping[str, Any], kind: Any, path: tuple[str | int, ...], owner: str) -> Iterator[Problem]:
    known = _fields(kind)
    for name, node in entries.items():
        if name not in known:
            message = f"{owner} has no field {shown(name)}"
            hint = suggestion(name, [one for one in known if one != "ext"], "it has")
            yield Problem(path=(*path, name), error=ConfigError(message, hint=hint, code="unknown-field"))
            continue
        inner = _inner_kind(known[name][0])
        if inner is not None:
            yield from _node(node, inner, (*path, name), f"{owner} {name}")
    missing = [name for name, (_, is_required) in known.items() if is_required and name not in entries]
    if missing:
        names = ", ".join(missing)
        message = f"{owner} needs {names}, which the mapping does not fill"
        error = ConfigError(message, hint=f"add a line `{missing[0]}: record...`", code="unmapped-field")
        yield Problem(path=path, error=error)


def _node(node: Any, kind: Any, path: tuple[str | int, ...], owner: str) -> Iterator[Problem]:
    """A table is looked into; an expression may make the whole object, so it is left to the sample."""
    if isinstance(node, dict):
        yield from _table(node, kind, path, owner)
    elif isinstance(node, list):
        for number, one in enumerate(node):
            yield from _node(one, kind, (*path, number), owner)


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Name to annotation and whether it must be filled."""
    if issubclass(kind, BaseModel):
        return {name: (info.annotation, info.is_required()) for name, info in kind.model_fields.items()}
    hints = get_type_hints(kind)
    return {one.name: (hints[one.name], one.default is MISSING) for one in fields(kind)}


def _inner_kind(annotation: Any) -> Any | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) or is_dataclass(annotation) else None
    return next((found for one in get_args(annotation) if (found := _inner_kind(one)) is not None), None)
