"""An agent as the witness of other agents' audits, and they of its own (docs/decisions/016-audit-across-agents.md).

`hear` takes in what another said, in one transaction: its head, copies of its entries, whatever of it does not fit what was known
here, and entries of this store that it gave back. `word` is what is said in return. Nothing here stops the exchange of events.
Concurrency: one call of a peer at a time. Crash: what was heard last is forgotten, and the next exchange says it again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from agent.sync.audit_word import MOST_BREAKS, MOST_ROWS, AuditWord, Returned, ToldBreak, Wanted, bounded
from agent.sync.chains import differs, kind_of, last_common, rung_numbers
from agent.sync.decisions import decide_again
from state import audit, audit_breaks, audit_copies, life
from state.audit import GENESIS, AuditHead
from state.audit_breaks import Break, BreakKind
from state.database import Database
from state.identities import Standing
from state.model.clock import Clock, to_millis

_log = logging.getLogger("distctl.sync")
_NOTHING: Final = AuditWord()
_MOST_OPEN: Final = 100
"""Breaks of one audit that nobody has acknowledged: an agent that tells another past with each word adds no more."""


class Witness:
    """What one agent tells others of audits, and what it makes of what they tell."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        keeps: bool,
        shares_with: Collection[str],
        on_denied: Callable[[Standing], None] = lambda _: None,
    ) -> None:
        """`keeps` copies of what others share; `shares_with` are the sites whose agents may have copies of this audit.

        `on_denied` is told of the denial of an agent that is in force again.
        """
        self._database = database
        self._clock = clock
        self._keeps = keeps
        self._shares_with = frozenset(shares_with)
        self._on_denied = on_denied
        self._heard: dict[str, AuditWord] = {}  # the last word of each peer
        self._given: dict[str, list[AuditHead]] = {}  # where the entries began that each was given last

    async def hear(self, peer: str, *, epoch: int, said: AuditWord | None) -> bool:
        """Take in the word of a peer that lives in `epoch`. Answers whether it brought more than its head."""
        if said is None or said == self._heard.get(peer):
            return False
        moved, denied = await self._database.write(partial(self._hear, peer, epoch, said), name="sync.audit")
        self._heard[peer] = said
        for standing in denied:
            self._on_denied(standing)
        return moved

    # What is said.

    def word(self, peer: str, connection: sqlite3.Connection) -> AuditWord:
        """What is to be said to the agent of that site."""
        here, head = life.get(connection), audit.head(connection)
        theirs = self._heard.get(peer, _NOTHING)
        rows = self._rows_for(connection, peer, theirs)
        return AuditWord(
            head=head,
            seen=audit_copies.told(connection, peer).head,
            copied=audit_copies.end(connection, peer) if self._keeps else None,
            rungs=_rungs(connection, here.site, head, theirs),
            after=theirs.copied if rows and theirs.copied else GENESIS,
            rows=rows,
            breaks=[
                ToldBreak(kind=one.kind, epoch=one.epoch, known=one.known, after=one.after, found=one.found)
                for one in audit_breaks.list_breaks(connection, site=peer, settled=True)[-MOST_BREAKS:]
            ],
            wanted=_wanted(connection, here.site, peer),
            returned=_returned(connection, here.site, peer, theirs),
        )

    def is_new(self, peer: str, word: AuditWord) -> bool:
        """Whether that word has entries with which the last one that the peer was given did not begin."""
        gives = _gives(word)
        return bool(gives) and gives != self._given.get(peer)

    def give(self, peer: str, word: AuditWord) -> None:
        """The peer is told that word."""
        self._given[peer] = _gives(word)

    def _rows_for(self, connection: sqlite3.Connection, peer: str, theirs: AuditWord) -> list[audit.Row]:
        if theirs.copied is None or peer not in self._shares_with:
            return []
        if not audit.goes_through(connection, theirs.copied):
            return []
        return bounded(audit.rows_after(connection, theirs.copied.seq, limit=MOST_ROWS))

    # What is heard.

    def _hear(
        self, peer: str, epoch: int, said: AuditWord, connection: sqlite3.Connection
    ) -> tuple[bool, list[Standing]]:
        audit_copies.note_held(connection, peer, said.seen)
        parted = self._compare(connection, peer, epoch, said)
        kept = self._keep(connection, peer, epoch, said) if self._keeps else 0
        told = self._learn(connection, peer, said)
        count, denied = self._take_back(connection, peer, said.returned)
        return parted or told or kept + count > 0, denied

    def _compare(self, connection: sqlite3.Connection, peer: str, epoch: int, said: AuditWord) -> bool:
        """Set their head beside what is known of it; answers whether the two part."""
        told, copied = audit_copies.told(connection, peer), audit_copies.end(connection, peer)
        parted = any(differs(known, said.head, said.rungs) for known in (told.head, copied))
        if parted:
            hash_at = partial(audit_copies.hash_at, connection, peer)
            after = last_common((said.head, *said.rungs), hash_at) if copied.seq else _before(told.head, said.head)
            if copied.seq and not after and not said.rungs and said.head.seq:
                return False  # their next word has rungs
            kind = kind_of(told.head, said.head, is_new_life=epoch > told.epoch)
            self._part(connection, peer, kind, epoch=epoch, known=told.head, after=after, found=said.head.seq)
        if parted or told.head != said.head or told.epoch != epoch:
            audit_copies.know_head(connection, peer, said.head, epoch=epoch, now=self._now())
        return parted

    def _keep(self, connection: sqlite3.Connection, peer: str, epoch: int, said: AuditWord) -> int:
        """Keep their entries; one that does not follow is a finding, and none is kept behind it."""
        if audit_copies.hash_at(connection, peer, said.after.seq) != said.after.hash:
            return 0
        count, wrong = audit_copies.add(connection, peer, said.rows)
        if wrong is not None:
            end = audit_copies.end(connection, peer)
            self._part(connection, peer, BreakKind.DAMAGED, epoch=epoch, known=end, after=end.seq, found=wrong.seq)
        return count

    def _part(
        self,
        connection: sqlite3.Connection,
        peer: str,
        kind: BreakKind,
        *,
        epoch: int,
        known: AuditHead,
        after: int,
        found: int,
    ) -> None:
        """Another's audit does not go on as it was known: what lies beyond is set aside, once with an entry here."""
        same = audit_breaks.find(connection, site=peer, witness=life.get(connection).site, known=known)
        if same is not None and same.kind is kind and same.epoch == epoch:
            return
        if len(audit_breaks.list_breaks(connection, site=peer)) >= _MOST_OPEN:
            return  # a person has enough to look at
        made = audit_breaks.add(
            connection,
            site=peer,
            witness=life.get(connection).site,
            kind=kind,
            epoch=epoch,
            known=known,
            after=after,
            found=found,
            now=self._now(),
        )
        audit_copies.set_aside(connection, peer, after=after, beyond=made.id)
        self._note(connection, made)

    def _learn(self, connection: sqlite3.Connection, peer: str, said: AuditWord) -> bool:
        """What a peer says of this audit: it knew it otherwise. Answers whether that is new."""
        here, is_new = life.get(connection), False
        for told in said.breaks:
            if audit.goes_through(connection, told.known) and told.break_kind is not BreakKind.DAMAGED:
                continue
            if audit_breaks.find(connection, site=here.site, witness=peer, known=told.known) is not None:
                continue
            if len(_open_by(connection, here.site, peer)) >= MOST_BREAKS:
                break
            made = audit_breaks.add(
                connection,
                site=here.site,
                witness=peer,
                kind=told.break_kind,
                epoch=told.epoch,
                known=told.known,
                after=told.after,
                found=told.found,
                now=self._now(),
            )
            self._note(connection, made)
            is_new = True
        return is_new

    def _take_back(
        self, connection: sqlite3.Connection, peer: str, returned: Returned | None
    ) -> tuple[int, list[Standing]]:
        """Keep entries that this store lost, and do again what of them keeps somebody out."""
        here = life.get(connection)
        if returned is None or peer not in self._shares_with:
            return 0, []  # who was given no copies has none to give back, and what it made up could keep others out
        known = audit_breaks.find(connection, site=here.site, witness=peer, known=returned.known)
        if known is None:
            return 0, []
        last = audit_copies.end(connection, here.site, beyond=known.id)
        count, denied = 0, list[Standing]()
        for row in returned.rows:
            if row[0] <= last.seq or audit.hash_at(connection, row[0]) == row[-1].hex():
                continue
            if last == GENESIS:
                last = AuditHead(seq=row[0] - 1, hash=audit.hash_at(connection, row[0] - 1))
                audit_breaks.place(connection, known, after=last.seq)
            if wrong := audit.finding(row, last):
                _log.error("%s gave back entry %d of this audit, and %s", peer, row[0], wrong, extra={"site": peer})
                break
            audit_copies.add_beyond(connection, here.site, known.id, row)
            standing = decide_again(connection, audit.entry_of(row), now=self._now())
            denied += [standing] if standing else []
            last, count = audit.head_of(row), count + 1
        return count, denied

    def _note(self, connection: sqlite3.Connection, made: Break) -> None:
        """A break in the audit of whoever learns of it."""
        here = life.get(connection)
        whose = f"of {made.site}" if made.site != here.site else "of this store"
        level = logging.WARNING if made.kind is BreakKind.RESTORED else logging.ERROR
        _log.log(level, "the audit %s is %s: %s knew entry %d", whose, made.kind, made.witness, made.known.seq)
        audit.append(
            connection,
            at_ms=self._now(),
            actor="agent",
            action="notice",
            target=f"audit {made.site}",
            reason=f"it is {made.kind}: {made.witness} knew it up to entry {made.known.seq}",
            details={"kind": made.kind, "known": made.known.hash, "after": made.after, "found": made.found},
        )

    def _now(self) -> int:
        return to_millis(self._clock.now())


