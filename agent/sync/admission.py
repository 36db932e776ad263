"""Whether the store that speaks to the hub may go on, by its epoch and its nonce; if not, whose store is at fault. Pure.

A site's store that comes with what only a later or another store can have is fenced. The hub's own is where a site shows a nonce
that this hub issued and does not know: nobody else can make one, so no site can talk the hub into it.
`docs/decisions/010-sites-in-step.md` has the cases.
"""

from __future__ import annotations

from typing import Final

from agent.sync.fencing import standing_fence
from agent.sync.needs import Fence, Presented, Reason, judge_nonce
from agent.sync.proofs import Proofs
from agent.sync.wire import Head, Hello, Pull, Receipt
from state.life import Life
from state.model.errors import RejectedError, TransientError
from state.model.stream import BEGINNING, NO_NONCE, Mark
from state.model.visible import visible
from state.peers import Peer, PeerState
from state.streams import Marks

MOST_LIVES: Final = 10_000
"""So many epochs of a site may have begun and ended unknown to its hub: a store that follows it needs numbers that are left."""


def fence_of_hello(here: Life, peer: Peer, hello: Hello, proofs: Proofs) -> Fence | None:
    """The fence that is up, or that goes up: a hello may come with a nonce that this life of the site cannot have.

    Raises `RejectedError` for an epoch that no store can have come to.
    """
    if hello.epoch > peer.epoch + MOST_LIVES:
        raise RejectedError(
            f"the agent of {peer.site} says that it lives in epoch {hello.epoch}, and {peer.epoch} is known here",
            place="epoch",
            rule=f"a site's epoch rises by one with each restore or adoption: {MOST_LIVES:,} at once are none",
            shown=str(hello.epoch),
            hint="find out what runs there, and deny that agent until then: `distctl agents deny SITE --reason ...`",
            code="malformed:epoch",
        )
    return (
        _forgotten(here, peer, hello, proofs)
        or standing_fence(here, peer)
        or _fenced_itself(peer, hello)
        or _strange(here, peer, hello)
    )


def fence_of_call(here: Life, peer: Peer, said: Head) -> Fence | None:
    """The fence that is up, or that goes up: the store may be one of an earlier epoch.

    Raises `TransientError` for one that has to say hello first.
    """
    return standing_fence(here, peer) or _ended(peer, said)


def fence_of_receipt(here: Life, peer: Peer, receipt: Receipt, received: Marks, proofs: Proofs) -> Fence | None:
    """The hub's own fence, where it gave that receipt and has less; `received` is what it has of the same streams."""
    if receipt.epoch < here.epoch:
        return None  # a life that has ended said so
    lost = [tier for tier, mark in sorted(receipt.received.items()) if _is_lost(mark, received.get(tier, BEGINNING))]
    if (receipt.epoch == here.epoch and not lost) or not proofs.has_received(
        receipt.mark, site=peer.site, epoch=receipt.epoch, of=receipt.of, received=receipt.received
    ):
        return None
    told = ", ".join(f"{receipt.received[tier].seq} events of tier {tier}" for tier in lost) or "what it sent"
    detail = (
        f"{peer.site} has a receipt of epoch {receipt.epoch} for {told}, which was given here and is not known here"
    )
    return Fence(here.site, Reason.REWOUND, detail)


def fence_of_pull(here: Life, peer: Peer, pull: Pull, proofs: Proofs) -> Fence | None:
    """As of any call, or by the nonce that the pull uses up. Raises as `fence_of_call`."""
    return (
        _forgotten(here, peer, pull, proofs) or fence_of_call(here, peer, pull) or _pulled_by_another(here, peer, pull)
    )


def require_not_overtaken(peer: Peer, pull: Pull) -> None:
    """A pull that was in order when it came has waited since: its site may have hung up, come again and gone on."""
    if peer.nonce_before is not None and pull.nonce.count < peer.nonce_before.count:
        raise TransientError("a later call of this site was answered", hint="it has hung up", code="overtaken")


def has_used_a_nonce(peer: Peer) -> bool:
    """Whether a site has come with a nonce of ours in this life."""
    return peer.attempt != ""


def _is_lost(mark: Mark, has: Mark) -> bool:
    return has.seq < mark.seq or (has.seq == mark.seq and has.chain != mark.chain)


def _forgotten(here: Life, peer: Peer, said: Hello | Pull, proofs: Proofs) -> Fence | None:
    """Whether this hub issued the nonce in its present life, or in one that it knows nothing of, and has no record of it.

    Of those that were used up none is kept but the last: a lower count says nothing.
    """
    nonce, last = said.nonce, peer.nonce
    if here.fenced or nonce is None or said.peer_epoch < here.epoch:
        return None
    is_known = last is not None and (nonce.count < last.count or nonce == last)
    if said.peer_epoch == here.epoch and is_known:
        return None
    if not proofs.has_issued(nonce, site=peer.site, epoch=said.peer_epoch):
        return None
    detail = (
        f"{peer.site} holds nonce {nonce.count} of epoch {said.peer_epoch}, which was issued here and is not known here"
    )
    return Fence(here.site, Reason.REWOUND, detail)


def _fenced_itself(peer: Peer, hello: Hello) -> Fence | None:
    """Whether the site found that two stores wrote under its name: a hub sees of a hello only where streams end."""
    if not hello.fenced or hello.epoch < peer.epoch or peer.state is PeerState.ADOPTING:
        return None
    return Fence(peer.site, Reason.FORKED, visible(hello.fenced))


def _strange(here: Life, peer: Peer, hello: Hello) -> Fence | None:
    if peer.nonce is None or hello.epoch != peer.epoch or peer.state is PeerState.ADOPTING:
        return None
    if not has_used_a_nonce(peer) or hello.nonce in (peer.nonce, peer.nonce_before):
        return None
    count = hello.nonce.count if hello.nonce else -1
    return _judged(here, peer, hello, Presented.AHEAD if count > peer.nonce.count else Presented.FOREIGN)


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
    return _judged(here, peer, pull, presented)


def _judged(here: Life, peer: Peer, said: Head, presented: Presented) -> Fence | None:
    match presented:
        case Presented.CURRENT | Presented.AGAIN:
            return None
        case Presented.AHEAD if said.peer_epoch >= here.epoch:
            return Fence(
                peer.site, Reason.UNPROVEN, "it holds a later nonce than is known here, and not one of this hub"
            )
        case Presented.AHEAD:
            return Fence(peer.site, Reason.CLONED, f"its nonce is of epoch {said.peer_epoch} here, which has ended")
        case Presented.FOREIGN:
            return Fence(
                peer.site, Reason.CLONED, "it came with a nonce that was used before, by it or by another store"
            )
