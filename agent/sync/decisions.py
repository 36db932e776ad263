"""Decisions of a life that ended which come into force again by themselves: those that keep somebody out.

A store that was put back from a backup has forgotten what was decided since. To forget that an agent is denied or that a token
ended would let somebody in, so both are done again, of the moment at which they were decided: an identity or a token that was
given later is good. What lets somebody in is left to a person.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from state import audit, identities, tokens
from state.audit import AuditEntry
from state.identities import Standing


def decide_again(connection: sqlite3.Connection, entry: AuditEntry, *, now: int) -> Standing | None:
    """Do again what `entry`, which is no part of this audit, says was decided, with an entry of its own.

    Returns how the agents of a site stand by now, where that is what changed.
    """
    kind, _, name = entry.target.partition(" ")
    match entry.action, kind:
        case "deny", "agent":
            return _deny(connection, name, entry, now)
        case "revoke", "token":
            _revoke(connection, name, entry, now)
    return None


def _deny(connection: sqlite3.Connection, site: str, entry: AuditEntry, now: int) -> Standing | None:
    before = identities.find(connection, site)
    after = replace(before, denied_until=_denied_until(entry), denied_reason=entry.reason)
    if after.denied_until <= before.denied_until:
        return None
    identities.put(connection, after)
    identities.withdraw_invitations(connection, site, until=after.denied_until, now=now)
    _note(connection, entry, now)
    return after


def _denied_until(entry: AuditEntry) -> int:
    """An identity that was enrolled after the clock was set back is denied too, so the moment may be later than the entry's."""
    until = entry.details.get("denied_until")
    return max(until, entry.at_ms) if isinstance(until, int) else entry.at_ms


def _revoke(connection: sqlite3.Connection, name: str, entry: AuditEntry, now: int) -> None:
    token = tokens.find_held(connection, name)
    if token is None or token.created_at > entry.at_ms:
        return
    tokens.revoke(connection, name, by=entry.actor, reason=entry.reason, now=now)
    _note(connection, entry, now)


def _note(connection: sqlite3.Connection, entry: AuditEntry, now: int) -> None:
    audit.append(
        connection,
        at_ms=now,
        actor="agent",
        action=entry.action,
        target=entry.target,
        reason=f"decided by {entry.actor} in a life of this store that ended: {entry.reason}",
        details={"again": entry.seq, "hash": entry.hash},
    )
