"""The life of a store: whose it is, and its epoch. A restore or an adoption begins the next one; an epoch never comes back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from state import streams
from state.model.errors import ConfigError, InvariantError
from state.queries import load

_SQL = load("life")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One life of one site's store."""

    site: str
    epoch: int
    fenced: str = ""  # why it may not go on: it was found to be older than what it said


def begin(connection: sqlite3.Connection, site: str, *, now: int) -> Life:
    """The life of this store, which begins where it is new. Raises `ConfigError` where it is another site's."""
    found = find(connection)
    if found is None:
        connection.execute(_SQL.begin, (site, now))
        return Life(site=site, epoch=1)
    if found.site != site:
        raise ConfigError(
            f"this store belongs to site {found.site}, not to {site}",
            hint=f"start it with --site {found.site}, or give {site} a data folder of its own",
            code="other-site",
        )
    return found


def find(connection: sqlite3.Connection) -> Life | None:
    """The life of this store; None before its first start."""
    row = connection.execute(_SQL.find).fetchone()
    return Life(site=row[0], epoch=row[1], fenced=row[2]) if row else None


def get(connection: sqlite3.Connection) -> Life:
    """The life of a store that was begun."""
    found = find(connection)
    if found is None:
        raise InvariantError("the store has no life yet: it was never started")
    return found


def begin_epoch(connection: sqlite3.Connection, *, now: int, least: int = 0) -> Life:
    """End this life and begin the next, which is `least` or later; what nobody acknowledged goes with it.

    Raises `InvariantError` in a store that was never started.
    """
    ended = get(connection)
    epoch = max(ended.epoch + 1, least)
    connection.execute(_SQL.begin_epoch, (epoch, now))
    connection.execute(_SQL.forget_nonces)
    streams.renumber(connection, ended=ended.epoch, epoch=epoch)
    return get(connection)


def fence(connection: sqlite3.Connection, why: str) -> bool:
    """This store may not go on until a restore begins its next epoch: it is older than what it said.

    Answers whether it could until now: the first reason stands.
    """
    return connection.execute(_SQL.fence, (why,)).rowcount > 0
