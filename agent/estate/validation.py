"""What pydantic found, in words for the person who wrote the file: path, message, cure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.estate.secrecy import is_literal_secret
from agent.estate.yaml_document import Path
from state.model.estate import NAME_PATTERN
from state.model.suggestion import suggestion
from state.model.visible import shown, visible

_ABSENT: Final = object()
_NAME_RULE: Final = "lower-case letters, digits and inner hyphens, at most 48"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One mistake, at a path of keys. `about_key` says that the key is wrong and not its value."""

    path: Path
    message: str
    hint: str
    code: str
    about_key: bool = False


def complaints(kind: type[BaseModel], error: ValidationError, written: Any) -> Iterator[Complaint]:
    """The mistakes in plain words, each with its path in what was `written`."""
    for one in error.errors(include_url=False):
        found = _complaint(kind, one)
        yield replace(found, path=_path_in(written, found.path))


def _path_in(written: Any, path: Path) -> Path:
    """The path without what only pydantic knows, such as the tag of a union; the last key may be one that is missing."""
    kept: list[str | int] = []
    for number, part in enumerate(path):
        found = _child(written, part)
        if found is not _ABSENT:
            written = found
            kept.append(part)
        elif number == len(path) - 1:
            kept.append(part)
    return tuple(kept)


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(str(part), _ABSENT)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return _ABSENT


def _complaint(kind: type[BaseModel], error: ErrorDetails) -> Complaint:
    path = tuple(error["loc"])
    if path and path[-1] == "[key]":
        name = str(path[-2])
        message = f"{shown(name)} cannot be a name here"
        return Complaint(
            path=path[:-1], message=message, hint=f"a name is {_NAME_RULE}", code="bad-name", about_key=True
        )
    context: Mapping[str, Any] = error.get("ctx", {})
    name = str(path[-1]) if path else "the file"
    match error["type"]:
        case "extra_forbidden":
            hint = suggestion(name, _keys(kind, path[:-1]), "possible here are")
            return Complaint(
                path=path, message=f"{shown(name)} is not known here", hint=hint, code="unknown-key", about_key=True
            )
        case "missing":
            return Complaint(
                path=path, message=f"{name} is missing", hint=f"add a line `{name}: ...`", code="missing-key"
            )
        case "enum" | "literal_error":
            known = _words(kind, path) or re.findall(r"'([^']*)'", str(context.get("expected", "")))
            hint = suggestion(str(error["input"]), known, "possible are")
            message = f"{name} cannot be {shown(error['input'])}"
            return Complaint(path=path, message=message, hint=hint, code="unknown-word")
        case "string_pattern_mismatch" if context.get("pattern") == NAME_PATTERN:
            message = f"{shown(error['input'])} cannot be a name"
            return Complaint(path=path, message=message, hint=f"a name is {_NAME_RULE}", code="bad-name")
        case "string_pattern_mismatch":
            message = f"{name} cannot be {_seen(name, error['input'])}"
            pattern = str(context.get("pattern", ""))
            hint = _description(kind, path) or f"it matches {pattern}"
            if pattern.startswith("^(/"):  # of a JSON Pointer
                hint = f"it begins with /: {hint}"
            return Complaint(path=path, message=message, hint=hint, code="bad-value")
        case "union_tag_not_found" | "union_tag_invalid":
            return _tagged(path, name, error, context)
        case _:
            return Complaint(path=path, message=_message(name, error), hint=_cure(error), code="bad-value")


def _tagged(path: Path, name: str, error: ErrorDetails, context: Mapping[str, Any]) -> Complaint:
    tag = str(context.get("discriminator", "kind")).strip("'")
    known = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
    if error["type"] == "union_tag_not_found":
        message, hint = f"{name} does not say its {tag}", f"add `{tag}: ...`, for example {tag}: csv"
        return Complaint(path=path, message=message, hint=hint, code="missing-key")
    asked = str(context.get("tag", ""))
    message = f"{tag} cannot be {shown(asked)}"
    return Complaint(
        path=(*path, tag), message=message, hint=suggestion(asked, known, "possible are"), code="unknown-word"
    )


def _message(name: str, error: ErrorDetails) -> str:
    text = visible(error["msg"].removeprefix("Value error, "))[:300]
    value = error["input"]
    is_shown = not isinstance(value, dict | list) and not error["type"].endswith("_type")
    words = f"{name}: {text[0].lower()}{text[1:]}"
    return f"{words}, not {_seen(name, value)}" if is_shown else words


def _seen(name: str, value: object) -> str:
    return "what stands there" if is_literal_secret(name, value) else shown(value)


def _cure(error: ErrorDetails) -> str:
    match error["type"]:
        case "string_type":
            return "quote it: a text is needed"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "indent `name: value` lines below it"
        case "list_type" | "tuple_type":
            return "write a list: lines that begin with `- `"
        case _:
            return ""


def _keys(kind: type[Any], path: Path) -> list[str]:
    """The keys that are possible at a path."""
    return list(dict.fromkeys(name for model in _models_at(kind, path) for name in model.model_fields))


def _words(kind: type[Any], path: Path) -> list[str]:
    """The words that are possible for the value at a path."""
    for model in _models_at(kind, path[:-1]):
        info = model.model_fields.get(str(path[-1])) if path else None
        if info is not None:
            return list(_choices(info.annotation))
    return []


def _description(kind: type[Any], path: Path) -> str:
    for model in _models_at(kind, path[:-1]):
        info = model.model_fields.get(str(path[-1])) if path else None
        if info is not None and info.description:
            return info.description
    return ""


def _choices(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(one.value) for one in annotation)
    elif get_origin(annotation) is Literal:
        yield from (str(one) for one in get_args(annotation))
    else:
        for inner in get_args(annotation):
            yield from _choices(inner)


def _models_at(kind: Any, path: Path) -> list[type[BaseModel]]:
    """The models that may stand at a path; a union offers each of its own, or the one whose tag is in the path."""
    kinds = list(_models_in(kind))
    for part in path:
        fields = [model.model_fields.get(str(part)) for model in kinds]
        inner = [one for info in fields if info is not None for one in _models_in(info.annotation)]
        tagged = [model for model in kinds if len(kinds) > 1 and _has_tag(model, part)]
        kinds = inner or tagged or kinds  # a list index or a key of a table leads to the same models
    return kinds


def _has_tag(model: type[BaseModel], part: str | int) -> bool:
    return any(
        get_origin(info.annotation) is Literal and get_args(info.annotation) == (part,)
        for info in model.model_fields.values()
    )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models_in(inner)
