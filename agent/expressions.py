"""Expressions of mappings and rules: a plain path or a literal becomes a closure, everything else is CEL.

A compiler knows the shape of every name an expression may use, so a misspelt field is an error when it is compiled, with its
column and the nearest name. What runs is bounded: CEL limits depth and iterations, `agent.functions` limits what is made,
and this module what goes in and comes out. CEL answers with errors as values; each becomes a `RejectedError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeAlias

from cel_expr_python import cel

from agent.expression_errors import compile_error, error_at, run_rule
from agent.expression_names import PLAIN_TEXT, NamePath, find_names, with_identifiers
from agent.functions import BUILT_IN, DECIMAL, OPERATORS, TEXT_LIMIT, Function, from_digits, to_digits, utc_text
from agent.shapes import Shape
from state.model.errors import RejectedError
from state.model.estate import FieldType
from state.model.visible import shown

Scope: TypeAlias = Mapping[str, Any]
"""The roots an expression sees, by name: `record`, `event`, `line`."""

Read: TypeAlias = Callable[[Scope], Any]

VALUE_LIMIT: Final = 10_000
"""Values inside one object or list that goes into an expression or comes out of it."""

DEPTH_LIMIT: Final = 32

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL_NUMBER = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """An expression ready to run. `shape` is its type where it is known; `is_plain` says that CEL is not involved."""

    source: str
    evaluate: Read
    shape: Shape | None
    is_plain: bool


class Expressions:
    """Compiles expressions over the named roots, each with its shape."""

    def __init__(self, roots: Mapping[str, Shape], *, functions: Sequence[Function] = BUILT_IN) -> None:
        self._roots = roots
        self._functions = functions

    def compile(self, source: str, *, place: str) -> Compiled:
        """The expression, ready to run; `place` names it in the errors of its runs (`field need_date`).

        Raises `ConfigError` whose line and column count from 1 inside `source`.
        """
        literal = _literal(source.strip())
        if literal is not None:
            value, shape = literal
            return Compiled(source=source, evaluate=lambda _: value, shape=shape, is_plain=True)
        paths = find_names(source, self._roots, self._functions)
        if len(paths) == 1 and source.strip() == source[paths[0].start : paths[0].end]:
            path = paths[0]
            return Compiled(source=source, evaluate=reader(path.names, self._roots), shape=path.shape, is_plain=True)
        return self._compile_cel(source, paths, place)

    def _compile_cel(self, source: str, paths: Sequence[NamePath], place: str) -> Compiled:
        rewritten, variables = with_identifiers(source, paths)
        env = cel.NewEnv(
            variables={name: _cel_type(path.declared_shape) for name, path in variables.items()},
            extensions=[cel.CelExtension("distctl.decimals", [one.declared() for one in OPERATORS])],
            functions=[one.declared() for one in self._functions],
        )
        try:
            program = env.compile(rewritten)
        except RuntimeError as error:
            raise compile_error(source, str(error), self._roots) from None
        gives = program.return_type()
        if gives in _REFUSED_RESULTS:
            raise error_at(source, 0, f"the expression gives a {gives.name().lower()}", _REFUSED_HINT, "bad-result")
        inputs = [
            (name, reader(path.names[: path.declared], self._roots), _encoder(path.declared_shape))
            for name, path in variables.items()
        ]
        evaluate = _runner(program, inputs, place=place, source=source)
        return Compiled(source=source, evaluate=evaluate, shape=_shape_of(gives), is_plain=False)


def reader(names: Sequence[str], roots: Mapping[str, Shape]) -> Read:
    """A closure that follows `names` through a scope; what is absent on the way is null."""
    shape: Shape | None = roots[names[0]]
    for name in names[1:]:
        shape = shape.fields.get(name) if shape is not None and shape.fields is not None else None
        if shape is not None and shape.derive is not None:
            return _derived(reader(names[:-1], roots), shape.derive)
    follow = _follower(names)
    decode = _decoder(shape)
    return follow if decode is None else lambda scope: decode(follow(scope))


def _follower(names: Sequence[str]) -> Read:
    root, *rest = names
    if not rest:
        return lambda scope: scope[root]
    if len(rest) == 1:
        name = rest[0]

        def step(scope: Scope) -> Any:
            value = scope[root]
            return value.get(name) if isinstance(value, dict) else None

        return step

    def follow(scope: Scope) -> Any:
        value = scope[root]
        for name in rest:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return follow


def _derived(parent: Read, derive: Callable[[Mapping[str, Any]], Any]) -> Read:
    def read(scope: Scope) -> Any:
        value = parent(scope)
        return None if value is None else derive(value)

    return read


def _decoder(shape: Shape | None) -> Callable[[Any], Any] | None:
    """From JSON's form to ours: canonical JSON writes a decimal as text. None where nothing is to be done."""
    if shape is None:
        return None
    if shape.type is FieldType.DECIMAL:
        return lambda value: Decimal(value) if isinstance(value, str) else value
    if shape.type is FieldType.LIST and (item := _decoder(shape.item)) is not None:
        return lambda value: None if value is None else [item(one) for one in value]
    if shape.fields is None:
        return None
    decoders = {name: decode for name, one in shape.fields.items() if (decode := _decoder(one)) is not None}
    if not decoders:
        return None

    def decode_fields(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: decoders[name](one) if name in decoders else one for name, one in value.items()}

    return decode_fields


