"""File names: safe on every file system a partner may use, and the same each time for the same delivery. Pure."""

from __future__ import annotations

import glob
import re
import unicodedata
from pathlib import PurePath
from typing import Final

from connectors.base import Parcel

PLACEHOLDERS: Final = ("{subject}", "{partition}", "{key}", "{entity}", "{flow}", "{suffix}")
KEY_DIGITS: Final = 16
LONGEST_NAME: Final = 255  # bytes; ext4, xfs, APFS and NTFS take no more
_LONGEST_WRITTEN: Final = 200  # leaves room for what partners add: .done, a time, a counter
_LONGEST_PART: Final = 80
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows, whatever the suffix


def unknown_placeholders(template: str) -> list[str]:
    """What stands in braces and means nothing."""
    return sorted(set(re.findall(r"\{[^}]*\}?|\}", template)) - set(PLACEHOLDERS))


def file_name(template: str, parcel: Parcel, *, flow: str, suffix: str) -> str:
    """The name of the parcel's file; a resend of the same idempotency key gives the same one."""
    parts = {
        "{subject}": safe(parcel.subject),
        "{partition}": safe(parcel.partition_key),
        "{key}": parcel.idempotency_key[:KEY_DIGITS],
        "{entity}": safe(parcel.contract.partition("/")[0]),
        "{flow}": safe(flow),
        "{suffix}": suffix,
    }
    name = re.sub(r"\{\w+\}", lambda found: parts[found[0]], template)
    if len(name.encode()) > _LONGEST_WRITTEN:  # two long parts in one template: the key alone is unique
        name = f"{parts['{key}']}.{suffix}"
    name = name.lstrip(".")  # a leading dot hides it
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def safe(text: str) -> str:
    """`text` as part of a file name: NFC, letters, digits and `._-` only, no leading dot, at most 80 bytes."""
    kept = "".join(one if one.isalnum() or one in "._-" else "_" for one in unicodedata.normalize("NFC", text))
    return cut(kept.lstrip("."), _LONGEST_PART) or "_"


def cut(text: str, size: int) -> str:
    """The longest beginning of `text` that has at most `size` bytes, and no half character."""
    return text.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "ignore")


def tagged(name: str, tag: str) -> str:
    """`name` with a tag before its suffix, no longer than a file system takes: plan.csv, plan.1f3a.csv."""
    path = PurePath(name)
    suffix = path.suffix if len(path.suffix) <= 20 else ""
    room = LONGEST_NAME - len(f".{tag}{suffix}".encode("utf-8", "surrogateescape"))
    return f"{_cut_raw(name.removesuffix(suffix), room)}.{tag}{suffix}"


def glob_for(template: str, name: str) -> str:
    """The glob that finds `name` the way a partner renamed it: `{name}*`, `{stem}.ack`."""
    return template.replace("{name}", glob.escape(name)).replace("{stem}", glob.escape(PurePath(name).stem))


def _cut_raw(name: str, size: int) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    return name if len(raw) <= size else cut(name, size)
