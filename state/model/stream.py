"""Streams: the events one agent sends another, counted without gaps and chained by hash.

A stream is (sender, epoch, receiver, tier). Its sequence and its chain say how far it goes, and that both ends mean the same
events: chain n is SHA-256 over chain n-1, the event's id and its data. The receiver's mark deduplicates for ever; no window of
time is involved.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Self

from state.model.errors import RejectedError
from state.model.ids import EventId

CHAIN_BYTES: Final = 32
_LONGEST_COUNT: Final = 19


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a stream goes: its last sequence, and the chain there."""

    seq: int
    chain: bytes

    def after(self, event: EventId, data: bytes) -> Mark:
        """The mark of the stream with one more event."""
        return Mark(self.seq + 1, hashlib.sha256(self.chain + bytes.fromhex(event) + data).digest())


BEGINNING: Final = Mark(0, bytes(CHAIN_BYTES))
"""The mark of a stream that carried nothing yet."""


@dataclass(frozen=True, slots=True, order=True)
class Nonce:
    """The single-use number of an exchange: `count` says how many there were, `secret` which store was there."""

    count: int
    secret: str

    def next(self, secret: str) -> Nonce:
        """The nonce after this one, with a secret that nobody used before."""
        return Nonce(self.count + 1, secret)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The nonce that `str` wrote. Raises `RejectedError`."""
        count, dot, secret = text.partition(".")
        if not (dot and secret and count.isascii() and count.isdecimal() and len(count) < _LONGEST_COUNT):
            raise RejectedError(
                "the nonce cannot be read",
                rule="a nonce is a count, a dot and a secret",
                hint="both agents must speak one version of the exchange",
                code="nonce",
            )
        return cls(int(count), secret)

    def __str__(self) -> str:
        """As it travels: `17.9f2c...`."""
        return f"{self.count}.{self.secret}"


NO_NONCE: Final = Nonce(0, "")
"""Before the first; nobody was ever given it."""
