"""Copies of an audit are a chain of their own: what does not follow is refused, what its agent lost is set aside and kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from state import audit, audit_breaks, audit_copies
from state.audit import GENESIS, AuditHead, Row
from state.audit_breaks import Break, BreakKind
from state.engine import connect_writer
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.testing import NOON

SITE = "north"


def connected(folder: Path) -> sqlite3.Connection:
    folder.mkdir()
    (folder / "distctl.db").touch()
    connection = connect_writer(folder / "distctl.db")
    migrate(connection, shipped(), now_ms=to_millis(NOON), crash=lambda _: None)
    return connection


@pytest.fixture
def here(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connected(tmp_path / "here")
    yield connection
    connection.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connected(tmp_path / "there")
    yield connection
    connection.close()


def write(connection: sqlite3.Connection, *actions: str, actor: str = "ada") -> list[Row]:
    """Entries of another audit, as they come from there."""
    before = audit.head(connection).seq
    for action in actions:
        audit.append(connection, at_ms=1, actor=actor, action=action, target="lane x", reason="é", after={"a": "1"})
    return audit.rows_after(connection, before, limit=1000)


def a_break(connection: sqlite3.Connection, known: AuditHead, *, after: int, witness: str = "hq") -> Break:
    return audit_breaks.add(
        connection,
        site=SITE,
        witness=witness,
        kind=BreakKind.CUT,
        epoch=1,
        known=known,
        after=after,
        found=after,
        now=to_millis(NOON),
    )


def actions(connection: sqlite3.Connection, *, lost: bool = False) -> list[str]:
    found = audit_copies.entries(connection, SITE, lost=lost, before=2**62, limit=100)
    return [one.entry.action for one in found]


def test_copies_hold_what_was_written_word_for_word(here: sqlite3.Connection, there: sqlite3.Connection) -> None:
    rows = write(there, "hold", "discard", "resume")
    assert audit_copies.add(here, SITE, rows) == (3, None)
    assert audit_copies.end(here, SITE) == audit.head(there)
    [newest, *_] = audit_copies.entries(here, SITE, before=2**62, limit=1)
    assert newest.entry == audit.find(there, 3)
    assert audit_copies.verify(here, SITE) is None


def test_what_comes_again_is_kept_once(here: sqlite3.Connection, there: sqlite3.Connection) -> None:
    rows = write(there, "hold", "discard")
    audit_copies.add(here, SITE, rows)
    assert audit_copies.add(here, SITE, rows + write(there, "resume")) == (1, None)
    assert actions(here) == ["resume", "discard", "hold"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows[:1] + rows[2:], "it is missing: entry 3 follows 1"),
        (lambda rows: [rows[0], (*rows[1][:2], "grace", *rows[1][3:]), rows[2]], "its content is not what was written"),
        (lambda rows: [rows[0], (*rows[1][:10], bytes(32), rows[1][11])], "it does not continue the entry before it"),
    ],
)
def test_what_does_not_follow_is_refused_and_nothing_behind_it_is_kept(
    here: sqlite3.Connection, there: sqlite3.Connection, spoil: object, told: str
) -> None:
    assert callable(spoil)
    count, wrong = audit_copies.add(here, SITE, spoil(write(there, "hold", "discard", "resume")))
    assert wrong is not None
    assert (count, wrong.seq, wrong.finding) == (1, 2, told)
    assert audit_copies.end(here, SITE).seq == 1


def test_a_copy_that_is_edited_is_named(here: sqlite3.Connection, there: sqlite3.Connection) -> None:
    audit_copies.add(here, SITE, write(there, "hold", "discard"))
    here.execute("UPDATE audit_copies SET reason = 'another' WHERE seq = 2")
    found = audit_copies.verify(here, SITE)
    assert found is not None
    assert found.seq == 2


def test_what_is_set_aside_is_kept_and_what_turns_out_to_be_there_still_is_put_back(
    here: sqlite3.Connection, there: sqlite3.Connection
) -> None:
    rows = write(there, "hold", "discard", "resume", "replay")
    audit_copies.add(here, SITE, rows)
    found = a_break(here, audit.head(there), after=1)
    audit_copies.set_aside(here, SITE, after=1, beyond=found.id)
    assert (actions(here), actions(here, lost=True)) == (["hold"], ["replay", "resume", "discard"])
    assert audit_copies.add(here, SITE, rows[1:3]) == (2, None)
    assert (actions(here), actions(here, lost=True)) == (["resume", "discard", "hold"], ["replay"])
    assert audit_copies.rows_beyond(here, SITE, found.id, after=0, limit=9) == rows[3:]
    assert audit_copies.verify(here, SITE) is None


def test_lost_entries_of_two_lives_are_listed_page_by_page(
    here: sqlite3.Connection, there: sqlite3.Connection, tmp_path: Path
) -> None:
    with closing(connected(tmp_path / "restored")) as restored:
        for store, acts in ((there, ("hold", "discard")), (restored, ("resume", "replay"))):
            audit_copies.add(here, SITE, write(store, *acts))
            found = a_break(here, audit.head(store), after=0)
            audit_copies.set_aside(here, SITE, after=0, beyond=found.id)
    pages, before = list[str](), 2**62
    while page := audit_copies.entries(here, SITE, lost=True, before=before, limit=1):
        pages += [one.entry.action for one in page]
        before = page[-1].id
    assert pages == ["replay", "resume", "discard", "hold"]


def test_decisions_of_people_are_told_from_what_agents_write(
    here: sqlite3.Connection, there: sqlite3.Connection
) -> None:
    write(there, "deny", "hold")
    write(there, "allow", actor="ada/ci")
    write(there, "adopt", actor="agent")
    write(there, "renew", actor="agent south")
    write(there, "refuse", actor="mallory")
    write(there, "back up", actor="ada")
    found = a_break(here, audit.head(there), after=0)
    for row in audit.rows_after(there, 0, limit=99):
        audit_copies.add_beyond(here, SITE, found.id, row)
    beyond = audit_copies.count_beyond(here, SITE, found.id)
    assert (beyond.count, beyond.first, beyond.last, beyond.decisions) == (7, 1, 7, 3)


def test_a_break_is_open_until_a_person_settles_all_of_that_audit(here: sqlite3.Connection) -> None:
    known = AuditHead(seq=7, hash="ab" * 32)
    made = a_break(here, known, after=3)
    a_break(here, known, after=3, witness="south")
    assert audit_breaks.find(here, site=SITE, witness="hq", known=known) == made
    assert audit_breaks.settle(here, "west", by="ada", reason="x", now=1) == 0
    assert audit_breaks.settle(here, SITE, by="ada", reason="a drill", now=1) == 2
    assert audit_breaks.settle(here, SITE, by="ada", reason="a drill", now=2) == 0
    assert audit_breaks.list_breaks(here) == []
    assert [one.is_settled for one in audit_breaks.list_breaks(here, site=SITE, settled=True)] == [True, True]


def test_heads_are_told_in_both_directions_and_neither_forgets_the_other(here: sqlite3.Connection) -> None:
    assert audit_copies.told(here, SITE).head == GENESIS
    head, held = AuditHead(seq=7, hash="ab" * 32), AuditHead(seq=3, hash="cd" * 32)
    audit_copies.note_held(here, SITE, held)
    audit_copies.know_head(here, SITE, head, epoch=2, now=1)
    told = audit_copies.told(here, SITE)
    assert (told.epoch, told.head, told.held) == (2, head, held)
    assert audit_copies.list_told(here) == [told]
