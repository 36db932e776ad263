"""`docs/contracts.md` out of the models: `python -m tests.daemon.contracts_page` writes it anew."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from agent.shapes import of_type
from state.model.canonical.registry import ENTITIES

PAGE: Final = Path(__file__).parents[2] / "docs/contracts.md"

_HEAD: Final = """\
# The contracts

What a flow's `mapping` fills, contract by contract. The page is written from the models; a test keeps it so. `list of` is filled
by `lines` or by a list, an object by a nested table: `quantity: {value: record.qty, unit: "'EA'"}`. Words stand for themselves
and are quoted twice in a mapping: `status: "'open'"`. `ext` takes fields of your own.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    inner: dict[str, type[Any]] = {}
    for contract, kind in ENTITIES.items():
        parts += [f"## {contract}\n", f"{_first_line(kind)}\n", _table(kind, inner)]
    parts.append("## Objects\n")
    told: set[str] = set()
    while waiting := sorted(inner.keys() - told):
        told.add(waiting[0])
        kind = inner[waiting[0]]
        parts += [f"### {waiting[0]}\n", f"{_first_line(kind)}\n", _table(kind, inner)]
    return "\n".join(parts)


def _first_line(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _table(kind: type[Any], inner: dict[str, type[Any]]) -> str:
    rows = [f"| `{name}` | {_type(one, inner)} | {'yes' if must else ''} |" for name, one, must in _fields(kind)]
    return "\n".join(("| field | type | required |", "|---|---|---|", *rows, ""))


def _fields(kind: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    if issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            yield name, info.annotation, info.is_required()
        return
    hints = get_type_hints(kind)
    for one in fields(kind):
        yield one.name, hints[one.name], one.default is MISSING


def _type(annotation: Any, inner: dict[str, type[Any]]) -> str:
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if get_origin(annotation) in (tuple, list):
        return f"list of {_type(arguments[0], inner)}"
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        inner[annotation.__name__] = annotation
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if arguments and get_origin(annotation) is not dict:
        return _type(arguments[0], inner)
    return of_type(annotation).type.value


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
