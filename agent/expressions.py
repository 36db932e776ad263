"""Expressions of mappings and rules: a plain path or a literal becomes a closure, everything else is CEL.

A compiler knows the shape of every name an expression may use, so a misspelt field is an error when it is compiled, with its
column and the nearest name. What runs is bounded: CEL limits depth and iterations, `agent.functions` limits what is made,
and this module what goes in and comes out. CEL answers with errors as values; each becomes a `RejectedError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeAlias

from cel_expr_python import cel

from agent.functions import BUILT_IN, DECIMAL, OPERATORS, TEXT_LIMIT, Function, from_digits, to_digits, utc_text
from agent.shapes import Shape
from state.model.errors import ConfigError, RejectedError
from state.model.estate import FieldType
from state.model.suggestion import suggestion
from state.model.visible import shown, visible

Scope: TypeAlias = Mapping[str, Any]
"""The roots an expression sees, by name: `record`, `event`, `line`."""

Read: TypeAlias = Callable[[Scope], Any]

VALUE_LIMIT: Final = 10_000
"""Values inside one object or list that goes into an expression or comes out of it."""

DEPTH_LIMIT: Final = 32

_TOKEN = re.compile(
    r"""
    (?P<comment>//[^\n]*)
    |(?P<text>[bB]?[rR](?:"[^"\n]*"|'[^'\n]*')|[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>[0-9][0-9A-Za-z_]*(?:\.[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<space>\s+)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL_NUMBER = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")
_PLAIN_TEXT = re.compile(r"'[^'\\\n]*'|\"[^\"\\\n]*\"")
_ERROR_PLACE = re.compile(r"<input>:(\d+):(\d+): (.*)")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_METHODS: Final = frozenset(
    (
        *("contains", "startsWith", "endsWith", "matches", "size", "map", "filter", "all", "exists", "exists_one"),
        *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours"),
        *("getMinutes", "getSeconds", "getMilliseconds"),
    )
)
_STANDARD: Final = frozenset(
    ("size", "type", "int", "uint", "bool", "string", "bytes", "timestamp", "duration", "dyn", "matches", "has")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """An expression ready to run. `shape` is its type where it is known; `is_plain` says that CEL is not involved."""

    source: str
    evaluate: Read
    shape: Shape | None
    is_plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """A chain of names in a source: `record.price.amount`. The first `declared` names have a known shape."""

    names: tuple[str, ...]
    start: int
    end: int
    shape: Shape | None  # of the whole chain; None below an object that may hold anything
    declared: int
    declared_end: int
    declared_shape: Shape


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
        paths = list(_Scanner(source, self._roots, self._functions).paths())
        if len(paths) == 1 and source.strip() == source[paths[0].start : paths[0].end]:
            path = paths[0]
            return Compiled(source=source, evaluate=reader(path.names, self._roots), shape=path.shape, is_plain=True)
        return self._compile_cel(source, paths, place)

    def _compile_cel(self, source: str, paths: Sequence[_Path], place: str) -> Compiled:
        rewritten, variables = _with_identifiers(source, paths)
        env = cel.NewEnv(
            variables={name: _cel_type(path.declared_shape) for name, path in variables.items()},
            extensions=[cel.CelExtension("distctl.decimals", [one.declared() for one in OPERATORS])],
            functions=[one.declared() for one in self._functions],
        )
        try:
            program = env.compile(rewritten)
        except RuntimeError as error:
            raise _compile_error(source, str(error), self._roots) from None
        gives = program.return_type()
        if gives in _REFUSED_RESULTS:
            raise _at(source, 0, f"the expression gives a {gives.name().lower()}", _REFUSED_HINT, "bad-result")
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


class _Scanner:
    """Finds the declared names that a source uses, and refuses what is not declared, with its column."""

    def __init__(self, source: str, roots: Mapping[str, Shape], functions: Sequence[Function]) -> None:
        self._source = source
        self._roots = roots
        self._callable = {*(one.name for one in functions), *_STANDARD}
        self._methods = {*(one.name for one in functions if one.is_method), *_METHODS}
        self._tokens = [
            _Token(kind=match.lastgroup or "other", text=match[0], start=match.start())
            for match in _TOKEN.finditer(source)
            if match.lastgroup not in ("space", "comment")
        ]

    def paths(self) -> Iterator[_Path]:
        """Every chain that begins with a root, in order. Raises `ConfigError` for the first wrong name."""
        index = 0
        while index < len(self._tokens):
            if self._tokens[index].kind == "name" and not self._is(index - 1, "."):
                index, path = self._chain(index)
                if path is not None:
                    yield path
            else:
                self._check_method(index)
                index += 1

    def _chain(self, index: int) -> tuple[int, _Path | None]:
        token = self._tokens[index]
        if self._is(index + 1, "("):
            self._check_call(index)
            return index + 1, None
        if token.text not in self._roots or self._is(index + 1, ":"):
            return index + 1, None
        return self._walk(index)

    def _walk(self, index: int) -> tuple[int, _Path]:
        first = self._tokens[index]
        names, end = [first.text], first.end
        shape: Shape | None = self._roots[first.text]
        known = (1, end, self._roots[first.text])
        index += 1
        while (step := self._step(index)) is not None:
            name, index, at = step
            end = self._tokens[index - 1].end
            if shape is not None and (shape.fields is not None or shape.type is not FieldType.OBJECT):
                shape = self._field(shape, name, at, names)
                known = (len(names) + 1, end, shape)
            else:
                shape = None
            names.append(name)
        declared, declared_end, declared_shape = known
        return index, _Path(
            names=tuple(names),
            start=first.start,
            end=end,
            shape=shape,
            declared=declared,
            declared_end=declared_end,
            declared_shape=declared_shape,
        )

    def _step(self, index: int) -> tuple[str, int, int] | None:
        """The next name of a chain, the token after it, and where it stands; a method call or a number ends the chain."""
        if self._is(index, ".") and self._kind(index + 1) == "name" and not self._is(index + 2, "("):
            return self._tokens[index + 1].text, index + 2, self._tokens[index + 1].start
        if self._is(index, "[") and self._kind(index + 1) == "text" and self._is(index + 2, "]"):
            quoted = self._tokens[index + 1]
            if _PLAIN_TEXT.fullmatch(quoted.text):
                return quoted.text[1:-1], index + 3, quoted.start
        return None

    def _field(self, shape: Shape, name: str, at: int, names: Sequence[str]) -> Shape:
        owner = ".".join(names)
        if shape.type is FieldType.LIST:
            raise _at(self._source, at, f"{owner} is a list", f"write {owner}[0], or {owner}.map(x, x.{name})", "list")
        if shape.fields is None:
            raise _at(self._source, at, f"{owner} is a {shape.type} and has no fields", "name it alone", "no-fields")
        found = shape.fields.get(name)
        if found is None:
            raise _at(
                self._source,
                at,
                f"{owner} has no field {shown(name)}",
                suggestion(name, shape.fields, "declared are"),
                "unknown-field",
            )
        return found.with_null() if shape.nullable else found

    def _check_call(self, index: int) -> None:
        token = self._tokens[index]
        if token.text not in self._callable:
            raise _at(
                self._source,
                token.start,
                f"there is no function {token.text}()",
                suggestion(token.text, self._callable, "known are"),
                "unknown-function",
            )
        if token.text == "has" and self._kind(index + 2) == "name" and self._tokens[index + 2].text in self._roots:
            raise _at(self._source, token.start, "has() cannot ask for a declared field", "compare it with null", "has")

    def _check_method(self, index: int) -> None:
        if not (self._is(index, ".") and self._kind(index + 1) == "name" and self._is(index + 2, "(")):
            return
        token = self._tokens[index + 1]
        if token.text not in self._methods:
            raise _at(
                self._source,
                token.start,
                f"there is no method .{token.text}()",
                suggestion(token.text, self._methods, "known are"),
                "unknown-function",
            )

    def _is(self, index: int, text: str) -> bool:
        return 0 <= index < len(self._tokens) and self._tokens[index].text == text

    def _kind(self, index: int) -> str:
        return self._tokens[index].kind if 0 <= index < len(self._tokens) else ""


def _with_identifiers(source: str, paths: Sequence[_Path]) -> tuple[str, dict[str, _Path]]:
    """The source as CEL takes it, and its variables.

    CEL knows `record.qty` as the name of a variable, but not `record["Need date"]`: such a name is replaced by an identifier
    of the same length, so that columns stay what they are.
    """
    variables: dict[str, _Path] = {}
    pieces, done = [], 0
    for path in paths:
        names = path.names[: path.declared]
        written = source[path.start : path.declared_end]
        if written == ".".join(names):
            variables[written] = path
            continue
        alias = f"v{len(variables)}".ljust(len(written), "_")
        variables[alias] = path
        pieces += [source[done : path.start], alias]
        done = path.declared_end
    return "".join((*pieces, source[done:])), variables


def _literal(source: str) -> tuple[Any, Shape] | None:
    if _DATE.fullmatch(source):  # CEL would subtract
        raise _positioned(1, 1, "a date stands here without quotes", f"write \"'{source}'\"", "unquoted-date")
    if _WHOLE_NUMBER.fullmatch(source):
        return int(source), Shape(type=FieldType.INTEGER)
    if _DECIMAL_NUMBER.fullmatch(source):
        return Decimal(source), Shape(type=FieldType.DECIMAL)
    if _PLAIN_TEXT.fullmatch(source):
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
_TYPE_NAMES: Final = (
    ("map(bool, string)", "decimal"),
    ("map<bool, string>", "decimal"),
    ("map", "object or decimal"),
    ("null_type", "null"),
    ("int64", "integer"),
    ("google.protobuf.Timestamp", "instant"),
    ("timestamp", "instant"),
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
    rule = _run_rule(message)
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


def _run_rule(message: str) -> str:
    """CEL's message in plain words: without its status, with our names of types."""
    status, _, rest = message.partition(": ")
    text = rest if status.isupper() else message
    if text.startswith("No matching overloads found : "):
        called, _, taken = text.removeprefix("No matching overloads found : ").partition("(")
        return f"{called.strip('_')} cannot take ({_type_words(taken)}"
    return visible(text.split("\n")[0].removesuffix(" [INTERNAL]"))[:300]


def _type_words(text: str) -> str:
    for theirs, ours in _TYPE_NAMES:
        text = re.sub(rf"(?<![\w.]){re.escape(theirs)}(?!\w)", ours, text)
    return text


def _compile_error(source: str, message: str, roots: Mapping[str, Shape]) -> ConfigError:
    found = _ERROR_PLACE.search(message)
    if found is None:
        if "recursion" in message:
            return _at(source, 0, "the expression is nested deeper than 32", "split it over several fields", "too-deep")
        return _at(source, 0, "the expression cannot be compiled", visible(message.split("\n")[0])[:200], "syntax")
    line, column, text = max(int(found[1]), 1), max(int(found[2]), 1), found[3]
    if undeclared := re.match(r"undeclared reference to '([^']+)'", text):
        name = undeclared[1]
        if name == source.strip() and name.isidentifier() and not get_close_matches(name, roots, n=1):
            hint = (
                f"a text that is meant literally is quoted twice: \"'{name}'\"; a path begins with {', '.join(roots)}"
            )
            return _at(source, 0, f"{shown(name)} is not known here", hint, "unknown-name")
        at = re.search(rf"(?<![\w.]){re.escape(name.partition('.')[0])}(?!\w)", source)
        return _at(
            source,
            at.start() if at else 0,
            f"{shown(name)} is not known here",
            suggestion(name.partition(".")[0], roots, "an expression begins with"),
            "unknown-name",
        )
    return _positioned(line, column, *_compile_rule(text))


def _compile_rule(text: str) -> tuple[str, str, str]:
    text = text.removesuffix(" [INVALID_ARGUMENT]").removesuffix(" (in container '')")
    if overload := re.match(r"found no matching overload for '([^']+)' applied to '\((.*)\)'", text):
        name, taken = overload[1].strip("_").replace("_", " "), _type_words(overload[2])
        hint = "a decimal is exact and meets only decimals and whole numbers: decimal('1.5'), div(a, b, 4)"
        return (
            f"{name} cannot take ({taken})",
            hint if "decimal" in taken else "convert one of them: string(x), int(x)",
            "types",
        )
    if "input '<EOF>'" in text:
        return "the expression ends too early", "see the expression language in docs/estate.md", "syntax"
    text = re.sub(r" expecting \{.*\}", "", text).replace("<EOF>", "the end")
    return _type_words(visible(text))[:300], "see the expression language in docs/estate.md", "syntax"


def _at(source: str, offset: int, message: str, hint: str, code: str) -> ConfigError:
    before = source[:offset]
    return _positioned(before.count("\n") + 1, offset - before.rfind("\n"), message, hint, code)


def _positioned(line: int, column: int, message: str, hint: str, code: str) -> ConfigError:
    return ConfigError(message, line=line, column=column, hint=hint, code=code)
