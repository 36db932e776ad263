"""What lies beyond retention: at a hello each says where its streams begin, and who has less passes over what is missing.

That is done in the transaction of the hello and after every fence was judged, on the marks as they were: who is older than what
it said in the same life is fenced and passes over nothing. The receiver notes a gap and tells of it at each hello, so that the
sender knows as well, whichever reply was lost.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from agent.sync.needs import Standing
from agent.sync.wire import Hello, Welcome, WireBeginning, WireGap
from state import audit, gaps
from state.gaps import Beginning, Beginnings, Gap
from state.model.clock import to_millis
from state.model.errors import RejectedError
from state.model.stream import BEGINNING, Mark
from state.peers import Peer

_log: Final = logging.getLogger("distctl.sync")
_TOLD: Final = 100
"""Gaps of one link that are told at a hello, the newest of them."""


def told(connection: sqlite3.Connection, peer: Peer) -> Mapping[str, Any]:
    """What an introduction to `peer` says of it."""
    begins = [
        WireBeginning.of(epoch, tier, one)
        for epoch, tiers in gaps.beginnings(connection, peer.id).items()
        for tier, one in tiers.items()
    ]
    found = [gap for gap in gaps.list_all(connection, peer.id) if not gap.is_ours]
    return {"begins": begins, "gaps": [WireGap.of(gap) for gap in found[-_TOLD:]]}


def pass_over(connection: sqlite3.Connection, here: str, peer: Peer, said: Hello | Welcome, *, now: datetime) -> None:
    """Go on where the streams of `peer` begin, and keep what either side misses, audited.

    Raises `RejectedError` where a stream is said to begin behind its end.
    """
    missing = gaps.pass_over(connection, peer.id, _beginnings(said), upto_epoch=said.epoch, now=now)
    _note(connection, missing, sender=peer.site, receiver=here, peer=peer, now=now)
    news = gaps.add(connection, peer.id, (one.gap() for one in said.gaps), is_ours=True, now=now)
    _note(connection, news, sender=here, receiver=peer.site, peer=peer, now=now)


def after_passing(theirs: Standing, epoch: int, begin: Beginnings) -> Standing:
    """What the other says once it has passed over what was let go of our streams; `epoch` is our present one.

    Where the present streams begin further on, nothing of those before is left, so the other is as one that knows the present.
    """
    if present := begin.get(epoch):
        received = theirs.received if theirs.peer_epoch == epoch else {}
        return replace(theirs, peer_epoch=epoch, received=_past(received, present))
    return replace(
        theirs,
        received=_past(theirs.received, begin.get(theirs.peer_epoch, {})),
        received_before=_past(theirs.received_before, begin.get(theirs.epoch_before, {})),
    )


def sentence(gap: Gap, *, sender: str, receiver: str) -> str:
    """What is missing, for a person: `events 1,204 to 3,377 of tier 2 of dc-north (2026-10-01 to 2026-10-08)`."""
    times = f"{gap.since:%Y-%m-%d} to {gap.until:%Y-%m-%d}" if gap.since else f"until {gap.until:%Y-%m-%d}"
    return (
        f"events {gap.first:,} to {gap.last:,} of tier {gap.tier} of {sender} ({times}, epoch {gap.epoch}) are beyond "
        f"retention and are not at {receiver}"
    )


def _past(marks: Mapping[int, Mark], begin: Mapping[int, Beginning]) -> Mapping[int, Mark]:
    passed = {tier: one.mark for tier, one in begin.items() if one.mark.seq > marks.get(tier, BEGINNING).seq}
    return {**marks, **passed}


def _beginnings(said: Hello | Welcome) -> Beginnings:
    found: dict[int, dict[int, Beginning]] = {}
    for one in said.begins:
        end = said.sent.get(one.tier, BEGINNING)
        if one.epoch == said.epoch and one.mark.seq > end.seq:
            raise RejectedError(
                f"the stream of tier {one.tier} of {said.site} begins behind its end",
                place="begins",
                rule="a stream begins where its first events were let go, and ends behind that",
                shown=f"{one.mark.seq} of {end.seq}",
                hint="this is a fault of that agent: report it with the versions of both",
                code="malformed:begins",
            )
        found.setdefault(one.epoch, {})[one.tier] = one.beginning()
    return found


def _note(
    connection: sqlite3.Connection, found: Iterable[Gap], *, sender: str, receiver: str, peer: Peer, now: datetime
) -> None:
    for gap in found:
        text = sentence(gap, sender=sender, receiver=receiver)
        _log.error("%s", text, extra={"site": peer.site})
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor="agent",
            action="note gap",
            target=f"agent {peer.site}",
            reason=text,
            details={
                "sender": sender,
                "receiver": receiver,
                "epoch": gap.epoch,
                "tier": gap.tier,
                "first": gap.first,
                "last": gap.last,
            },
        )
