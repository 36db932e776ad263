"""Order acknowledgement: what the supplier says to a purchase order (X12 855, EDIFACT ORDRSP)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import Entity, Record, Several, Stock, require, require_unique
from state.model.money import UnitPrice
from state.model.scalars import Code, PlainDate, Text, Whole, broken

AcknowledgementType = Literal["accepted", "accepted_with_changes", "rejected"]
"""X12 587: AD or AK, AC, RD or RJ."""

LineAnswer = Literal[
    "accepted", "quantity_changed", "date_changed", "price_changed", "changed", "substituted", "backordered", "rejected"
]
"""X12 668: IA, IQ, DR, IP, IC, IS, IB, IR. `changed` says that more than one thing changed."""

_NEEDS: dict[LineAnswer, str] = {
    "quantity_changed": "quantity",
    "date_changed": "promised_date",
    "price_changed": "price",
    "substituted": "substitute_sku",
    "rejected": "reason",
}


class AcknowledgedLine(Record):
    """The answer to one line: what the supplier will send, when and for how much."""

    line_no: Whole
    status: LineAnswer
    quantity: Stock | None = None
    promised_date: PlainDate | None = None
    price: UnitPrice | None = None
    substitute_sku: Code | None = None
    reason: Text | None = None

    @model_validator(mode="after")
    def _says_what_changed(self) -> Self:
        needed = _NEEDS.get(self.status)
        if needed is not None:
            rule = f"a line that is {self.status} needs {needed}"
            require(getattr(self, needed), rule, place=needed, hint="Read it from the document, or ask the supplier")
        return self


class OrderAcknowledgement(Entity):
    """The answer to the order `po_no` of `po_date`. Without lines it answers the whole order alike."""

    entity: ClassVar[str] = "order-acknowledgement"
    version: ClassVar[int] = 1

    po_no: Code
    ack_type: AcknowledgementType
    ack_date: PlainDate
    po_date: PlainDate | None = None
    po_revision: Whole | None = None
    supplier: Code | None = None
    supplier_reference: Code | None = None
    reason: Text | None = None
    lines: Several[AcknowledgedLine] = ()

    @property
    def business_key(self) -> str:
        """The number of the order that is answered."""
        return self.po_no

    @model_validator(mode="after")
    def _agrees_with_its_lines(self) -> Self:
        require_unique([line.line_no for line in self.lines], place="lines", name="line_no")
        if self.ack_type == "accepted_with_changes":
            _check_changes(self)
        else:
            _check_uniform(self)
        return self


def _check_uniform(answer: OrderAcknowledgement) -> None:
    for index, line in enumerate(answer.lines):
        if line.status != answer.ack_type:
            raise broken(
                f"every line of an order that is {answer.ack_type} must be {answer.ack_type}",
                line.status,
                hint="Set ack_type to accepted_with_changes, or correct the line",
                code="ack-mismatch",
                place=f"lines.{index}.status",
            )


def _check_changes(answer: OrderAcknowledgement) -> None:
    hint = "Say per line what changed, or set ack_type to accepted or rejected"
    require(answer.lines, "an acceptance with changes needs its lines", place="lines", hint=hint)
    said = {line.status for line in answer.lines}
    if said in ({"accepted"}, {"rejected"}):
        word = next(iter(said))
        rule = f"an order whose lines are all {word} must be {word}"
        raise broken(rule, answer.ack_type, hint=hint, code="ack-mismatch", place="ack_type")
