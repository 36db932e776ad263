"""What people are told of audits that do not go on as they were known: exactly what is lost, and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.audit_findings import findings, verdict
from agent.sync.decisions import decide_again
from state import audit, audit_breaks, audit_copies, identities, life, tokens
from state.audit import AuditHead
from state.audit_breaks import BreakKind
from state.engine import connect_writer
from state.identities import Standing
from state.migrations import migrate, shipped
from state.model.clock import to_millis
from state.testing import NOON

HERE, NOW = "hq", to_millis(NOON)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "distctl.db").touch()
    connection = connect_writer(tmp_path / "distctl.db")
    migrate(connection, shipped(), now_ms=NOW, crash=lambda _: None)
    life.begin(connection, HERE, now=NOW)
    yield connection
    connection.close()


def note(
    connection: sqlite3.Connection, action: str, target: str = "lane x", *, actor: str = "ada", at_ms: int = 5
) -> audit.AuditEntry:
    return audit.append(connection, at_ms=at_ms, actor=actor, action=action, target=target, reason="a reason")


def a_break(
    connection: sqlite3.Connection,
    kind: BreakKind,
    *,
    of: str = HERE,
    witness: str = "south",
    known: int = 120,
    after: int = 80,
    found: int = 81,
) -> audit_breaks.Break:
    head = AuditHead(seq=known, hash="ab" * 32)
    return audit_breaks.add(
        connection,
        site=of,
        witness=witness,
        kind=kind,
        epoch=2,
        known=head,
        after=after,
        found=found,
        now=NOW,
    )


def texts(connection: sqlite3.Connection) -> list[str]:
    return [finding.text for finding in findings(connection)]


@pytest.mark.parametrize(
    ("kind", "own", "others"),
    [
        (
            BreakKind.CUT,
            "this audit was cut back: south knew entry 120, and it ended at 81",
            "the audit of north was cut back: it ended at entry 120, now at 81",
        ),
        (
            BreakKind.REWRITTEN,
            "this audit was rewritten: south knew another entry 120",
            "the audit of north was rewritten: entry 120 is another than it was",
        ),
        (
            BreakKind.DAMAGED,
            "entry 81 of this audit is not what was written: south found it",
            "entry 81 of the audit of north is not what was written, or does not follow",
        ),
    ],
)
def test_each_finding_says_whose_audit_it_is_and_what_was_seen(
    connection: sqlite3.Connection, kind: BreakKind, own: str, others: str
) -> None:
    a_break(connection, kind)
    a_break(connection, kind, of="north", witness=HERE)
    assert texts(connection) == [own, others]
    assert findings(connection)[1].to_do == (
        "`distctl audit list --lost --of north` has what is kept of it; then `distctl audit acknowledge north --reason ...`"
    )


def test_a_restore_elsewhere_is_nothing_for_a_person_here(connection: sqlite3.Connection) -> None:
    a_break(connection, BreakKind.RESTORED, of="north", witness=HERE)
    assert texts(connection) == []


def test_where_only_heads_are_kept_a_restored_store_says_exactly_which_entries_are_lost(
    connection: sqlite3.Connection,
) -> None:
    a_break(connection, BreakKind.RESTORED, witness="north", known=118)
    a_break(connection, BreakKind.RESTORED, witness="south", known=120)
    [text] = texts(connection)
    assert text == ("the entries 81 to 120 of the life that ended are lost: north, south knew of them, nobody has them")


def test_what_came_back_is_counted_and_what_did_not_is_named(connection: sqlite3.Connection) -> None:
    found = a_break(connection, BreakKind.RESTORED, known=5, after=0)
    a_break(connection, BreakKind.RESTORED, witness="north", known=6, after=0)
    for action, actor in (("deny", "ada"), ("renew", "agent north"), ("allow", "ada/ci")):
        note(connection, action, actor=actor)
    for row in audit.rows_after(connection, 0, limit=9):
        audit_copies.add_beyond(connection, HERE, found.id, row)
    [text] = texts(connection)
    assert text == (
        "2 decisions of people are not in this store; "
        "the entries 4 to 6 of the life that ended are lost: north, south knew of them, nobody has them"
    )


def test_what_agents_alone_did_in_the_life_that_ended_is_no_finding_once_it_is_back(
    connection: sqlite3.Connection,
) -> None:
    note(connection, "renew", actor="agent north")
    found = a_break(connection, BreakKind.RESTORED, known=1, after=0)
    for row in audit.rows_after(connection, 0, limit=9):
        audit_copies.add_beyond(connection, HERE, found.id, row)
    assert texts(connection) == []


def test_what_a_person_acknowledged_is_said_no_more(connection: sqlite3.Connection) -> None:
    a_break(connection, BreakKind.CUT)
    audit_breaks.settle(connection, HERE, by="ada", reason="a drill", now=NOW)
    assert texts(connection) == []
    assert verdict(connection) == (None, [])


def test_an_audit_is_broken_where_another_agent_knew_more_of_it(connection: sqlite3.Connection) -> None:
    note(connection, "hold")
    audit_copies.note_held(connection, "north", audit.head(connection))
    audit_copies.note_held(connection, "west", AuditHead(seq=9, hash="cd" * 32))
    assert verdict(connection) == (None, ["north"])
    a_break(connection, BreakKind.CUT)
    broken, _ = verdict(connection)
    assert broken is not None
    assert (broken.seq, broken.finding) == (81, "this audit was cut back: south knew entry 120, and it ended at 81")


def test_a_denial_is_decided_again_of_its_own_moment_and_an_identity_that_was_given_later_stays_good(
    connection: sqlite3.Connection,
) -> None:
    lost = note(connection, "deny", "agent north", at_ms=100)
    identities.put(connection, Standing(site="north", enrolled_at=200, certificate=b"x"))
    identities.add_invitation(connection, secret_hash=bytes(32), site="north", invited_at=150, expires_at=900)
    standing = decide_again(connection, lost, now=NOW)
    assert standing is not None
    assert (standing.denied_until, standing.is_denied) == (100, False)
    invitation = identities.find_invitation(connection, bytes(32))
    assert invitation is not None
    assert invitation.withdrawn_at is None
    assert decide_again(connection, lost, now=NOW) is None, "once"
    written = audit.entries(connection, action="deny")
    assert [(one.actor, one.target) for one in written] == [("agent", "agent north"), ("ada", "agent north")]


@pytest.mark.parametrize("action", ["allow", "invite", "create", "adopt", "begin"])
def test_what_lets_somebody_in_is_never_decided_again(connection: sqlite3.Connection, action: str) -> None:
    for target in ("agent north", "token ci"):
        assert decide_again(connection, note(connection, action, target), now=NOW) is None
    assert audit.head(connection).seq == 2
    assert identities.list_all(connection) == []
    assert tokens.list_tokens(connection, before=9, limit=9, with_revoked=True) == []