def _literal(source: str) -> tuple[Any, Shape] | None:
    if _DATE.fullmatch(source):  # CEL would subtract
        raise error_at(source, 0, "a date stands here without quotes", f"write \"'{source}'\"", "unquoted-date")
    if _WHOLE_NUMBER.fullmatch(source):
        return int(source), Shape(type=FieldType.INTEGER)
    if _DECIMAL_NUMBER.fullmatch(source):
        return Decimal(source), Shape(type=FieldType.DECIMAL)
    if PLAIN_TEXT.fullmatch(source):
        return source[1:-1], Shape(type=FieldType.STRING)
    if source in ("true", "false"):
        return source == "true", Shape(type=FieldType.BOOLEAN)
    return None


_CEL_TYPES: Final = {
    FieldType.STRING: cel.Type.STRING,
    FieldType.DATE: cel.Type.STRING,
    FieldType.INTEGER: cel.Type.INT,
    FieldType.DECIMAL: DECIMAL,
    FieldType.BOOLEAN: cel.Type.BOOL,
    FieldType.INSTANT: cel.Type.TIMESTAMP,
    FieldType.OBJECT: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    FieldType.LIST: cel.Type.List(cel.Type.DYN),
}
_REFUSED_RESULTS: Final = (cel.Type.DOUBLE, cel.Type.BYTES, cel.Type.DURATION, cel.Type.TYPE)
_REFUSED_HINT: Final = (
    "give a text, a whole number, a decimal (decimal('1.5')), a date, true, false, a list or an object"
)


def _cel_type(shape: Shape) -> cel.Type:
    return cel.Type.DYN if shape.nullable else _CEL_TYPES[shape.type]


def _shape_of(gives: cel.Type) -> Shape | None:
    return next((Shape(type=name) for name, known in _KNOWN_RESULTS if known == gives), None)


_KNOWN_RESULTS: Final = (
    (FieldType.DECIMAL, DECIMAL),
    (FieldType.STRING, cel.Type.STRING),
    (FieldType.INTEGER, cel.Type.INT),
    (FieldType.BOOLEAN, cel.Type.BOOL),
    (FieldType.INSTANT, cel.Type.TIMESTAMP),
    (FieldType.OBJECT, cel.Type.Map(cel.Type.STRING, cel.Type.DYN)),
)


def _encoder(shape: Shape) -> Callable[[Any], Any]:
    """From our form to CEL's: decimals as digits, instants as moments, texts and sizes checked."""
    match shape.type:
        case FieldType.STRING | FieldType.DATE:
            return _encode_text
        case FieldType.DECIMAL:
            return lambda value: None if value is None else to_digits(value)
        case FieldType.INSTANT:
            return lambda value: None if value is None else datetime.fromisoformat(value)
        case FieldType.INTEGER | FieldType.BOOLEAN:
            return lambda value: value
        case FieldType.LIST if shape.item is not None and shape.item.fields is not None:
            item = shape.item
            return lambda value: None if value is None else [_encode(one, item, 0) for one in value]
        case _:
            return lambda value: _encode_tree(value, shape)


