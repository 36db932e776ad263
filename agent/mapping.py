"""Mappings: tables `field: expression` that make documents of records, in both directions.

A table is compiled once into closures. A field whose value is null is left out, and so is a nested table in which nothing is
left; the contract, or the system, says what must be there. Flat rows that agree in `group_by` become one document with lines:
the rows of one document stand in one file, and a document is whole or refused, never short of a line that could not be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson

from agent.expressions import Expressions, Read, Scope
from agent.record_reader import TOLD_LIMIT, RecordReader, together
from agent.shapes import ANYTHING, Shape
from connectors.base import SourceRecord, UnreadableRecord
from state.model.errors import ConfigError, RejectedError
from state.model.estate import FieldType, MappingSpec
from state.model.visible import shown

GROUPED_ROWS_LIMIT: Final = 100_000
"""Rows of one file whose flow groups them; they are held together until its end."""

LINES_LIMIT: Final = 10_000
DEPTH_LIMIT: Final = 16

_NUMBER: Final = Shape(type=FieldType.INTEGER)
_LINES: Final = "record.lines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A mistake in a part of the estate: the keys that lead to it, and what is wrong, with line and column inside it."""

    path: tuple[str | int, ...]
    error: ConfigError

    def below(self, *path: str | int) -> Problem:
        """The same, seen from further up."""
        return Problem(path=(*path, *self.path), error=self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledMapping:
    """A mapping ready to run."""

    fields: Read
    lines: Read | None
    lines_from: Read | None
    lines_field: str
    group_by: tuple[Read, ...]

    def apply(self, scope: Scope) -> dict[str, Any]:
        """The document of one record. Decimals are `Decimal`, dates ISO texts. Raises `RejectedError`."""
        document: dict[str, Any] = self.fields(scope) or {}
        if self.lines is not None and self.lines_from is not None:
            document[self.lines_field] = self._lines(scope, self.lines_from(scope))
        return document

    def _lines(self, scope: Scope, items: Any) -> list[Any]:
        if items is not None and not isinstance(items, list):
            raise _refusal("the lines are no list", shown(items), "compare lines_from with the record", "not-a-list")
        if items is not None and len(items) > LINES_LIMIT:
            raise _refusal(
                f"a document has more than {LINES_LIMIT} lines", str(len(items)), "split it", "too-many-lines"
            )
        made, inner = [], dict(scope)
        for number, item in enumerate(items or (), 1):
            inner["line"], inner["line_number"] = item, number
            made.append(self._line(inner))
        return made

    def line(self, scope: Scope, number: int) -> dict[str, Any]:
        """One line; `number` counts from 1."""
        return self._line({**scope, "line_number": number})

    def _line(self, scope: Scope) -> dict[str, Any]:
        return (self.lines(scope) if self.lines is not None else None) or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a mapping made, and the records it was made of: one, or the rows of a group."""

    data: dict[str, Any]
    rows: Sequence[SourceRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Records of which no document can be made, and why. Its `place` names the field, the message of a group its rows."""

    error: RejectedError
    rows: Sequence[SourceRecord]


def compile_mapping(spec: MappingSpec, roots: Mapping[str, Shape], problems: list[Problem]) -> CompiledMapping:
    """The mapping over `roots`; what is wrong in it is added to `problems` with its path from `spec`."""
    compiler = _Compiler(Expressions(roots), problems)
    group_by = tuple(compiler.expression(source, ("group_by", number)) for number, source in enumerate(spec.group_by))
    lines_from, line_roots = None, {**roots, "line_number": _NUMBER}
    if spec.lines and not spec.group_by:
        source = spec.lines_from or _LINES
        lines_from, shape = compiler.list_expression(source, ("lines_from",) if spec.lines_from else ("lines",))
        line_roots["line"] = shape
    for_lines = _Compiler(Expressions(line_roots), problems)
    return CompiledMapping(
        fields=compiler.table(spec.fields, ("fields",)),
        lines=for_lines.table(spec.lines, ("lines",)) if spec.lines else None,
        lines_from=lines_from,
        lines_field=spec.lines_field,
        group_by=group_by,
    )


class _Compiler:
    def __init__(self, expressions: Expressions, problems: list[Problem]) -> None:
        self._expressions = expressions
        self._problems = problems

    def expression(self, source: str, path: tuple[str | int, ...]) -> Read:
        try:
            return self._expressions.compile(source, place=_place(path)).evaluate
        except ConfigError as error:
            self._problems.append(Problem(path=path, error=error))
            return _nothing

    def list_expression(self, source: str, path: tuple[str | int, ...]) -> tuple[Read, Shape]:
        """The reader of a list, and the shape of its items."""
        try:
            compiled = self._expressions.compile(source, place=_place(path))
        except ConfigError as error:
            self._problems.append(Problem(path=path, error=error))
            return _nothing, ANYTHING
        if compiled.shape is not None and compiled.shape.type is not FieldType.LIST:
            flat = ConfigError(f"{source} is no list", line=1, column=1, hint="lines come of a list", code="not-a-list")
            self._problems.append(Problem(path=path, error=flat))
        item = compiled.shape.item if compiled.shape is not None else None
        return compiled.evaluate, item or ANYTHING

    def table(self, entries: Mapping[str, Any], path: tuple[str | int, ...]) -> Read:
        reads = tuple((name, self.node(node, (*path, name))) for name, node in entries.items())

        def read(scope: Scope) -> dict[str, Any] | None:
            made = {}
            for name, one in reads:
                value = one(scope)
                if value is not None:
                    made[name] = value
            return made or None

        return read

    def node(self, node: Any, path: tuple[str | int, ...]) -> Read:
        """An expression, a nested table, a list of either, or a constant."""
        if len(path) > DEPTH_LIMIT:
            error = ConfigError(
                f"a mapping is nested deeper than {DEPTH_LIMIT}", hint="make it flatter", code="too-deep"
            )
            self._problems.append(Problem(path=path, error=error))
            return _nothing
        match node:
            case str():
                return self.expression(node, path)
            case dict():
                return self.table(node, path)
            case list():
                reads = [self.node(one, (*path, number)) for number, one in enumerate(node)]
                return lambda scope: [value for read in reads if (value := read(scope)) is not None]
            case float():
                number = Decimal(repr(node))
                return lambda _: number
            case _:
                return lambda _: node


def _nothing(_: Scope) -> None:
    return None


def _place(path: tuple[str | int, ...]) -> str:
    return "mapping " + ".".join(str(part) for part in path)


def _refusal(rule: str, seen: str, hint: str, code: str, place: str = "") -> RejectedError:
    return RejectedError(
        f"{rule}, not {seen}" if seen else rule, place=place, rule=rule, shown=seen, hint=hint, code=code
    )


def documents(
    rows: Iterable[SourceRecord | UnreadableRecord], reader: RecordReader, mapping: CompiledMapping
) -> Iterator[Document | Refused]:
    """The documents of the rows, in order of their first row; unreadable rows make none and are the caller's to set aside.

    Where the mapping groups, `rows` is the whole file: a document is known to be complete only at its end. Raises
    `RejectedError` for a file of more than `GROUPED_ROWS_LIMIT` rows.
    """
    if mapping.group_by:
        yield from _Groups(reader, mapping).documents(rows)
        return
    for row in rows:
        if isinstance(row, SourceRecord):
            try:
                yield Document(data=mapping.apply({"record": reader.read(row.fields)}), rows=(row,))
            except RejectedError as error:
                yield Refused(error=error, rows=(row,))


@dataclass(slots=True, kw_only=True)
class _Group:
    rows: list[SourceRecord] = field(default_factory=list)
    header: dict[str, Any] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    errors: list[RejectedError] = field(default_factory=list)  # the first of them
    error_count: int = 0

    def refuse(self, error: RejectedError) -> None:
        """One more reason why the document cannot be made."""
        self.error_count += 1
        if len(self.errors) < TOLD_LIMIT:
            self.errors.append(error)


class _Groups:
    """Gathers the rows of one file.

    A row that cannot be read has no key, so it may belong to the document of the row before it or after it: both are refused
    with it, because an order short of a line is worse than an order that waits for a person.
    """

    def __init__(self, reader: RecordReader, mapping: CompiledMapping) -> None:
        self._reader = reader
        self._mapping = mapping
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._before: _Group | None = None  # the group of the row before
        self._lost: str = ""  # why the row before has no key

    def documents(self, rows: Iterable[SourceRecord | UnreadableRecord]) -> Iterator[Document | Refused]:
        for count, row in enumerate(rows, 1):
            if count > GROUPED_ROWS_LIMIT:
                hint = "have the sender split the file between two documents"
                raise _refusal(f"a grouped file has more than {GROUPED_ROWS_LIMIT} rows", "", hint, "too-many-rows")
            if isinstance(row, UnreadableRecord):
                self._lose(f"{row.place} cannot be read ({row.rule})")
            elif (refused := self._take(row)) is not None:
                yield refused
        for group in self._groups.values():
            yield self._finished(group)

    def _take(self, row: SourceRecord) -> Refused | None:
        values, error = self._read(row)
        try:
            key = self._key(values)
        except RejectedError as missing:
            self._lose(f"{row.place} has no key")
            return Refused(error=error or missing, rows=(row,))
        group = self._groups.setdefault(key, _Group())
        group.rows.append(row)
        if self._lost:
            group.refuse(_neighbour(self._lost))
        self._before, self._lost = group, ""
        if error is None:
            error = self._add(group, row, values)
        if error is not None:
            group.refuse(error)
        return None

    def _read(self, row: SourceRecord) -> tuple[dict[str, Any], RejectedError | None]:
        try:
            return self._reader.read(row.fields), None
        except RejectedError as error:
            return self._reader.read_what_is_right(row.fields), _in_row(error, row)

    def _key(self, values: dict[str, Any]) -> tuple[str, ...]:
        parts = [read({"record": values}) for read in self._mapping.group_by]
        if any(part is None for part in parts):
            raise _refusal("the row has no value to group by", "", "fill what group_by names", "no-group")
        return tuple(f"{type(part).__name__}:{part}" for part in parts)

    def _add(self, group: _Group, row: SourceRecord, values: dict[str, Any]) -> RejectedError | None:
        scope = {"record": values}
        try:
            header = self._mapping.fields(scope) or {}
            group.lines.append(self._mapping.line(scope, len(group.lines) + 1))
        except RejectedError as error:
            return _in_row(error, row)
        if group.header is None:
            group.header = header
        return _disagreement(group, header, row)

    def _lose(self, why: str) -> None:
        self._lost = why
        if self._before is not None:
            self._before.refuse(_neighbour(why))

    def _finished(self, group: _Group) -> Document | Refused:
        if group.errors:
            return Refused(error=together(group.errors, count=group.error_count), rows=tuple(group.rows))
        header = group.header or {}
        lines = {self._mapping.lines_field: group.lines} if self._mapping.lines is not None else {}
        return Document(data={**header, **lines}, rows=tuple(group.rows))


def _in_row(error: RejectedError, row: SourceRecord) -> RejectedError:
    return RejectedError(
        f"{row.place}: {error.message}",
        place=error.place,
        rule=error.rule,
        shown=error.shown,
        hint=error.hint,
        code=error.code,
    )


def _neighbour(why: str) -> RejectedError:
    hint = "correct that row and send all rows of this document together in a new file"
    return _refusal(f"{why} and may be a row of this document", "", hint, "incomplete-group")


def _disagreement(group: _Group, header: dict[str, Any], row: SourceRecord) -> RejectedError | None:
    first = group.header or {}
    if header == first:
        return None
    name = next(name for name in (*first, *header) if first.get(name) != header.get(name))
    seen = f"{shown(first.get(name), 40)} and {shown(header.get(name), 40)}"
    return RejectedError(
        f"{group.rows[0].place} and {row.place} are one document but disagree in {name}: {seen}",
        place=f"field {name}",
        rule=f"rows of one document agree in {name}",
        shown=seen,
        hint="correct one of the two rows, or move the field into the lines",
        code="header-disagrees",
    )


def render(document: Mapping[str, Any]) -> bytes:
    """A system's record as JSON: fields in the order of the mapping, decimals as numbers of their exact value."""
    return orjson.dumps(document, default=_digits)


def _digits(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no form in JSON")
