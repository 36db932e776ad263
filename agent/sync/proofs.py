"""What proves to a hub that it said something which its store does not know: marks that nobody else can make.

The secret of a nonce is 32 hexadecimal digits of chance and 32 of a mark; a receipt for what was pushed is its mark alone. A mark
is an HMAC-SHA-256, cut to 128 bits, over what it is of, the site that it is for and the epoch of the hub, under a key derived
from that of the hub's authority. A site keeps both as they came and shows them at its next hello.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from agent.identity.seal import Seal
from agent.sync.frames import mark_text
from state.model.stream import Nonce
from state.streams import Marks

_DIGITS: Final = 32


class Proofs:
    """What a hub gives out. Without a seal its nonces are good, and nothing that its store has forgotten is proven."""

    def __init__(self, seal: Callable[[], Seal | None], chance: Callable[[], str]) -> None:
        """`chance` makes what nobody can guess."""
        self._seal = seal
        self._chance = chance
        self._derived: tuple[object, bytes] | None = None  # from the key of the authority that was there last

    def next_nonce(self, before: Nonce, *, site: str, epoch: int) -> Nonce:
        """The nonce after `before` for the agent of `site`, in that epoch of the hub."""
        plain = before.next(self._chance())
        return Nonce(plain.count, plain.secret + self._of_nonce(plain.count, plain.secret, site, epoch))

    def has_issued(self, nonce: Nonce, *, site: str, epoch: int) -> bool:
        """Whether a store of this hub made the nonce, for that site in that epoch."""
        chance, mark = nonce.secret[:-_DIGITS], nonce.secret[-_DIGITS:]
        return _are_same(mark, self._of_nonce(nonce.count, chance, site, epoch))

    def receipt(self, *, site: str, epoch: int, of: int, received: Marks) -> str:
        """The mark under this: in that epoch of the hub so much is here of what the site sends in its epoch `of`."""
        streams = [f"{tier}:{mark_text(mark)}" for tier, mark in sorted(received.items())]
        return self._mark("receipt", site, epoch, of, *streams)

    def has_received(self, receipt: str, *, site: str, epoch: int, of: int, received: Marks) -> bool:
        """Whether a store of this hub gave that receipt."""
        return _are_same(receipt, self.receipt(site=site, epoch=epoch, of=of, received=received))

    def _of_nonce(self, count: int, chance: str, site: str, epoch: int) -> str:
        return self._mark("nonce", site, epoch, count, chance)

    def _mark(self, *words: str | int) -> str:
        seal = self._seal()
        if seal is None:
            return ""
        if self._derived is None or self._derived[0] is not seal.key:
            self._derived = seal.key, seal.key_of_proofs()
        return hmac.new(self._derived[1], "\n".join(map(str, words)).encode(), sha256).hexdigest()[:_DIGITS]


def _are_same(shown: str, made: str) -> bool:
    return bool(made) and hmac.compare_digest(shown.encode(), made.encode())
