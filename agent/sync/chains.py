"""What two ends of one audit say about it: whether it goes on as it was known, and where it last did. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from state.audit import GENESIS, AuditHead
from state.audit_breaks import BreakKind


def differs(known: AuditHead, head: AuditHead, rungs: Iterable[AuditHead]) -> bool:
    """Whether an audit that ends at `head` and shows `rungs` cannot go through what was `known` of it."""
    if known.seq > head.seq:
        return True
    return any(shown.seq == known.seq and shown.hash != known.hash for shown in (head, *rungs))


def kind_of(known: AuditHead, head: AuditHead, *, is_new_life: bool) -> BreakKind:
    """What it is where the two differ. A new life may begin in the past of the last, the same one cannot go back."""
    if is_new_life:
        return BreakKind.RESTORED
    return BreakKind.CUT if head.seq < known.seq else BreakKind.REWRITTEN


def rung_numbers(end: int, named: Iterable[int]) -> list[int]:
    """The entries whose hashes show where two audits part: those that were named, and ever further back from the end.

    Behind the last that both have there are never more than lie between it and the end. At most 64 and those named.
    """
    back = (end - 2**step for step in range(end.bit_length()))
    return sorted({number for number in (end, *back, *named) if GENESIS.seq < number <= end}, reverse=True)


def last_common(shown: Iterable[AuditHead], hash_at: Callable[[int], str]) -> int:
    """The last of those shown that is here under the same hash; 0 where none is."""
    return max((head.seq for head in shown if hash_at(head.seq) == head.hash), default=GENESIS.seq)
