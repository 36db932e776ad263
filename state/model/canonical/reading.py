"""From a record or canonical JSON to an entity; what breaks a rule becomes one `RejectedError` that names them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from state.model.canonical.entity import Entity, values_at
from state.model.canonical.registry import entity_type
from state.model.errors import BrokenRuleError, RejectedError
from state.model.scalars import broken, code_text
from state.model.visible import visible

MAXIMUM_BYTES: Final = 16 * 1024 * 1024
_LISTED: Final = 5
_MADE_BY: Final = {
    **dict.fromkeys(("Money", "UnitPrice"), "Make it in the mapping, with its currency: money(record.x, 'EUR')"),
    "Quantity": "Make it in the mapping, with its unit: quantity(record.x, 'EA')",
}


def parse(contract: str, data: bytes | Mapping[str, Any]) -> Entity:
    """The entity of `contract` (`purchase-order/1`) in a record of plain values or in JSON bytes.

    Raises `RejectedError` with the dotted path of the first wrong field as `place` (list items count from 0) and the others
    in the message; `ConfigError` if there is no such contract.
    """
    kind = entity_type(contract)
    record = _loaded(contract, data) if isinstance(data, bytes) else data
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        problems = [_problem(kind, one) for one in error.errors(include_url=False)]
    raise _rejected(contract, problems)


def references_in(contract: str, data: bytes) -> tuple[tuple[str, str], ...]:
    """What `Entity.references` says, of JSON bytes that were parsed where they arose: only the codes are looked at again.

    Raises `RejectedError` where they are no such document, `ConfigError` if there is no such contract.
    """
    names = entity_type(contract).names
    if not names:
        return ()
    try:
        record = orjson.loads(data)
        found = [(kind, code_text(key)) for path, kind in names.items() for key in values_at(record, path, _field_of)]
    except BrokenRuleError as error:
        raise _rejected(contract, [error]) from error
    except ValueError as error:
        told = broken("valid JSON is needed", data[:200], hint=str(error)[:120], code="bad-json")
        raise _rejected(contract, [told]) from error
    return tuple(dict.fromkeys(found))


def _field_of(part: object, name: str) -> object:
    return part.get(name) if isinstance(part, dict) else None


def _loaded(contract: str, data: bytes) -> object:
    """The value of JSON bytes: orjson is strict about UTF-8, NaN and depth, json shows names that occur twice."""
    try:
        if len(data) > MAXIMUM_BYTES:
            hint = "Split the document"
            raise broken(f"at most {MAXIMUM_BYTES} bytes are read", f"{len(data)} bytes", hint=hint, code="too-large")
        record = orjson.loads(data)
        json.loads(data, object_pairs_hook=_without_doubles)
    except BrokenRuleError as error:
        raise _rejected(contract, [error]) from error
    except (ValueError, RecursionError) as error:
        hint = f"{str(error)[:120]}"
        raise _rejected(contract, [broken("valid JSON is needed", data[:200], hint=hint, code="bad-json")]) from error
    return record


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in fields if names.count(name) > 1)
        hint = "Readers disagree which one counts: write it once"
        raise broken(
            "each name is there once in an object", double, hint=hint, code="duplicate-name", place=visible(double)
        )
    return fields


def _rejected(contract: str, problems: list[BrokenRuleError]) -> RejectedError:
    first = problems[0]
    listed = "; ".join(f"{problem.place or 'the record'}: {problem.message}" for problem in problems[:_LISTED])
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return RejectedError(
        f"{contract}: {listed}{more}",
        place=first.place,
        rule=first.rule,
        shown=first.shown,
        hint=first.hint,
        code=first.code,
    )


def _problem(kind: type[Entity], error: ErrorDetails) -> BrokenRuleError:
    path = [visible(str(part)[:64]) for part in error["loc"]]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, BrokenRuleError):
        problem = broken(cause.rule, None, hint=cause.hint, code=cause.code)
        problem.message, problem.shown = cause.message, cause.shown
        problem.place = ".".join([*path, *([cause.place] if cause.place else [])])
        return problem
    rule, hint, code = _explained(kind, error)
    return broken(rule, error["input"], hint=hint, code=code, place=".".join(path))


def _explained(kind: type[Entity], error: ErrorDetails) -> tuple[str, str, str]:
    """Rule, hint and code for what pydantic itself finds."""
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "this field must be there", "Fill it in the mapping", "missing-field"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "the contract does not know this field", _near_field(kind, error["loc"]), "unknown-field"
        case "literal_error":
            return f"one of {context['expected']} is needed", _near_word(error), "unknown-word"
        case "too_long":
            return f"at most {context['max_length']} items are allowed", "Split the document", "too-many"
        case "model_type" | "dataclass_type" | "dict_type":
            made = _MADE_BY.get(str(context.get("class_name")), "Give the fields by name")
            return "an object is needed", made, "not-an-object"
        case other:
            return error["msg"], "Compare the field with the contract", other.replace("_", "-")


def _near_word(error: ErrorDetails) -> str:
    known = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    asked = str(error["input"])[:64].strip()
    near = get_close_matches(asked.lower().replace("-", "_").replace(" ", "_"), known, 1, 0.6)
    return f"Did you mean {near[0]}?" if near else "Translate the partner's word in the mapping"


def _near_field(kind: type[Entity], location: tuple[int | str, ...]) -> str:
    near = get_close_matches(str(location[-1])[:64].lower(), _fields_at(kind, location[:-1]), 1, 0.6)
    if near:
        return f"Did you mean {near[0]}? What the contract does not know belongs in ext"
    return "Put what the contract does not know in ext"


def _fields_at(kind: type[Any], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the part of an entity that a path leads to."""
    for part in location:
        if isinstance(part, str):
            kind = _part_type(kind, part)
    return [name for name in _declared(kind) if name != "ext"]


def _part_type(kind: type[Any], name: str) -> type[Any]:
    return next(iter(_types_in(_declared(kind).get(name))), kind)


def _declared(kind: type[Any]) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: None for name in getattr(kind, "__dataclass_fields__", {}) if not name.startswith("_")}


def _types_in(annotation: Any) -> list[type[Any]]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or hasattr(annotation, "__dataclass_fields__")
    ):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _types_in(inner)]
