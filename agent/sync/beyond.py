"""What lies beyond retention: at a hello each says where its streams begin, and who has less passes over what is missing.

That is done in the transaction of the hello and after every fence was judged, on the marks as they were: who is older than what
it said in the same life is fenced and passes over nothing. The receiver notes a gap and tells of it at each hello, so that the
sender knows as well, whichever reply was lost. A hub believes a site what can be true of that, and nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from agent.sync.needs import Fence, Reason, Standing
from agent.sync.wire import Hello, Welcome, WireBeginning, WireGap
from state import audit, gaps
from state.gaps import Beginning, Beginnings, Gap
from state.life import Life
from state.model.clock import to_millis
from state.model.errors import RejectedError
from state.model.stream import BEGINNING, Mark
from state.peers import Peer

_log: Final = logging.getLogger("distctl.sync")
_TOLD: Final = 100
"""Gaps of one link that are told at a hello, the newest of them."""

_MOST: Final = 1_000
"""Gaps of one link that are kept, each way: three hundred restores would not make them."""


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
    if behind := _behind_its_end(said):
        raise RejectedError(
            behind,
            place="begins",
            rule="a stream begins where its first events were let go, and ends behind that",
            hint="this is a fault of that agent: report it with the versions of both",
            code="malformed:begins",
        )
    if 0 < peer.epoch < said.epoch:
        lost = _not_given_back(connection, peer, said)
        _note(connection, gaps.add(connection, peer.id, lost, is_ours=False, now=now), here, peer, now=now)
    missing = gaps.pass_over(connection, peer.id, _by_stream(said), upto_epoch=said.epoch, now=now)
    _note(connection, missing, here, peer, now=now)
    news = gaps.add(connection, peer.id, (one.gap() for one in said.gaps), is_ours=True, now=now)
    _note(connection, news, here, peer, now=now, is_ours=True)


def untrue(connection: sqlite3.Connection, here: Life, peer: Peer, said: Hello) -> Fence | None:
    """What a site says of it that cannot be, which closes its link: a hub takes no gap on a site's word alone.

    A site lets go of what this hub acknowledged, so this hub lacks some of it only where it was put back since: of each stream
    at most once for each life that ended. And a site misses of ours what was let go here, as far as this life did that.
    """
    known = gaps.list_all(connection, peer.id)
    what = _no_beginning(connection, here, peer, said, known) or _no_gap(connection, here, peer, said, known)
    return Fence(peer.site, Reason.UNPROVEN, what) if what else None


def _no_beginning(
    connection: sqlite3.Connection, here: Life, peer: Peer, said: Hello, known: Sequence[Gap]
) -> str | None:
    if behind := _behind_its_end(said):
        return behind
    theirs = [gap for gap in known if not gap.is_ours]
    lives = Counter((gap.epoch, gap.tier) for gap in theirs if not gap.of_give_back)
    missing = gaps.missing(connection, peer.id, _by_stream(said), upto_epoch=said.epoch)
    for gap in missing:
        if lives[gap.epoch, gap.tier] >= here.epoch - 1:
            lost = "nothing" if here.epoch == 1 else f"no more of it in {here.epoch - 1} restores"
            return (
                f"its stream of tier {gap.tier} of epoch {gap.epoch} is said to begin behind {gap.last}, of which "
                f"{here.site} has {gap.first - 1} and has lost {lost}"
            )
    is_more = bool(missing) or peer.epoch < said.epoch
    return _too_many(len(theirs) + len(missing)) if is_more else None


def _no_gap(connection: sqlite3.Connection, here: Life, peer: Peer, said: Hello, known: Sequence[Gap]) -> str | None:
    told = {(gap.epoch, gap.tier, gap.first) for gap in known if gap.is_ours}
    news = [one for one in said.gaps if (one.epoch, one.tier, one.first) not in told]
    let_go = gaps.beginnings(connection, peer.id).get(here.epoch, {})
    for one in news:
        upto = let_go[one.tier].mark.seq if one.tier in let_go else 0
        if one.epoch > here.epoch or (one.epoch == here.epoch and one.last > upto):
            return (
                f"events up to {one.last} of tier {one.tier} of epoch {one.epoch} of {here.site} are said to be let go, "
                f"and those up to {upto} are"
            )
    return _too_many(len(told) + len(news)) if news else None


def _too_many(count: int) -> str | None:
    return f"{count:,} gaps are told of, and {_MOST:,} are more than there can be" if count > _MOST else None


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
    what = f"events {gap.first:,} to {gap.last:,} of tier {gap.tier} of {sender} ({times}, epoch {gap.epoch})"
    if gap.of_give_back:
        return f"of {what}, which {sender} has lost, {receiver} gave back those that were not beyond retention there"
    return f"{what} are beyond retention and are not at {receiver}"


def _past(marks: Mapping[int, Mark], begin: Mapping[int, Beginning]) -> Mapping[int, Mark]:
    passed = {tier: one.mark for tier, one in begin.items() if one.mark.seq > marks.get(tier, BEGINNING).seq}
    return {**marks, **passed}


def _not_given_back(connection: sqlite3.Connection, peer: Peer, said: Hello | Welcome) -> Sequence[Gap]:
    """What the peer, which has begun a new life, handed over here in one that ended, and does not get back from here."""
    return gaps.not_given_back(
        connection, peer.id, ended=said.epoch_ended, marks=said.acknowledged_ended, epoch=said.epoch
    )


def _by_stream(said: Hello | Welcome) -> Beginnings:
    found: dict[int, dict[int, Beginning]] = {}
    for one in said.begins:
        found.setdefault(one.epoch, {})[one.tier] = one.beginning()
    return found


def _behind_its_end(said: Hello | Welcome) -> str | None:
    for one in said.begins:
        end = said.sent.get(one.tier, BEGINNING).seq
        if one.epoch == said.epoch and one.mark.seq > end:
            return f"the stream of tier {one.tier} of {said.site} begins behind its end: {one.mark.seq} of {end}"
    return None


def _note(
    connection: sqlite3.Connection, found: Iterable[Gap], here: str, peer: Peer, *, now: datetime, is_ours: bool = False
) -> None:
    sender, receiver = (here, peer.site) if is_ours else (peer.site, here)
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
