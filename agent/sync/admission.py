"""Whether the store that speaks to the hub may go on, by its epoch and its nonce; if not, whose store is at fault. Pure.

A site's store that comes with what only a later or another store can have is fenced, and the hub's own where it is the hub that
has forgotten. `docs/decisions/010-sites-in-step.md` has the cases.
"""

from __future__ import annotations

from typing import Final

from agent.sync.fencing import standing_fence
from agent.sync.needs import Fence, Presented, Reason, judge_nonce
from agent.sync.wire import Head, Hello, Pull
from state.life import Life
from state.model.errors import RejectedError, TransientError
from state.model.stream import NO_NONCE
from state.peers import Peer, PeerState

MOST_LIVES: Final = 10_000
"""So many epochs of a site may have begun and ended unknown to its hub: a store that follows it needs numbers that are left."""


def fence_of_hello(here: Life, peer: Peer, hello: Hello) -> Fence | None:
    """The fence that is up, or that goes up: a hello may come with a nonce that this life of the site cannot have.

    Raises `RejectedError` for an epoch that no store can have come to.
    """
    if hello.epoch > peer.epoch + MOST_LIVES:
        raise RejectedError(
            f"the agent of {peer.site} says that it lives in epoch {hello.epoch}, and {peer.epoch} is known here",
            place="epoch",
            rule=f"a site's epoch rises by one with each restore or adoption: {MOST_LIVES:,} at once are none",
            shown=str(hello.epoch),
            hint="find out what runs there, and deny that agent until then: `distctl agents deny`",
            code="malformed:epoch",
        )
    return standing_fence(here, peer) or _strange(here, peer, hello)


def fence_of_call(here: Life, peer: Peer, said: Head) -> Fence | None:
    """The fence that is up, or that goes up: the store may be one of an earlier epoch.

    Raises `TransientError` for one that has to say hello first.
    """
    return standing_fence(here, peer) or _ended(peer, said)


def fence_of_pull(here: Life, peer: Peer, pull: Pull) -> Fence | None:
    """As of any call, or by the nonce that the pull uses up. Raises as `fence_of_call`."""
    return fence_of_call(here, peer, pull) or _pulled_by_another(here, peer, pull)


def require_not_overtaken(peer: Peer, pull: Pull) -> None:
    """A pull that was in order when it came has waited since: its site may have hung up, come again and gone on."""
    if peer.nonce_before is not None and pull.nonce.count < peer.nonce_before.count:
        raise TransientError("a later call of this site was answered", hint="it has hung up", code="overtaken")


def has_used_a_nonce(peer: Peer) -> bool:
    """Whether a site has come with a nonce of ours in this life."""
    return peer.attempt != ""


def _strange(here: Life, peer: Peer, hello: Hello) -> Fence | None:
    if peer.nonce is None or hello.epoch != peer.epoch or peer.state is PeerState.ADOPTING:
        return None
    if not has_used_a_nonce(peer) or hello.nonce in (peer.nonce, peer.nonce_before):
        return None
    count = hello.nonce.count if hello.nonce else -1
    return _judged(here, peer, Presented.AHEAD if count > peer.nonce.count else Presented.FOREIGN)


def _ended(peer: Peer, said: Head) -> Fence | None:
    if said.epoch < peer.epoch:
        detail = f"it speaks for epoch {said.epoch}, and its epoch {peer.epoch} has begun"
        return Fence(peer.site, Reason.ENDED, detail)
    if said.epoch > peer.epoch or peer.state is PeerState.ADOPTING:
        raise TransientError("the hub does not know this epoch yet", hint="say hello first", code="hello")
    return None


def _pulled_by_another(here: Life, peer: Peer, pull: Pull) -> Fence | None:
    presented = judge_nonce(
        pull.nonce,
        pull.attempt,
        issued=peer.nonce or NO_NONCE,
        before=peer.nonce_before,
        attempt_before=peer.attempt,
    )
    return _judged(here, peer, presented)


def _judged(here: Life, peer: Peer, presented: Presented) -> Fence | None:
    match presented:
        case Presented.CURRENT | Presented.AGAIN:
            return None
        case Presented.AHEAD:
            return Fence(here.site, Reason.REWOUND, f"{peer.site} holds a later nonce than was ever issued here")
        case Presented.FOREIGN:
            return Fence(
                peer.site, Reason.CLONED, "it came with a nonce that was used before, by it or by another store"
            )
