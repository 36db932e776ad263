"""What an agent says of audits with a hello and a pull, and with their answers: of its own, and of the other's.

It is additive: an agent that leaves it out keeps no copies and gives none.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from agent.sync.frames import mark_text, parse_mark
from state.audit import GENESIS, AuditHead, Row
from state.audit_breaks import BreakKind
from state.model.errors import RejectedError
from state.model.stream import Mark

MOST_ROWS: Final = 200
MOST_BREAKS: Final = 8
_MOST_RUNGS: Final = 100
_LARGEST: Final = 2**63 - 1


def _head(value: object) -> AuditHead:
    if isinstance(value, AuditHead):
        return value
    try:
        mark = parse_mark(value)
    except RejectedError as error:
        raise ValueError(error.rule) from None
    return AuditHead(seq=mark.seq, hash=mark.chain.hex())


def _head_text(head: AuditHead) -> str:
    return mark_text(Mark(head.seq, bytes.fromhex(head.hash)))


def _digest(value: object) -> bytes:
    if isinstance(value, bytes) and len(value) == 32:
        return value
    if isinstance(value, str) and len(value) == 64 and value.isascii():
        return bytes.fromhex(value)
    raise ValueError("a hash is 64 hexadecimal digits")


WireHead = Annotated[AuditHead, PlainValidator(_head), PlainSerializer(_head_text)]
_Digest = Annotated[bytes, PlainValidator(_digest), PlainSerializer(bytes.hex)]
_Number = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
_At = Annotated[int, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
WireRow = tuple[_Number, _At, str, str, str, str, str | None, str | None, str, str, _Digest, _Digest]
"""`state.audit.Row`."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class ToldBreak(_Wire):
    """That the other's audit does not go on as it was known here: `state.audit_breaks.Break`."""

    kind: str = Field(max_length=40)
    epoch: _Number
    known: WireHead
    after: _Number
    found: _Number

    @property
    def break_kind(self) -> BreakKind:
        """Its kind; one that this version does not know is the gravest."""
        return BreakKind(self.kind) if self.kind in set(BreakKind) else BreakKind.REWRITTEN


class Wanted(_Wire):
    """Entries of the sender's own that it has no longer: those behind `after` of the chain that the other knew to `known`."""

    known: WireHead
    after: _Number = 0


class Returned(_Wire):
    """What there is here of entries that the other wanted."""

    known: WireHead
    rows: list[WireRow] = Field([], max_length=MOST_ROWS)


class AuditWord(_Wire):
    """One agent's word. `after` to `rows` are its own entries behind `copied` of the other's word."""

    head: WireHead = GENESIS
    seen: WireHead = Field(GENESIS, description="the other's head, as it told it last")
    copied: WireHead | None = Field(None, description="to where the other's entries are kept; None: none are")
    rungs: list[WireHead] = Field(
        [], max_length=_MOST_RUNGS, description="of its own: what the other has seen is not its"
    )
    after: WireHead = GENESIS
    rows: list[WireRow] = Field([], max_length=MOST_ROWS)
    breaks: list[ToldBreak] = Field([], max_length=MOST_BREAKS, description="of the other's audit, the newest last")
    wanted: list[Wanted] = Field([], max_length=MOST_BREAKS)
    returned: Returned | None = None


def bounded(rows: list[Row]) -> list[Row]:
    """As many of the rows, from the first on, as one word may carry: 128 KiB of text, or one row of 256 KiB."""
    taken, size = list[Row](), 0
    for row in rows:
        size += sum(len(part) for part in row if isinstance(part, str))
        if size > _FULL and (taken or size > _LARGEST_ROW):
            break
        taken.append(row)
    return taken


_FULL: Final = 128 * 1024
_LARGEST_ROW: Final = 256 * 1024
