"""What is said of a file that is not read: what it is, which rule it breaks and what to do. Pure."""

from __future__ import annotations

from connectors.base import UnreadableRecord
from connectors.files.folder import Entry
from state.model.visible import visible


def refusal(entry: Entry, *, max_bytes: int) -> UnreadableRecord | None:
    """Why the file is not even opened; None where it may be."""
    if entry.kind:
        return _refused(
            entry.name,
            code="no-regular-file",
            rule=f"it is {entry.kind}, and only regular files are taken",
            shown=entry.kind,
            hint="it was not followed or opened; have the partner put the file itself there",
        )
    if entry.links > 1:
        return _refused(
            entry.name,
            code="hard-link",
            rule=f"the file has {entry.links} names (hard links), so it may change after it was taken",
            shown=f"{entry.links} links",
            hint="have it copied or renamed into the folder, not linked; to take it, put a copy there",
        )
    if entry.fingerprint.size > max_bytes:
        return _refused(
            entry.name,
            code="too-large",
            rule=f"the file has {entry.fingerprint.size} bytes, and max_bytes is {max_bytes}",
            shown=f"{entry.fingerprint.size} bytes",
            hint="raise max_bytes and move it from quarantine back into the folder, or have it sent in parts",
        )
    return None


def empty(name: str) -> UnreadableRecord:
    """An empty file, mostly an export that failed."""
    return _refused(
        name,
        code="empty-file",
        rule="the file is empty",
        shown="0 bytes",
        hint="have it exported again; if empty means nothing to do, set `empty: accept`",
    )


def same_content(name: str) -> UnreadableRecord:
    """Bytes that were taken before under another name (or under this one, where names are reused)."""
    return _refused(
        name,
        code="same-content",
        rule="the same bytes were taken before, and nobody can say whether they are meant again",
        shown=visible(name),
        hint=(
            "sent again: leave it in quarantine. Meant again: move it from quarantine back into the folder. "
            "For good: set `same_content` to skip or take"
        ),
    )


def _refused(name: str, *, code: str, rule: str, shown: str, hint: str) -> UnreadableRecord:
    place = visible(name)
    return UnreadableRecord(
        position="file",
        place=place,
        rule=rule,
        shown=shown,
        message=f"{place}: {rule}; the file is in quarantine",
        hint=hint,
        code=code,
        raw=b"",
    )
