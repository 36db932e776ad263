"""What may be shown: text from outside with every character that acts on a terminal, or hides in it, made visible."""

from __future__ import annotations

# Printable by Unicode category, yet drawn as nothing or as a blank: fillers, joiners and variation selectors.
_BLANKS = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))

_DELETE = 0x7F
_CONTROL_PICTURES = 0x2400
_ELLIPSIS = "…"


def visible(text: str) -> str:
    """`text` with nothing that a terminal obeys or hides.

    C0 controls, newline and tab included, become control pictures (␛, ␊); C1, escape, bidi, zero-width and tag characters,
    odd blanks, surrogates and unassigned code points become `<U+202E>`. Applying it twice changes nothing more.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() and one not in _BLANKS else _symbol(ord(one)) for one in text)


def shown(value: object, limit: int = 80) -> str:
    """`value` as an error message may show it: quoted if text, on one line, visible, at most `limit` characters."""
    match value:
        case str():
            return f"'{_cut(visible(value[: limit + 1]), limit - 2)}'"
        case bytes():
            return _cut(visible(repr(value[:limit])), limit)
        case bool() | None | float():
            return repr(value)
        case int():
            return _cut(str(value), limit) if value.bit_length() < 1024 else "a whole number of over 300 digits"
        case dict():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return _cut(visible(str(value)), limit)


def _symbol(code: int) -> str:
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "␡" if code == _DELETE else f"<U+{code:04X}>"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS
