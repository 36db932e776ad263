"""What two agents need of each other, decided from what each says of their streams. Pure.

Each side looks with `compute_needs` at its own standing and at the other's, so both come to the same answer about the same
marks: whose store is older than what it said, whether two stores wrote under one name, or from where each stream goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from state.model.ids import EventId
from state.model.stream import BEGINNING, Mark, Nonce

Tier: TypeAlias = int


class Reason(StrEnum):
    """Why a link is fenced."""

    REWOUND = "rewound"  # the store is older than what it said
    FORKED = "forked"  # two stores wrote different events under one sequence
    CLONED = "cloned"  # two stores have one identity, or one is an old copy
    ENDED = "ended"  # the store's life ended: the site has begun a later epoch
    GAP = "gap"  # what came does not follow what is there
    UNPROVEN = "unproven"  # it says of the other's store what that does not know, and what nothing proves


@dataclass(frozen=True, slots=True)
class Fence:
    """Nothing may be exchanged: the store of `site` is at fault, and a person decides."""

    site: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one agent says of the streams between it and another."""

    site: str
    epoch: int
    sent: Mapping[Tier, Mark] = field(default_factory=dict)  # in its own epoch: where each stream ends
    acknowledged: Mapping[Tier, Mark] = field(default_factory=dict)  # in its own epoch: what it was told the other has
    peer_epoch: int = 0  # the newest epoch of the other that it knows; 0: they never met
    received: Mapping[Tier, Mark] = field(default_factory=dict)  # of the other's epoch `peer_epoch`
    epoch_before: int = 0  # the newest life of the other before that one of which anything was received; 0: none
    received_before: Mapping[Tier, Mark] = field(default_factory=dict)  # of `epoch_before`
    epoch_ended: int = 0  # the newest of its own ended lives in which it sent the other anything; 0: none
    acknowledged_ended: Mapping[Tier, Mark] = field(default_factory=dict)  # of that one


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """From where the other needs each stream: everything after the mark."""

    after: Mapping[Tier, Mark]
    is_resupply: bool  # the other lost what it had acknowledged, which its new epoch admits


def compute_needs(mine: Standing, theirs: Standing, chains: Mapping[Tier, bytes]) -> Needs | Fence:
    """What the other needs of me, or why neither may go on.

    `chains` are my own chains at the sequences that the other says it has, for those that I still hold.
    """
    return (
        _ended(mine, theirs)
        or _ended(theirs, mine)
        or _rewound_sender(theirs, mine)
        or _rewound_sender(mine, theirs)
        or _rewound_receiver(mine, theirs)
        or _rewound_receiver(theirs, mine)
        or _forked(mine, theirs, chains)
        or _needs(mine, theirs)
    )


def held_of_ended(mine: Standing, theirs: Standing) -> tuple[int, Mapping[Tier, Mark]] | None:
    """The last of my ended epochs of which the other has anything, and what; None where it has some of my present one.

    What was acknowledged in an ended epoch was not carried over, so where the other lost that too, its marks there tell.
    """
    if theirs.peer_epoch < mine.epoch:
        return theirs.peer_epoch, theirs.received
    return None if theirs.received else (theirs.epoch_before, theirs.received_before)


def _ended(one: Standing, other: Standing) -> Fence | None:
    """Whether `other` knows a later life of `one`."""
    if one.epoch >= other.peer_epoch:
        return None
    return Fence(
        one.site, Reason.ENDED, f"it speaks for epoch {one.epoch}, and {other.site} knows epoch {other.peer_epoch}"
    )


def _rewound_sender(sender: Standing, receiver: Standing) -> Fence | None:
    """Whether the receiver has more than the sender knows to have sent."""
    if receiver.peer_epoch != sender.epoch:
        return None
    for tier, mark in sorted(receiver.received.items()):
        end = sender.sent.get(tier, BEGINNING)
        if mark.seq > end.seq:
            detail = f"{receiver.site} has {mark.seq} events of tier {tier} from it, and it knows of {end.seq}"
            return Fence(sender.site, Reason.REWOUND, detail)
        if mark.seq == end.seq and mark.chain != end.chain:
            return _fork(sender, tier, mark)
    return None


def _rewound_receiver(sender: Standing, receiver: Standing) -> Fence | None:
    """Whether the receiver has less than it acknowledged, in a life that is still the same."""
    if receiver.epoch != sender.peer_epoch:
        return None
    for tier, mark in sorted(sender.acknowledged.items()):
        has = _has(sender, receiver, tier)
        if has.seq < mark.seq:
            detail = f"it acknowledged {mark.seq} events of tier {tier} from {sender.site}, and has {has.seq}"
            return Fence(receiver.site, Reason.REWOUND, detail)
    return None


def _forked(mine: Standing, theirs: Standing, chains: Mapping[Tier, bytes]) -> Fence | None:
    """Whether they have other events than mine under a sequence of mine."""
    for tier, chain in sorted(chains.items()):
        mark = _has(mine, theirs, tier)
        if chain != mark.chain:
            return _fork(mine, tier, mark)
    return None


def _fork(sender: Standing, tier: Tier, mark: Mark) -> Fence:
    detail = f"event {mark.seq} of its tier {tier} is one event here and another there"
    return Fence(sender.site, Reason.FORKED, detail)


def _needs(mine: Standing, theirs: Standing) -> Needs:
    after = {tier: _has(mine, theirs, tier) for tier in mine.sent}
    behind = any(after[tier].seq < mark.seq for tier, mark in mine.acknowledged.items() if tier in after)
    return Needs(after=after, is_resupply=behind)


def _has(sender: Standing, receiver: Standing, tier: Tier) -> Mark:
    """What the receiver has of the sender's present epoch."""
    return receiver.received.get(tier, BEGINNING) if receiver.peer_epoch == sender.epoch else BEGINNING


# --- one frame ----------------------------------------------------------------------------------------------------


def fit(mark: Mark, after: Mark, items: Sequence[tuple[EventId, bytes]]) -> int | Reason:
    """How many of `items`, which follow `after`, are there already by the receiver's `mark`; or why they do not fit.

    A frame that is sent again overlaps what its first sending brought; its chain must lead to the mark.
    """
    if after.seq > mark.seq:
        return Reason.GAP
    reached = after
    for known, (event, data) in enumerate(items):
        if reached.seq == mark.seq:
            return known if reached.chain == mark.chain else Reason.FORKED
        reached = reached.after(event, data)
    if reached.seq < mark.seq:
        return Reason.GAP  # all of it is older than the mark, so nothing shows that it is the same
    return len(items) if reached.chain == mark.chain else Reason.FORKED


# --- the nonce ----------------------------------------------------------------------------------------------------


class Presented(StrEnum):
    """What a nonce that is presented says."""

    CURRENT = "current"
    AGAIN = "again"  # the reply was lost
    AHEAD = "ahead"  # later than any that is known here: whether it was issued its mark tells
    FOREIGN = "foreign"  # a second store has this identity, or an old copy of it


def judge_nonce(given: Nonce, attempt: str, *, issued: Nonce, before: Nonce | None, attempt_before: str) -> Presented:
    """What `given` says, where `issued` is the last one, and `before` the one that it replaced.

    A store chooses its `attempt` when it stores a nonce and keeps it until the reply is stored: a lost reply is asked for again
    with the same one, while two stores that were given one nonce choose different ones.
    """
    if given == issued:
        return Presented.CURRENT
    if given == before and attempt == attempt_before:
        return Presented.AGAIN
    return Presented.AHEAD if given.count > issued.count else Presented.FOREIGN
