"""What a long run has to show: one line for each claim, with what was found."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from bench.orders import TERMS
from bench.partner import Partner

_REVISION: Final = re.compile(re.escape(f'"{TERMS}') + r"([0-9]{3}) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One line of the table."""

    what: str
    found: str
    holds: bool


def report(claims: Sequence[Claim]) -> None:
    """Print them. Raises `SystemExit` with 1 where one does not hold."""
    width = max(len(claim.what) for claim in claims)
    for claim in claims:
        print(f"{'ok ' if claim.holds else 'NO '} {claim.what.ljust(width)}  {claim.found}")
    if not all(claim.holds for claim in claims):
        raise SystemExit(1)


def whole_and_in_order(partner: Partner, expected: int) -> Claim:
    """Every order once with the partner, and the revisions of a key in the order in which they arose."""
    rows = inversions = 0
    last: dict[str, int] = {}
    distinct: set[tuple[str, int]] = set()
    with closing(sqlite3.connect(f"{partner.ledger.as_uri()}?mode=ro", uri=True)) as connection:
        for number, text in connection.execute("SELECT po_no, CAST(data AS TEXT) FROM orders ORDER BY id"):
            written = _REVISION.search(text)
            revision = int(written[1]) if written else -1
            inversions += revision < last.get(number, revision)
            last[number] = revision
            distinct.add((number, revision))
            rows += 1
    found = f"of {expected:,}: lost {expected - len(distinct):,}, doubled {rows - len(distinct):,}, out of order {inversions:,}"
    return Claim(
        what="nothing missing, in key order", found=found, holds=rows == len(distinct) == expected and not inversions
    )
