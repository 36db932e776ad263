"""JSON Pointers (RFC 6901): one place inside a JSON document."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field

JsonPointer = Annotated[
    str,
    Field(pattern=r"^(/([^/~]|~0|~1)*)*$", max_length=500, description="a JSON Pointer (RFC 6901): /error/0, /items"),
]


class _Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""What a pointer finds where nothing is; JSON null is None."""


def find(document: object, pointer: str) -> object:
    """What stands at `pointer`, or `ABSENT`. The empty pointer is the whole document."""
    for token in _tokens(pointer):
        document = _step(document, token)
        if document is ABSENT:
            break
    return document


def find_text(document: object, pointer: str) -> str:
    """The text or number at `pointer` as text; empty for anything else."""
    found = find(document, pointer)
    if isinstance(found, str):
        return found
    is_number = isinstance(found, int | float | Decimal) and not isinstance(found, bool)
    return str(found) if is_number else ""


@lru_cache(maxsize=256)
def _tokens(pointer: str) -> tuple[str, ...]:
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def _step(document: object, token: str) -> object:
    match document:
        case dict():
            return document.get(token, ABSENT)
        case list() if token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < len(document):
            return document[int(token)]
        case _:
            return ABSENT
