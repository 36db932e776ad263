"""What people are told of audits that do not go on as they were known, and what they do about it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.control.schema import AuditFinding
from state import audit, audit_breaks, audit_copies, life
from state.audit import AuditBreak
from state.audit_breaks import Break, BreakKind
from state.audit_copies import Beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A break, and how much is kept here of what lies beyond it."""

    found: Break
    beyond: Beyond

    @property
    def missing(self) -> tuple[int, int]:
        """The first and the last entry beyond the break that are kept nowhere that is known here; 0 and 0: none are."""
        first = max(self.beyond.last, self.found.after) + 1
        return (first, self.found.known.seq) if first <= self.found.known.seq else (0, 0)


def findings(connection: sqlite3.Connection) -> list[AuditFinding]:
    """What nobody acknowledged yet, as it was noticed."""
    here = life.find(connection)
    if here is None:
        return []
    by_kind: defaultdict[tuple[str, BreakKind, int], list[Known]] = defaultdict(list)
    for found in audit_breaks.list_breaks(connection):
        beyond = audit_copies.count_beyond(connection, found.site, found.id)
        by_kind[found.site, found.kind, found.epoch].append(Known(found=found, beyond=beyond))
    told = [_finding(knowns, is_own=site == here.site) for (site, _, _), knowns in by_kind.items()]
    return [one for one in told if one is not None]


def verdict(connection: sqlite3.Connection) -> tuple[AuditBreak | None, list[str]]:
    """The first break of this store's audit by itself and by what others know of it; and those who know a head that fits."""
    broken = audit.verify(connection)
    told = [one for one in audit_copies.list_told(connection) if one.held.seq]
    fitting = [one.site for one in told if audit.goes_through(connection, one.held)]
    return broken or _by_others(connection), fitting


def _by_others(connection: sqlite3.Connection) -> AuditBreak | None:
    here = life.find(connection)
    for found in audit_breaks.list_breaks(connection, site=here.site) if here else ():
        if found.kind is not BreakKind.RESTORED:
            return AuditBreak(seq=found.after + 1, finding=_of_this_store(found))
    return None


def _finding(knowns: Sequence[Known], *, is_own: bool) -> AuditFinding | None:
    """One finding of breaks that several agents witnessed; None where a person has nothing to look at."""
    most = max(knowns, key=lambda known: (known.beyond.count, known.found.known.seq))
    found = most.found
    if found.kind is BreakKind.RESTORED:
        text = "; ".join(_lost(knowns, most)) if is_own else ""
    else:
        text = _of_this_store(found) if is_own else _of_another(found)
    if not text:
        return None
    listed = "distctl audit list --lost" if is_own else f"distctl audit list --lost --of {found.site}"
    return AuditFinding(
        audit_of=found.site,
        kind=found.kind,
        text=text,
        to_do=f"`{listed}` has what is kept of it; then `distctl audit acknowledge {found.site} --reason ...`",
        witnesses=sorted({known.found.witness for known in knowns}),
        known=found.known.seq,
        after=found.after,
        kept=most.beyond.count,
        decisions=most.beyond.decisions,
        noticed_at=found.noticed_at,
    )


def _lost(knowns: Sequence[Known], most: Known) -> Iterator[str]:
    """What a store that was put back does not know: the decisions that came back, and the entries that did not."""
    if count := most.beyond.decisions:
        verb = "1 decision of a person is" if count == 1 else f"{count:,} decisions of people are"
        yield f"{verb} not in this store"
    first, _ = most.missing
    last = max(known.found.known.seq for known in knowns)
    if not first and last > most.found.known.seq:
        first = most.found.known.seq + 1
    if first and last > first:  # a single one is the backup's own, which is written when that is done
        witnesses = ", ".join(sorted({known.found.witness for known in knowns}))
        yield f"the entries {first:,} to {last:,} of the life that ended are lost: {witnesses} knew of them, nobody has them"


def _of_this_store(found: Break) -> str:
    match found.kind:
        case BreakKind.DAMAGED:
            return f"entry {found.found:,} of this audit is not what was written: {found.witness} found it"
        case BreakKind.CUT:
            return f"this audit was cut back: {found.witness} knew entry {found.known.seq:,}, and it ended at {found.found:,}"
        case BreakKind.REWRITTEN | BreakKind.RESTORED:
            return f"this audit was rewritten: {found.witness} knew another entry {found.known.seq:,}"


def _of_another(found: Break) -> str:
    whose = f"the audit of {found.site}"
    match found.kind:
        case BreakKind.DAMAGED:
            return f"entry {found.found:,} of {whose} is not what was written, or does not follow"
        case BreakKind.CUT:
            return f"{whose} was cut back: it ended at entry {found.known.seq:,}, now at {found.found:,}"
        case BreakKind.REWRITTEN | BreakKind.RESTORED:
            return f"{whose} was rewritten: entry {found.known.seq:,} is another than it was"
