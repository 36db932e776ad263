"""Rules that purchase orders and sales orders share: line numbers, currency, total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from state.model.canonical.entity import require_unique
from state.model.errors import BrokenRuleError
from state.model.money import Money, UnitPrice, total_of
from state.model.quantity import Quantity
from state.model.scalars import broken


class PricedLine(Protocol):
    """An order line as far as these rules go."""

    @property
    def line_no(self) -> int:
        """Its number, unique in the order."""
        ...

    @property
    def quantity(self) -> Quantity:
        """What is ordered."""
        ...

    @property
    def price(self) -> UnitPrice | None:
        """What it costs, if that is agreed."""
        ...


def check_lines(lines: Sequence[PricedLine], currency: str, total: Money | None) -> None:
    """Refuse double line numbers, a second currency, and a total that is not the sum of the lines where all are priced.

    Each line is rounded half up to the minor unit by itself, then they are added: no further tolerance.
    """
    require_unique([line.line_no for line in lines], place="lines", name="line_no")
    for index, line in enumerate(lines):
        if line.price is not None and line.price.currency != currency:
            raise _other_currency(line.price.currency, currency, f"lines.{index}.price.currency")
    if total is not None:
        _check_total(lines, total, currency)


def _check_total(lines: Sequence[PricedLine], total: Money, currency: str) -> None:
    if total.currency != currency:
        raise _other_currency(total.currency, currency, "total.currency")
    amounts = [_amount(index, line) for index, line in enumerate(lines)]
    priced = [amount for amount in amounts if amount is not None]
    if not lines or len(priced) < len(lines):
        return
    expected = total_of(priced, currency)
    if total != expected:
        raise broken(
            f"total must be the sum of the lines, {expected}",
            str(total),
            hint="Compare each line's quantity x price, rounded by itself, with the source; freight is a line of its own",
            code="sum-mismatch",
            place="total",
        )


def _amount(index: int, line: PricedLine) -> Money | None:
    if line.price is None:
        return None
    try:
        return line.price.times(line.quantity)
    except BrokenRuleError as error:
        error.place = f"lines.{index}.price.unit"
        raise


def _other_currency(found: str, wanted: str, place: str) -> BrokenRuleError:
    hint = "An order is in one currency: split it, or correct the line"
    return broken(
        f"the currency must be that of the order, {wanted}", found, hint=hint, code="mixed-currencies", place=place
    )
