"""Ids and hashes: what makes two readings of one record the same event.

All ids are deterministic functions of content, so that reading again, restoring and replaying give the ids of the first time.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NewType

EventId = NewType("EventId", str)
"""32 hexadecimal digits: the first eight name the batch, so that ids of one batch are neighbours in an index."""

Seq = NewType("Seq", int)
"""The local sequence of an event in one store."""

DeliveryId = NewType("DeliveryId", int)
LaneId = NewType("LaneId", int)
EstateHash = NewType("EstateHash", str)
Fence = NewType("Fence", int)
"""Number of a lease; a settling that carries an older one is refused."""


def digest(*parts: str | bytes, size: int = 32) -> bytes:
    """BLAKE2b over parts that are joined with their lengths; `size` in bytes."""
    return hashlib.blake2b(_with_lengths(*parts), digest_size=size).digest()


def event_id(*, source: str, flow: str, batch: str, position: str, key: str, content: bytes) -> EventId:
    """The id of an event read from a source.

    `batch` names the file or page, `position` the place in it: two changes in one second stay two events, while reading the
    same record again makes the same id.
    """
    name, begun = _of_batch(source, flow, batch)
    hashing = begun.copy()
    hashing.update(_with_lengths(position, key, content))
    return EventId(name + hashing.hexdigest())


def outcome_id(*, delivery_event: EventId, target: str, life: int, revision: int) -> EventId:
    """The id of an outcome: (delivery, life of its store, revision); of the latest life the highest revision wins."""
    told = digest("outcome", delivery_event, target, str(life), str(revision), size=12)
    return EventId(delivery_event[:8] + told.hex())


def idempotency_key(*, event: EventId, target: str, version: int) -> str:
    """What a target remembers us by: 32 hexadecimal digits from (event, target, amendment version)."""
    return digest("idempotency", event, target, str(version), size=16).hex()


def sha256(raw: bytes) -> str:
    """The hexadecimal SHA-256 of `raw`, as shown to people and stored beside raw bytes."""
    return hashlib.sha256(raw).hexdigest()


def _with_lengths(*parts: str | bytes) -> bytes:
    raw = [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]
    return b"".join([b"%d\x1f%b" % (len(part), part) for part in raw])


@lru_cache(maxsize=64)
def _of_batch(source: str, flow: str, batch: str) -> tuple[str, hashlib.blake2b]:
    """What all ids of a batch begin with, and their hash as far as it is the same: to be copied, never updated."""
    common = _with_lengths(source, flow, batch)
    return hashlib.blake2b(common, digest_size=4).hexdigest(), hashlib.blake2b(common, digest_size=12)
