"""Who may act as a site's agent, as the hub remembers it: its authority, invitations, and the identity of each site.

An identity is known by the moment of its enrolment, in milliseconds, which rises with each enrolment of a site even where the
clock went back. Its certificates carry that moment, so replacing and denying are comparisons, and hold for certificates
that a hub restored from an older backup has never seen.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from state.model.errors import InvariantError
from state.queries import load

_SQL = load("identities")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """One enrolment of one site. Instants are milliseconds; `key_hash` and `certificate` are set once it was used."""

    id: int
    site: str
    invited_at: int
    expires_at: int
    withdrawn_at: int | None
    used_at: int | None
    key_hash: bytes | None
    certificate: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the agents of a site stand with the hub. Instants are milliseconds, 0 is never."""

    site: str
    enrolled_at: int = 0  # of the identity in force; those enrolled before it are replaced
    certificate: bytes | None = None  # the newest of that identity, DER
    denied_until: int = 0  # identities enrolled up to then are denied
    denied_reason: str = ""

    @property
    def is_denied(self) -> bool:
        """Whether the identity in force is denied; so is a site that never enrolled and was denied."""
        return self.denied_until > 0 and self.enrolled_at <= self.denied_until

    def next_enrolment(self, now: int) -> int:
        """The moment that a new identity of the site is known by: now, and later than all that went before."""
        return max(now, self.enrolled_at + 1, self.denied_until + 1)


def authority(connection: sqlite3.Connection) -> bytes | None:
    """The fingerprint of the hub's authority, None where there never was one."""
    row = connection.execute(_SQL.authority).fetchone()
    return row[0] if row else None


def know_authority(connection: sqlite3.Connection, fingerprint: bytes, *, now: int) -> None:
    """Remember the authority: from now on another one is refused."""
    connection.execute(_SQL.know_authority, (fingerprint, now))


def forget_authority(connection: sqlite3.Connection) -> None:
    """Let the next start begin another authority."""
    connection.execute(_SQL.forget_authority)


def add_invitation(
    connection: sqlite3.Connection, *, secret_hash: bytes, site: str, invited_at: int, expires_at: int
) -> None:
    """Let whoever has the secret enrol as `site`, once."""
    connection.execute(_SQL.add_invitation, (secret_hash, site, invited_at, expires_at))


def find_invitation(connection: sqlite3.Connection, secret_hash: bytes) -> Invitation | None:
    """The invitation with that secret."""
    row = connection.execute(_SQL.find_invitation, (secret_hash,)).fetchone()
    if row is None:
        return None
    number, site, invited_at, expires_at, withdrawn_at, used_at, key_hash, certificate = row
    return Invitation(
        id=number,
        site=site,
        invited_at=invited_at,
        expires_at=expires_at,
        withdrawn_at=withdrawn_at,
        used_at=used_at,
        key_hash=key_hash,
        certificate=certificate,
    )


def settle_invitation(
    connection: sqlite3.Connection, invitation: Invitation, *, key_hash: bytes, certificate: bytes, now: int
) -> None:
    """The invitation was used, by the key of that hash. Raises `InvariantError` where it was before."""
    changed = connection.execute(_SQL.settle_invitation, (now, key_hash, certificate, invitation.id)).rowcount
    if changed != 1:
        raise InvariantError(f"invitation {invitation.id} is used a second time")


def withdraw_invitations(connection: sqlite3.Connection, site: str, *, until: int, now: int) -> None:
    """Those of the site that are open and were made by then are good for nothing any more."""
    connection.execute(_SQL.withdraw_invitations, (now, site, until))


def list_all(connection: sqlite3.Connection) -> list[Standing]:
    """Every site of which anything is known, by name."""
    return [_standing(row) for row in connection.execute(_SQL.list)]


def find(connection: sqlite3.Connection, site: str) -> Standing:
    """How the agents of `site` stand; that of a site of which nothing is known is empty."""
    row = connection.execute(_SQL.find, (site,)).fetchone()
    return _standing(row) if row else Standing(site=site)


def put(connection: sqlite3.Connection, standing: Standing) -> None:
    """Replace what is known of the site."""
    connection.execute(
        _SQL.put,
        (
            standing.site,
            standing.enrolled_at,
            standing.certificate,
            standing.denied_until,
            standing.denied_reason,
        ),
    )


def _standing(row: tuple[str, int, bytes | None, int, str]) -> Standing:
    site, enrolled_at, certificate, denied_until, denied_reason = row
    return Standing(
        site=site,
        enrolled_at=enrolled_at,
        certificate=certificate,
        denied_until=denied_until,
        denied_reason=denied_reason,
    )
