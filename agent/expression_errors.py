"""What is wrong with an expression, in plain words and at its line and column: our own findings, and CEL's translated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from agent.shapes import Shape
from state.model.errors import ConfigError
from state.model.suggestion import suggestion
from state.model.visible import shown, visible

_ERROR_PLACE = re.compile(r"<input>:(\d+):(\d+): (.*)")
_TYPE_NAMES: Final = (
    ("map(bool, string)", "decimal"),
    ("map<bool, string>", "decimal"),
    ("map", "object or decimal"),
    ("null_type", "null"),
    ("int64", "integer"),
    ("google.protobuf.Timestamp", "instant"),
    ("timestamp", "instant"),
)


def error_at(source: str, offset: int, message: str, hint: str, code: str) -> ConfigError:
    """The error of what stands at `offset` of the source; line and column count from 1."""
    before = source[:offset]
    return _positioned(before.count("\n") + 1, offset - before.rfind("\n"), message, hint, code)


def _positioned(line: int, column: int, message: str, hint: str, code: str) -> ConfigError:
    return ConfigError(message, line=line, column=column, hint=hint, code=code)


def compile_error(source: str, message: str, roots: Mapping[str, Shape]) -> ConfigError:
    """What CEL says when it cannot compile `source`, whose names begin with one of `roots`."""
    found = _ERROR_PLACE.search(message)
    if found is None:
        if "recursion" in message:
            return error_at(
                source, 0, "the expression is nested deeper than 32", "split it over several fields", "too-deep"
            )
        return error_at(source, 0, "the expression cannot be compiled", visible(message.split("\n")[0])[:200], "syntax")
    line, column, text = max(int(found[1]), 1), max(int(found[2]), 1), found[3]
    if undeclared := re.match(r"undeclared reference to '([^']+)'", text):
        name = undeclared[1]
        if name == source.strip() and name.isidentifier() and not get_close_matches(name, roots, n=1):
            hint = (
                f"a text that is meant literally is quoted twice: \"'{name}'\"; a path begins with {', '.join(roots)}"
            )
            return error_at(source, 0, f"{shown(name)} is not known here", hint, "unknown-name")
        at = re.search(rf"(?<![\w.]){re.escape(name.partition('.')[0])}(?!\w)", source)
        return error_at(
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


def run_rule(message: str) -> str:
    """What CEL says when a run fails: without its status, with our names of types."""
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
