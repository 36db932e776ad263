"""The payload of every row: a purchase order with five lines, 1 KiB of JSON on one line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import orjson

SIZE: Final = 1024
"""Bytes of one order."""

TERMS: Final = "30 days net "
"""What the terms of every order begin with."""

_LINES: Final = 5
_numbers = itertools.count(1)


def orders(count: int) -> list[bytes]:
    """As many orders, each with a number that this process did not use before."""
    return [order(number) for number in itertools.islice(_numbers, count)]


def order(number: int) -> bytes:
    """The order of that number."""
    return _filled(number, "")


def revised(number: int, revision: int) -> bytes:
    """The order of that number as it was changed so many times, of 999 at most: its terms say so."""
    return _filled(number, f"{revision:03} ")


def numbered(payloads: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each payload with its order number."""
    return ((orjson.loads(payload)["po_no"], payload) for payload in payloads)


def _filled(number: int, begin: str) -> bytes:
    short = orjson.dumps(_document(number, begin))
    return orjson.dumps(_document(number, begin + "x" * (SIZE - len(short))))


def _document(number: int, filling: str) -> dict[str, object]:
    return {
        "po_no": f"PO-{number:08}",
        "order_date": "2026-03-02",
        "buyer": "DC-NORTH",
        "supplier": "ACME-SUPPLIES",
        "ship_to": "DC-NORTH",
        "currency": "EUR",
        "terms": f"{TERMS}{filling}",
        "lines": [
            {
                "line_no": line,
                "sku": f"SKU-{number * _LINES + line:08}",
                "description": f"Hex bolt M8, carton {line}",
                "qty": 12 * line,
                "uom": "EA",
                "price": "12.50",
                "need_date": "2026-03-16",
            }
            for line in range(1, _LINES + 1)
        ],
    }
