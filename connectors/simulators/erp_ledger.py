"""What the ERP was asked and what it did: its orders, its stock, its confirmations and its memory of idempotency keys.

The ERP judges nothing: it applies what it has no memory of, as often as that is sent. `judge` finds what came twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from connectors.simulators.ledger import Ledger, now
from connectors.simulators.planning_ledger import content_of, plain

_CONFIRMATION: Final = (
    *("number", "po_no", "revision", "ack", "line_status", "quantity", "unit", "promised_on", "confirmed_on"),
)


class ErpLedger(Ledger):
    """An order or a balance, the memory of its key and the answer given are one transaction."""

    schema = """
        CREATE TABLE IF NOT EXISTS calls (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT, idempotency_key TEXT, fault TEXT, at REAL
        ) STRICT;
        CREATE TABLE IF NOT EXISTS remembered (
            idempotency_key TEXT PRIMARY KEY, path TEXT, answer TEXT, at REAL
        ) STRICT;
        CREATE TABLE IF NOT EXISTS applied (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, reference TEXT, number INTEGER, content TEXT,
            idempotency_key TEXT, at REAL
        ) STRICT;
        CREATE TABLE IF NOT EXISTS confirmations (
            number INTEGER PRIMARY KEY AUTOINCREMENT, po_no TEXT, revision INTEGER, ack TEXT, line_status TEXT,
            quantity TEXT, unit TEXT, promised_on TEXT, confirmed_on TEXT, content TEXT, visible_at REAL
        ) STRICT;
    """

    def __init__(self, path: Path, *, key_lifetime: timedelta) -> None:
        super().__init__(path)
        self._key_lifetime = key_lifetime.total_seconds()

    def count_calls(self) -> int:
        """Write calls so far, over all restarts."""
        return int(self._connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def add_call(self, path: str, key: str, fault: str) -> None:
        """One write call arrived and is dealt with so."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO calls (path, idempotency_key, fault, at) VALUES (?, ?, ?, ?)", (path, key, fault, now())
            )

    def find(self, key: str) -> dict[str, Any] | None:
        """The answer that was given under that key, as long as it is remembered."""
        found = self._connection.execute(
            "SELECT answer FROM remembered WHERE idempotency_key = ? AND at > ?", (key, now() - self._key_lifetime)
        ).fetchone()
        return json.loads(found[0]) if found else None

    def apply_order(self, order: Mapping[str, Any], key: str, *, slow_by: float) -> dict[str, Any]:
        """Write the order and the confirmation of it, visible after `slow_by` seconds; returns the answer to the caller."""
        reference, revision, quantity = order["reference"], int(order["revision"]), plain(order["quantity"])
        content = content_of(order["sku"], order["supplier"], quantity, order["need_date"])
        with self._transaction():
            seq = self._add_applied("order", reference, revision, content, key)
            po_no = f"PO-{reference.removeprefix('RECO-')}"
            answer = {"status": "ok", "po_no": po_no, "order_id": seq}
            self._remember(key, "/purchase-orders", answer)
            self._confirm(po_no, revision, quantity, order, slow_by)
        return answer

    def apply_stock(self, balance: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Write the balance; returns the answer to the caller."""
        with self._transaction():
            seq = self._add_applied("stock", balance["sku"], int(balance["snapshot"]), plain(balance["on_hand"]), key)
            answer = {"status": "ok", "entry": seq}
            self._remember(key, "/stock", answer)
        return answer

    def confirmations(self, *, after: int, as_of: float, limit: int) -> list[dict[str, Any]]:
        """Confirmations with a higher number that could be seen at `as_of`. One may become visible after its successors."""
        found = self._connection.execute(
            f"SELECT {', '.join(_CONFIRMATION)} FROM confirmations"  # noqa: S608 - our own column names
            " WHERE number > ? AND visible_at <= ? ORDER BY number LIMIT ?",
            (after, as_of, limit),
        )
        return [dict(zip(_CONFIRMATION, row, strict=True)) for row in found]

    def _confirm(self, po_no: str, revision: int, quantity: str, order: Mapping[str, Any], slow_by: float) -> None:
        """Promise the day that was asked for, or, for every 20th order, a day a week later."""
        number = int(self._connection.execute("SELECT coalesce(max(number), 0) FROM confirmations").fetchone()[0]) + 1
        asked = date.fromisoformat(order["need_date"])
        is_late = number % 20 == 0
        ack, line_status = ("accepted_with_changes", "date_changed") if is_late else ("accepted", "accepted")
        promised = asked + timedelta(weeks=1) if is_late else asked
        (before,) = self._connection.execute(
            "SELECT coalesce(max(visible_at), 0) FROM confirmations WHERE po_no = ?", (po_no,)
        ).fetchone()
        self._connection.execute(
            "INSERT INTO confirmations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, po_no, revision, ack, line_status, quantity, order["unit"]),
                *(promised.isoformat(), order["order_date"]),
                *(f"{ack} {quantity} on {promised}", max(before, now() + slow_by)),
            ),
        )

    def _add_applied(self, kind: str, reference: str, number: int, content: str, key: str) -> int:
        cursor = self._connection.execute(
            "INSERT INTO applied (kind, reference, number, content, idempotency_key, at) VALUES (?, ?, ?, ?, ?, ?)",
            (kind, reference, number, content, key, now()),
        )
        return int(cursor.lastrowid or 0)

    def _remember(self, key: str, path: str, answer: Mapping[str, Any]) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?)", (key, path, json.dumps(answer), now())
        )
