"""What is remembered of files that were taken, so that none is taken twice and none is missed. Pure.

A file is remembered by four items, in one transaction with its last records: its delivery (name, size, hash), its content (size,
hash), itself (inode, time, size, hash; this one survives a change of name) and, if it was bad as a whole, that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from connectors.files.folder import Fingerprint
from state.model.ids import digest

ITEM_SIZE: Final = 16  # bytes of BLAKE2b


class Verdict(Enum):
    """What to do with a file."""

    NEW = "new"  # read it
    NEW_AGAIN = "new again"  # read it; equal bytes were taken before, and these are others
    DONE = "done"  # taken already: archive it
    SPOILED = "spoiled"  # taken already and bad as a whole: quarantine it
    ASK = "ask"  # a person decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one file from another. `changed_ns` is the inode's own time, which a rename moves."""

    name: str
    sha256: str
    fingerprint: Fingerprint
    changed_ns: int

    @property
    def delivery(self) -> str:
        """This name with these bytes."""
        return _item("delivery", self.name, self._size, self.sha256)

    @property
    def content(self) -> str:
        """These bytes."""
        return _item("content", self._size, self.sha256)

    @property
    def itself(self) -> str:
        """This very file, whatever it is called."""
        return _item("itself", *self._traits)

    @property
    def spoiled(self) -> str:
        """This very file, and that it was bad as a whole."""
        return _item("spoiled", *self._traits)

    @property
    def asked(self) -> str:
        """That a person was asked about this very file."""
        return _item("asked", *self._traits)

    @property
    def asked_here(self) -> str:
        """The same, and that it was not moved since."""
        return _item("asked", *self._traits, str(self.changed_ns))

    @property
    def items(self) -> set[str]:
        """Everything that a judgement looks up."""
        return {self.delivery, self.content, self.itself, self.spoiled, self.asked, self.asked_here}

    @property
    def second_key(self) -> str:
        """The document key of equal bytes that are new all the same; the same each time this file is read."""
        return f"{self.sha256}-{_item('again', self.name, str(self.fingerprint.modified_ns))}"

    def remembered(self, *, is_spoiled: bool) -> tuple[str, ...]:
        """The items of a file whose last record was taken."""
        known = () if not self.fingerprint.size else (self.delivery, self.content)
        return (*known, self.itself, *((self.spoiled,) if is_spoiled else ()))

    @property
    def _size(self) -> str:
        return str(self.fingerprint.size)

    @property
    def _traits(self) -> tuple[str, str, str, str]:
        return str(self.fingerprint.inode), str(self.fingerprint.modified_ns), self._size, self.sha256


def judge(
    identity: Identity, known: Collection[str], *, same_content: Literal["ask", "skip", "take"], reused_names: bool
) -> Verdict:
    """What to do with a file of which `known` is remembered."""
    if identity.spoiled in known:
        return Verdict.SPOILED
    if identity.itself in known:
        return Verdict.DONE
    if identity.asked in known:  # in quarantine before; whoever put it back has decided
        return Verdict.SPOILED if identity.asked_here in known else Verdict.NEW_AGAIN
    if identity.delivery in known and not reused_names:
        return Verdict.DONE
    if identity.content not in known:
        return Verdict.NEW
    return {"ask": Verdict.ASK, "skip": Verdict.DONE, "take": Verdict.NEW_AGAIN}[same_content]


def refused_item(name: str, kind: str, fingerprint: Fingerprint) -> str:
    """That this was refused without being read."""
    return _item(
        "refused", name, kind, *(str(one) for one in (fingerprint.inode, fingerprint.size, fingerprint.modified_ns))
    )


def _item(*parts: str) -> str:
    return digest(*parts, size=ITEM_SIZE).hex()
