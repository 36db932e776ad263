"""The estate of the hub on its way to the sites: what each side says of it inside a unit of work. Decision 014."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from agent.identity.seal import Seal
from agent.sync.frames import Frame
from agent.sync.wire import BundleHead, Hello, Pull, Push
from state import audit, bundles, peers, unapplied
from state.bundles import Bundle, BundleState
from state.model.clock import Clock, to_millis
from state.model.ids import EstateHash

_log: Final = logging.getLogger("distctl.sync")

_UNSEALED: Final = "unsealed-bundle"
_NOTED_AGAIN_AFTER: Final = timedelta(days=1)

_MOST_WANTED: Final = 100
"""Estates that a site is asked for at once."""


class HubBundles:
    """The hub's side. Without a seal no bundle is handed out, and no estate is taken from a site."""

    def __init__(self, seal: Callable[[], Seal | None], clock: Clock) -> None:
        self._seal = seal
        self._clock = clock
        self._foreign: defaultdict[str, set[EstateHash]] = defaultdict(set)

    def greet(self, site: str) -> None:
        """A session of the site begins: it may bring again what it brought in vain."""
        self._foreign.pop(site, None)

    def head(self, connection: sqlite3.Connection) -> BundleHead | None:
        """What is in force here, under our seal."""
        issued, seal = _issued(connection), self._seal()
        return BundleHead.of(replace(issued, seal=seal.put_on(issued))) if issued and seal else None

    def news(self, connection: sqlite3.Connection, pull: Pull) -> BundleHead | None:
        """The same, for a site that takes bundles and has not heard of this one."""
        issued = _issued(connection)
        if issued is None or pull.bundle is None or pull.bundle >= issued.number:
            return None
        return self.head(connection)

    def outnumber(self, connection: sqlite3.Connection, hello: Hello) -> None:
        """This store was put back where a site has a later bundle of ours: what is in force now gets a number above that.

        A number that is not under our seal moves nothing, and is told of once a day.
        """
        last, theirs = _issued(connection), hello.bundle
        if last is None or theirs is None:
            return
        if theirs.number < last.number or (theirs.number, theirs.estate) == (last.number, last.estate):
            return
        now = self._clock.now()
        if not self._is_ours(theirs):
            _refuse(connection, hello.site, theirs, now)
            return
        issued = bundles.issue(connection, last.estate, by="agent", now=now, above=theirs.number)
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor="agent",
            action="issue",
            target="estate",
            reason=f"{hello.site} has bundle {theirs.number} of a life of this hub that ended",
            before={"bundle": last.number, "hash": last.estate},
            after={"bundle": issued.number if issued else last.number, "hash": last.estate},
        )

    def ours(self, connection: sqlite3.Connection, site: str, push: Push, frame: Frame) -> dict[EstateHash, bytes]:
        """Of the estates that came along, those that this hub once had in force: by any other a site could route as it likes."""
        sealed = {head.estate for head in push.bundles if self._is_ours(head)}
        self._foreign[site] |= (frame.estates.keys() - sealed) & self._waited_for(connection, site)
        return {known: document for known, document in frame.estates.items() if known in sealed}

    def wanted(self, connection: sqlite3.Connection, site: str) -> list[EstateHash]:
        """The estates for which events of the site wait, but for those that it brought in vain: the first, if they are many."""
        return sorted(self._waited_for(connection, site) - self._foreign[site])[:_MOST_WANTED]

    def _waited_for(self, connection: sqlite3.Connection, site: str) -> set[EstateHash]:
        """Who hands up an event has its estate; nobody is asked for one that another made up."""
        return unapplied.wanted(connection, peer=peers.number(connection, site))

    def _is_ours(self, head: BundleHead) -> bool:
        seal = self._seal()
        return seal is not None and seal.is_on(head.bundle())


def receive(connection: sqlite3.Connection, head: BundleHead | None) -> bool:
    """The hub says what is in force there; answers whether that is news."""
    return head is not None and bundles.receive(connection, head.bundle())


def last_received(connection: sqlite3.Connection) -> BundleHead | None:
    """What the hub said last."""
    last = bundles.last(connection)
    return BundleHead.of(last) if last is not None and last.seal else None


def last_number(connection: sqlite3.Connection) -> int:
    """The number of that, 0 before it said anything."""
    last = bundles.last(connection)
    return last.number if last is not None else 0


def wanted(connection: sqlite3.Connection) -> list[EstateHash]:
    """The estates that a site waits for: those of events, and the one that is to be in force."""
    return sorted(unapplied.wanted(connection) | bundles.wanted(connection))


def told(connection: sqlite3.Connection) -> dict[str, Any]:
    """What a site says of its bundles with its health: which is in force there, and which one it refuses and why."""
    in_force, last = bundles.in_force(connection), bundles.last(connection)
    said: dict[str, Any] = {}
    if in_force is not None:
        said |= {"number": in_force.number, "estate": in_force.estate, "state": in_force.state}
    if last is not None and last.state is BundleState.REFUSED:
        said |= {"refused": last.number, "reason": last.reason}
    return {"bundle": said} if said else {}


def sealed(connection: sqlite3.Connection, estates: Iterable[EstateHash]) -> list[BundleHead]:
    """Of these estates, the heads of those that the hub sealed once: what shows it that they are its own."""
    return [BundleHead.of(bundle) for bundle in bundles.sealed(connection, estates)]


def _issued(connection: sqlite3.Connection) -> Bundle | None:
    last = bundles.last(connection)
    return last if last is not None and last.state is BundleState.ISSUED else None


def _refuse(connection: sqlite3.Connection, site: str, theirs: BundleHead, now: datetime) -> None:
    target, since = f"agent {site}", to_millis(now - _NOTED_AGAIN_AFTER)
    lately = audit.entries(connection, target=target, action="refuse", since_ms=since)
    if any(entry.details.get("code") == _UNSEALED for entry in lately):
        return
    reason = (
        f"it says that it has bundle {theirs.number} ({theirs.estate[:8]}) of this hub, which is not under its seal"
    )
    _log.error("%s: %s", site, reason, extra={"site": site})
    audit.append(
        connection,
        at_ms=to_millis(now),
        actor="agent",
        action="refuse",
        target=target,
        reason=reason,
        details={"code": _UNSEALED},
    )
