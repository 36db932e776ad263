"""A partner behind HTTP, as a process of its own: takes orders in arrays and writes each under its key into a ledger on disk.

`python -m bench.partner LEDGER` prints its port and serves until it is ended. One request is one transaction at synchronous=FULL,
so an order is durable there as well before it is answered.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import orjson

from connectors.simulators.leash import leashed

TIMES: Final = ".times"


class Ledger:
    """Orders by their idempotency key."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._times = path.with_suffix(TIMES).open("a", buffering=1)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = wal")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, po_no TEXT NOT NULL,"
            " data BLOB NOT NULL) STRICT"
        )

    def take(self, orders: list[dict[str, object]]) -> list[dict[str, object]]:
        """Write what is new; an answer for each. `TIMES` beside the ledger says when each was on disk."""
        rows = [(order["idempotency_key"], order["po_no"], orjson.dumps(order)) for order in orders]
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO orders (key, po_no, data) VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")
            self._times.write("".join(f"{po_no} {time.monotonic_ns()}\n" for _, po_no, _ in rows))
        return [{"status": 201, "id": po_no} for _, po_no, _ in rows]


class PartnerServer(ThreadingHTTPServer):
    """Serves one ledger."""

    daemon_threads = True

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ledger = ledger


class Handler(BaseHTTPRequestHandler):
    """POST of an array of orders, on a connection that stays."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment
    disable_nagle_algorithm = True
    server: PartnerServer

    def do_POST(self) -> None:
        orders = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        body = orjson.dumps(self.server.ledger.take(orders))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """A partner that runs."""

    url: str
    ledger: Path

    def taken(self) -> tuple[int, int]:
        """How many orders its ledger holds, and under how many order numbers."""
        with closing(sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True)) as connection:
            rows, orders = connection.execute("SELECT count(*), count(DISTINCT po_no) FROM orders").fetchone()
        return int(rows), int(orders)

    def times(self) -> dict[str, float]:
        """When each order was on disk, in seconds of the machine's monotonic clock, by order number."""
        lines = (line.split() for line in self.ledger.with_suffix(TIMES).read_text().splitlines())
        return {po_no: int(nanoseconds) / 1e9 for po_no, nanoseconds in lines}


@contextmanager
def open_partner(ledger: Path) -> Iterator[Partner]:
    """Start a partner; it ends with the block, or with this process."""
    command = leashed([sys.executable, "-m", "bench.partner", str(ledger)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not (port := process.stdout.readline().strip()):
                raise SystemExit("the partner did not start")
            yield Partner(url=f"http://127.0.0.1:{port}", ledger=ledger)
        finally:
            process.terminate()


def serve(ledger: Path) -> None:
    """Serve until ended."""
    with PartnerServer(Ledger(ledger)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
