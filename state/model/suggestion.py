"""The nearest known name, for a hint."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_LISTED = 12


def suggestion(asked: str, known: Collection[str], otherwise: str = "known are") -> str:
    """`did you mean qty?`, or the first known names where none is near."""
    near = get_close_matches(asked[:64], known, n=1) or get_close_matches(asked[:64].lower(), known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{otherwise} {', '.join(sorted(known)[:_LISTED])}" if known else ""
