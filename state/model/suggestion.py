"""The nearest known name, for a hint."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from difflib import get_close_matches

_LISTED = 12
_UNCLEAR = re.compile(r"[\s,;|\"']")


def suggestion(asked: str, known: Collection[str], otherwise: str = "known are") -> str:
    """`did you mean qty?`, or the first known names where none is near."""
    near = get_close_matches(asked[:64], known, n=1) or get_close_matches(asked[:64].lower(), known, n=1)
    if near:
        return f"did you mean {_written(near[0])}?"
    return f"{otherwise} {', '.join(map(_written, sorted(known)[:_LISTED]))}" if known else ""


def _written(name: str) -> str:
    """A name as it stands in a sentence; one that is mere punctuation, or has a blank, in quotes."""
    return name if name and not _UNCLEAR.search(name) else json.dumps(name, ensure_ascii=False)
