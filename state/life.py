"""The life of a store: whose it is, and its epoch. A restore or an adoption begins the next one; an epoch never comes back.

A life that is not the first begins by gathering: until every agent that the store knew has given back what it has of the life
before, or a person waived it, nothing is taken in and nothing is delivered.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from state import streams
from state.model.errors import ConfigError, InvariantError
from state.model.ids import Seq
from state.queries import load

_SQL = load("life")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One life of one site's store."""

    site: str
    epoch: int
    fenced: str = ""  # why it may not go on: it was found to be older than what it said
    is_gathering: bool = False
    began_at: int = field(default=0, compare=False)
    last_event: Seq = field(default=Seq(0), compare=False)  # the newest that was here when this life began


def begin(connection: sqlite3.Connection, site: str, *, now: int) -> Life:
    """The life of this store, which begins where it is new. Raises `ConfigError` where it is another site's."""
    found = find(connection)
    if found is None:
        connection.execute(_SQL.begin, (site, now))
        return Life(site=site, epoch=1, began_at=now)
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
    if row is None:
        return None
    site, epoch, fenced, is_gathering, began_at, last_event = row
    return Life(
        site=site,
        epoch=epoch,
        fenced=fenced,
        is_gathering=bool(is_gathering),
        began_at=began_at,
        last_event=Seq(last_event),
    )


def get(connection: sqlite3.Connection) -> Life:
    """The life of a store that was begun."""
    found = find(connection)
    if found is None:
        raise InvariantError("the store has no life yet: it was never started")
    return found


def begin_epoch(connection: sqlite3.Connection, *, now: int, least: int = 0, asked: str = "") -> Life:
    """End this life and begin the next, which is `least` or later; what nobody acknowledged goes with it.

    It gathers from the agents that were met, and from that of `asked`. Raises `InvariantError` in a store that was never started.
    """
    ended = get(connection)
    epoch = max(ended.epoch + 1, least)
    connection.execute(_SQL.begin_epoch, (epoch, now))
    connection.execute(_SQL.forget_nonces)
    connection.execute(_SQL.open_unproven)
    connection.execute(_SQL.await_answers, (epoch, asked))
    connection.execute(_SQL.gather)
    streams.renumber(connection, ended=ended.epoch, epoch=epoch)
    return get(connection)


def end_gathering(connection: sqlite3.Connection) -> bool:
    """The store goes on; answers whether it was gathering until now."""
    if not connection.execute(_SQL.end_gathering).rowcount:
        return False
    streams.end_marking(connection)
    return True


def fence(connection: sqlite3.Connection, why: str) -> bool:
    """This store may not go on until a restore begins its next epoch: it is older than what it said.

    Answers whether it could until now: the first reason stands.
    """
    return connection.execute(_SQL.fence, (why,)).rowcount > 0
