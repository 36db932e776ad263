"""One YAML file as plain values, with the place of every key and value.

YAML 1.2, read strictly: a key stands once, tags and merge keys are refused, numbers are written one way, and what aliases
expand to is bounded. Dates stay texts. Keys are texts, also those that look like numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agent.estate.findings import Finding, Severity
from state.model.errors import ConfigError
from state.model.visible import shown, visible

Path: TypeAlias = tuple[str | int, ...]

BYTES_LIMIT: Final = 256 * 1024
VALUES_LIMIT: Final = 20_000
DEPTH_LIMIT: Final = 32

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spot:
    """Where a key and its value begin; lines and columns count from 0, as the parser counts."""

    key: tuple[int, int]
    value: tuple[int, int]
    style: str = ""  # of a scalar: "" plain, ' " quoted, | literal, > folded
    text: str = ""


@dataclass(slots=True, kw_only=True)
class YamlDocument:
    """A file that could be read. `value` holds texts, whole numbers, floats, booleans, null, lists and objects."""

    file: str
    lines: list[str]
    value: Any = None
    spots: dict[Path, _Spot] = field(default_factory=dict)

    def has(self, path: Path) -> bool:
        """Whether the file holds something at that path."""
        return path in self.spots

    def at(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path`, or of its key; of the nearest part above where there is none."""
        known = path
        while known and known not in self.spots:
            known = known[:-1]
        spot = self.spots.get(known)
        if spot is None:
            return 1, 1
        line, column = spot.key if key and known == path else spot.value
        return line + 1, column + 1

    def inside(self, path: Path, line: int, column: int) -> tuple[int, int]:
        """Line and column in the file of a place inside the text at `path`, as exactly as its style allows."""
        spot = self.spots.get(path)
        if spot is None or line < 1 or column < 1:
            return self.at(path)
        if spot.style == "|":
            return self._inside_block(spot, line, column)
        start_line, start = spot.value[0], spot.value[1] + (1 if spot.style else 0)
        written = self.lines[start_line][start : start + len(spot.text)] if start_line < len(self.lines) else ""
        if written == spot.text:  # on one line and without escapes
            return start_line + 1, start + column
        return self.at(path)

    def _inside_block(self, spot: _Spot, line: int, column: int) -> tuple[int, int]:
        first = spot.value[0] + 1
        texts = [one for one in self.lines[first:] if one.strip()]
        indent = len(texts[0]) - len(texts[0].lstrip(" ")) if texts else 0
        return first + line, indent + column

    def finding(
        self,
        path: Path,
        message: str,
        *,
        hint: str = "",
        code: str,
        key: bool = False,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        """A complaint about the value at `path`, or about its key."""
        line, column = self.at(path, key=key)
        return Finding(
            file=self.file, line=line, column=column, message=message, hint=hint, code=code, severity=severity
        )

    def finding_inside(self, path: Path, error: ConfigError) -> Finding:
        """A complaint about a place inside the text at `path`, as `error` counts its line and column."""
        line, column = self.inside(path, error.line, error.column) if error.line else self.at(path)
        return Finding(
            file=self.file, line=line, column=column, message=error.message, hint=error.hint, code=error.code
        )


def read_yaml(file: str, raw: bytes) -> tuple[YamlDocument | None, list[Finding]]:
    """The document in `raw`, and what is wrong with it; a document with findings holds what could be read."""
    try:
        return _read(file, _text(file, raw))
    except _UnreadableError as error:
        return None, [error.finding]


class _UnreadableError(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def _unreadable(file: str, line: int, column: int, message: str, hint: str, code: str = "yaml") -> _UnreadableError:
    return _UnreadableError(Finding(file=file, line=line, column=column, message=message, hint=hint, code=code))


def _text(file: str, raw: bytes) -> str:
    if len(raw) > BYTES_LIMIT:
        message = f"the file has {len(raw):,} bytes, at most {BYTES_LIMIT:,} are read"
        raise _unreadable(file, 1, 1, message, "split it into several files", "too-large")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        before = raw[raw.rfind(b"\n", 0, error.start) + 1 : error.start]
        column = len(before.decode("utf-8", "replace")) + 1
        raise _unreadable(file, line, column, "the file is not UTF-8", "save it as UTF-8", "encoding") from None


def _read(file: str, text: str) -> tuple[YamlDocument, list[Finding]]:
    node = _composed(file, text)
    document = YamlDocument(file=file, lines=re.split("\r\n|\r|\n", text))
    builder = _Builder(document)
    if node is not None:
        document.value = builder.build(node, (), _mark(node))
    return document, builder.findings


def _composed(file: str, text: str) -> Node | None:
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = visible(" ".join(str(one) for one in (error.problem, error.context) if one))[:200]
        raise _unreadable(file, line, column, f"this is no YAML: {problem}", _cure(problem)) from None
    except RecursionError:
        raise _unreadable(file, 1, 1, f"the file is nested deeper than {DEPTH_LIMIT}", "make it flatter") from None
    except (YAMLError, AttributeError, ValueError, TypeError, IndexError, KeyError) as error:
        line, column = _place_of_character(text, getattr(error, "position", None))
        message = "this is no YAML: " + visible(str(error).split("\n")[0])[:200]
        raise _unreadable(file, line, column, message, "keys are plain texts; remove control characters") from None
    return node


def _place_of_character(text: str, position: object) -> tuple[int, int]:
    if not isinstance(position, int):
        return 1, 1
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


def _cure(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces: a tab is not allowed here"
    if "mapping values are not allowed" in problem:
        return "quote a text that holds ': ', and check the indentation"
    if "another document" in problem:
        return "one file holds one document: remove the second ---"
    if "cannot start any token" in problem:
        return "quote a text that begins with this character"
    return "check brackets, quotes and indentation"


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line, node.start_mark.column


class _Builder:
    """Turns nodes into values, noting places; what aliases repeat counts each time."""

    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        self._left = VALUES_LIMIT
        self.findings: list[Finding] = []

    def build(self, node: Node, path: Path, key: tuple[int, int]) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > DEPTH_LIMIT:
            line, column = _mark(node)
            limit = f"more than {VALUES_LIMIT:,} values" if self._left < 0 else f"deeper than {DEPTH_LIMIT}"
            message = f"the file is too large: {limit}, aliases expanded"
            raise _unreadable(self._document.file, line + 1, column + 1, message, "split it", "too-large")
        style = getattr(node, "style", None) or "" if isinstance(node, ScalarNode) else ""
        text = node.value if isinstance(node, ScalarNode) else ""
        self._document.spots[path] = _Spot(key=key, value=_mark(node), style=style, text=text)
        match node:
            case MappingNode() if str(node.tag) == f"{_TAG}map":
                return self._object(node, path)
            case SequenceNode() if str(node.tag) == f"{_TAG}seq":
                return [self.build(one, (*path, number), _mark(one)) for number, one in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node)
            case _:
                return self._refuse_tag(node)

    def _object(self, node: MappingNode, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            name = self._key(key, path, made)
            if name is not None:
                made[name] = self.build(value, (*path, name), _mark(key))
        return made

    def _key(self, key: Node, path: Path, made: Mapping[str, Any]) -> str | None:
        if not isinstance(key, ScalarNode) or str(key.tag) == f"{_TAG}merge":
            hint = "write the fields out" if isinstance(key, ScalarNode) else "a key is a plain text"
            self._add(key, "this key cannot be used here", hint, "bad-key")
            return None
        name = str(key.value)
        if name in made:
            first = self._document.at((*path, name), key=True)[0]
            self._add(
                key, f"the key {shown(name)} is already there in line {first}", "keep one of them", "duplicate-key"
            )
            return None
        return name

    def _scalar(self, node: ScalarNode) -> Any:
        text = str(node.value)
        match str(node.tag).removeprefix(_TAG):
            case "str" | "timestamp":
                return text
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INTEGER.fullmatch(text):
                return int(text)
            case "float" if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
                return float(text)
            case "int" | "float" | "bool":
                hint = "quote it if it is a text; a number is written plainly: 7, -7, 7.5"
                self._add(node, f"{shown(text)} may be read in several ways", hint, "unclear-number")
                return text
            case _:
                return self._refuse_tag(node)

    def _refuse_tag(self, node: Node) -> None:
        self._add(node, f"the tag {shown(str(node.tag))} is not used here", "remove it", "tag")

    def _add(self, node: Node, message: str, hint: str, code: str) -> None:
        line, column = _mark(node)
        self.findings.append(
            Finding(file=self._document.file, line=line + 1, column=column + 1, message=message, hint=hint, code=code)
        )