def _encode_text(value: Any) -> Any:
    if value is None:
        return None
    if len(value) > TEXT_LIMIT:
        raise ValueError(f"a text of more than {TEXT_LIMIT} characters goes into no expression")
    if (not value.isascii() and _NO_TEXT.search(value)) or "\x00" in value:
        raise ValueError("the text holds a NUL or half a character")
    return value


def _encode_tree(value: Any, shape: Shape) -> Any:
    if _count(value) > VALUE_LIMIT:
        raise ValueError(f"an object of more than {VALUE_LIMIT} values goes into no expression")
    return _encode(value, shape, 0)


def _encode(value: Any, shape: Shape | None, depth: int) -> Any:
    """The value as CEL takes it; the fields that its shape derives are added."""
    if depth > DEPTH_LIMIT:
        raise ValueError(f"an object is nested deeper than {DEPTH_LIMIT}")
    if isinstance(value, dict):
        known = (shape.fields if shape is not None else None) or {}
        encoded = {_encode_text(name): _encode(one, known.get(name), depth + 1) for name, one in value.items()}
        return encoded | {name: one.derive(value) for name, one in known.items() if one.derive is not None}
    if isinstance(value, list):
        item = shape.item if shape is not None else None
        return [_encode(one, item, depth + 1) for one in value]
    if isinstance(value, Decimal):
        return to_digits(value)
    return _encode_text(value) if isinstance(value, str) else value


def _count(value: Any) -> int:
    total, waiting = 0, [value]
    while waiting and total <= VALUE_LIMIT:
        total += 1
        match waiting.pop():
            case dict() as fields:
                waiting.extend(fields.values())
            case list() as items:
                waiting.extend(items)
    return total


def _runner(
    program: cel.Expression, inputs: Sequence[tuple[str, Read, Callable[[Any], Any]]], *, place: str, source: str
) -> Read:
    def evaluate(scope: Scope) -> Any:
        try:
            answer = program.eval(data={name: encode(read(scope)) for name, read, encode in inputs})
            value = answer.plain_value()
            if answer.type() == cel.Type.ERROR:
                raise ValueError(value)
            return _decoded(value) if isinstance(value, _COMPOSED) else value
        except (ValueError, RuntimeError, OverflowError, ArithmeticError) as error:
            _reject(str(error), scope, inputs, place=place, source=source)

    return evaluate


_COMPOSED: Final = (dict, list, float, datetime, bytearray)


def _decoded(value: Any, depth: int = 0) -> Any:
    if depth > DEPTH_LIMIT:
        raise ValueError(f"the result is nested deeper than {DEPTH_LIMIT}")
    match value:
        case dict() if True in value:
            return from_digits(value)
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise ValueError("an object's names are texts")
            return {name: _decoded(one, depth + 1) for name, one in value.items()}
        case list():
            return [_decoded(one, depth + 1) for one in value]
        case datetime():
            return utc_text(value)
        case None | bool() | int() | str():
            return value
        case _:
            raise ValueError("the result holds a number that is not exact; write decimal('1.5') for 1.5")


def _reject(
    message: str, scope: Scope, inputs: Sequence[tuple[str, Read, Callable[[Any], Any]]], *, place: str, source: str
) -> NoReturn:
    rule = run_rule(message)
    values = ", ".join(f"{name.rstrip('_')} = {shown(read(scope), 40)}" for name, read, _ in inputs[:4])
    missing = "null" in rule
    raise RejectedError(
        f"{place}: {rule}, in {shown(source)}" + (f" with {values}" if values else ""),
        place=place,
        rule=rule,
        shown=values,
        hint="Give an absent field a value: default(x, y)" if missing else "Correct the value, or the expression",
        code="expression",
    ) from None
