"""The names an expression uses: each chain that begins with a declared root, and where it stands in the source.

What is not declared is refused here, with its column and the nearest name, before CEL sees the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.expression_errors import error_at
from agent.functions import Function
from agent.shapes import Shape
from state.model.estate import FieldType
from state.model.suggestion import suggestion
from state.model.visible import shown

PLAIN_TEXT = re.compile(r"'[^'\\\n]*'|\"[^\"\\\n]*\"")
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
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePath:
    """A chain of names in a source: `record.price.amount`. The first `declared` names have a known shape."""

    names: tuple[str, ...]
    start: int
    end: int
    shape: Shape | None  # of the whole chain; None below an object that may hold anything
    declared: int
    declared_end: int
    declared_shape: Shape


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

    def paths(self) -> Iterator[NamePath]:
        """Every chain that begins with a root."""
        index = 0
        while index < len(self._tokens):
            if self._tokens[index].kind == "name" and not self._is(index - 1, "."):
                index, path = self._chain(index)
                if path is not None:
                    yield path
            else:
                self._check_method(index)
                index += 1

    def _chain(self, index: int) -> tuple[int, NamePath | None]:
        token = self._tokens[index]
        if self._is(index + 1, "("):
            self._check_call(index)
            return index + 1, None
        if token.text not in self._roots or self._is(index + 1, ":"):
            return index + 1, None
        return self._walk(index)

    def _walk(self, index: int) -> tuple[int, NamePath]:
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
        return index, NamePath(
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
            if PLAIN_TEXT.fullmatch(quoted.text):
                return quoted.text[1:-1], index + 3, quoted.start
        return None

    def _field(self, shape: Shape, name: str, at: int, names: Sequence[str]) -> Shape:
        owner = ".".join(names)
        if shape.type is FieldType.LIST:
            raise error_at(
                self._source, at, f"{owner} is a list", f"write {owner}[0], or {owner}.map(x, x.{name})", "list"
            )
        if shape.fields is None:
            raise error_at(
                self._source, at, f"{owner} is a {shape.type} and has no fields", "name it alone", "no-fields"
            )
        found = shape.fields.get(name)
        if found is None:
            raise error_at(
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
            raise error_at(
                self._source,
                token.start,
                f"there is no function {token.text}()",
                suggestion(token.text, self._callable, "known are"),
                "unknown-function",
            )
        if token.text == "has" and self._kind(index + 2) == "name" and self._tokens[index + 2].text in self._roots:
            raise error_at(
                self._source, token.start, "has() cannot ask for a declared field", "compare it with null", "has"
            )

    def _check_method(self, index: int) -> None:
        if not (self._is(index, ".") and self._kind(index + 1) == "name" and self._is(index + 2, "(")):
            return
        token = self._tokens[index + 1]
        if token.text not in self._methods:
            raise error_at(
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


def find_names(source: str, roots: Mapping[str, Shape], functions: Sequence[Function]) -> list[NamePath]:
    """Every chain of names, in order. Raises `ConfigError` for the first name, function or method that is not known."""
    return list(_Scanner(source, roots, functions).paths())


def with_identifiers(source: str, paths: Sequence[NamePath]) -> tuple[str, dict[str, NamePath]]:
    """The source as CEL takes it, and its variables.

    CEL knows `record.qty` as the name of a variable, but not `record["Need date"]`: such a name is replaced by an identifier
    of the same length, so that columns stay what they are.
    """
    variables: dict[str, NamePath] = {}
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
