"""The ERP: an HTTP server with a ledger and a memory of its own, which misbehaves by a schedule that the seed fixes.

It takes purchase orders and stock, each with an `Idempotency-Key` that it remembers for a while, confirms orders in numbered
pages, and can be asked for a key. What it does wrong is in `erp_faults`; each write call is in its ledger with what was done
to it. It may be killed at any moment and started again on the same ledger and port.

    POST /purchase-orders  {reference, revision, sku, supplier, quantity, unit, order_date, need_date}
    POST /stock            {sku, location, snapshot, on_hand}
    GET  /by-key/KEY       the answer that was given, or 404
    GET  /confirmations?after=NUMBER&page=TOKEN  {"items": [...], "next": TOKEN or null}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from connectors.simulators.erp_faults import Fault, schedule
from connectors.simulators.erp_ledger import ErpLedger
from connectors.simulators.http1 import Request
from connectors.simulators.service import report_ready, run_until_told
from connectors.simulators.web import HangUp, Reply, serve

CLOSED_FOR: Final = 0.4  # seconds that a 429 or 503 goes on for everybody
PAGE: Final = 200
_SLOW: Final = 0.5  # seconds by which one confirmation in thirty becomes visible late

_TOO_MANY: Final = Reply(status=429, document={"error": "slow down"}, headers={"Retry-After": "1"})
_UNAVAILABLE: Final = Reply(status=503, document={"error": "maintenance"})
_LOCKED: Final = Reply(status=200, document={"error": {"code": "LOCKED", "message": "record is open in a dialogue"}})
_UNKNOWN: Final = Reply(status=404, document={"error": "not found"})


class Erp:
    """One run of the ERP. `deadline` in seconds is how long its callers wait for an answer."""

    def __init__(self, ledger: ErpLedger, *, seed: int, deadline: float) -> None:
        self._ledger = ledger
        self._schedule = schedule(seed)
        self._deadline = deadline
        self._calls = ledger.count_calls()
        self._dice = random.Random(f"confirmations {seed} {self._calls}")
        self._closed = _UNAVAILABLE
        self._closed_until = 0.0

    async def answer(self, request: Request) -> Reply:
        """The handler of every request."""
        if time.monotonic() < self._closed_until:
            return self._closed
        match request.method, request.path.split("/")[1:]:
            case "POST", ["purchase-orders" | "stock"]:
                return await self._take(request)
            case "GET", ["by-key", key]:
                return self._find(key)
            case "GET", ["confirmations"]:
                return self._confirmations(request)
        return _UNKNOWN

    async def _take(self, request: Request) -> Reply:
        key = request.headers.get("idempotency-key")
        if not key:
            return Reply(status=400, document={"error": "Idempotency-Key is missing"})
        self._calls += 1
        fault = self._schedule.get(self._calls, Fault.NONE)
        self._ledger.add_call(request.path, key, fault)
        match fault:
            case Fault.TOO_MANY:
                return self._close(_TOO_MANY)
            case Fault.UNAVAILABLE:
                return self._close(_UNAVAILABLE)
            case Fault.LOCKED:
                return _LOCKED
            case Fault.LATE:
                await asyncio.sleep(self._deadline + 1)
                return self._apply(request, key)
            case Fault.SILENT:
                self._apply(request, key)
                await asyncio.sleep(self._deadline + 1)
                raise HangUp
            case Fault.RESET:
                self._apply(request, key)
                raise HangUp
            case Fault.NONE:
                return self._apply(request, key)

    def _apply(self, request: Request, key: str) -> Reply:
        """Do it, unless the key is remembered: then say again what was said."""
        known = self._ledger.find(key)
        if known is not None:
            return Reply(status=200, document={**known, "duplicate": True})
        document: dict[str, Any] = json.loads(request.body)
        if request.path == "/stock":
            return Reply(status=201, document=self._ledger.apply_stock(document, key))
        slow_by = _SLOW if self._dice.random() < 1 / 30 else 0.0
        return Reply(status=201, document=self._ledger.apply_order(document, key, slow_by=slow_by))

    def _close(self, reply: Reply) -> Reply:
        self._closed, self._closed_until = reply, time.monotonic() + CLOSED_FOR
        return reply

    def _find(self, key: str) -> Reply:
        known = self._ledger.find(key)
        return _UNKNOWN if known is None else Reply(status=200, document=known)

    def _confirmations(self, request: Request) -> Reply:
        """One page. Its token carries the moment of the first page, so that a walk through the pages is one picture."""
        number, _, moment = request.query.get("page", "").partition("@")
        as_of = float(moment) if moment else time.time()
        after = int(number or request.query.get("after") or 0)
        items = self._ledger.confirmations(after=after, as_of=as_of, limit=PAGE)
        following = f"{items[-1]['number']}@{as_of}" if len(items) == PAGE else None
        return Reply(status=200, document={"items": items, "next": following})


async def main(arguments: argparse.Namespace) -> None:
    """Serve until told to end, or killed."""
    with ErpLedger(arguments.ledger, key_lifetime=timedelta(minutes=arguments.key_minutes)) as ledger:
        erp = Erp(ledger, seed=arguments.seed, deadline=arguments.deadline)
        server = await serve(erp.answer, port=arguments.port)
        report_ready(arguments.ready, port=server.sockets[0].getsockname()[1])
        await server.serve_forever()


def parse_arguments() -> argparse.Namespace:
    """The command line of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds that callers wait for an answer")
    parser.add_argument("--key-minutes", type=float, default=10, help="how long an idempotency key is remembered")
    return parser.parse_args()


if __name__ == "__main__":
    run_until_told(main(parse_arguments()))