def _gives(word: AuditWord) -> list[AuditHead]:
    """The first of its own entries and of those it gives back."""
    rows = [*word.rows[:1], *(word.returned.rows[:1] if word.returned else ())]
    return [audit.head_of(row) for row in rows]


def _before(known: AuditHead, head: AuditHead) -> int:
    """The last entry that both may have, where heads are all that is known."""
    return max(min(head.seq, known.seq - 1), 0)


def _rungs(connection: sqlite3.Connection, site: str, head: AuditHead, theirs: AuditWord) -> list[AuditHead]:
    """Where this audit can be told from what they know of it, if it can."""
    named = [known for known in (theirs.seen, theirs.copied) if known is not None]
    if all(audit.goes_through(connection, known) for known in named):
        return []
    numbers = rung_numbers(head.seq, [*(known.seq for known in named), audit.began(connection, site)])
    return [AuditHead(seq=number, hash=audit.hash_at(connection, number)) for number in numbers]


def _wanted(connection: sqlite3.Connection, site: str, peer: str) -> list[Wanted]:
    """Entries of ours that the peer knew and that are not here."""
    wanted = []
    for known in audit_breaks.list_breaks(connection, site=site, settled=True):
        if known.witness != peer or known.kind is BreakKind.DAMAGED:
            continue
        end = audit_copies.end(connection, site, beyond=known.id)
        if end != known.known:
            wanted.append(Wanted(known=known.known, after=end.seq))
    return wanted[-MOST_BREAKS:]


def _returned(connection: sqlite3.Connection, site: str, peer: str, theirs: AuditWord) -> Returned | None:
    """The first of what they want and is kept here."""
    for wanted in theirs.wanted:
        known = audit_breaks.find(connection, site=peer, witness=site, known=wanted.known)
        if known is None:
            continue
        rows = audit_copies.rows_beyond(connection, peer, known.id, after=wanted.after, limit=MOST_ROWS)
        if rows:
            return Returned(known=wanted.known, rows=bounded(rows))
    return None


def _open_by(connection: sqlite3.Connection, site: str, witness: str) -> list[Break]:
    return [known for known in audit_breaks.list_breaks(connection, site=site) if known.witness == witness]
