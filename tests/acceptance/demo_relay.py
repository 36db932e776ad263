"""A second way through the demo: reads everything again at each start, and relies on keys that content makes.

It proves the counterparts and the judge without the agent. What it lacks is what the agent is for: it holds all in memory, works
one call after the other, and knows these flows and no other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx

REST = 0.2  # seconds without growth


class Relay:
    """The flows over the folders in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inbox = home / "dc-south" / "planning" / "in"
        port = json.loads((home / "ready" / "erp.json").read_bytes())["port"]
        self.erp = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=2)
        self.parked: list[dict[str, Any]] = []
        self.seen: set[str] = set()

    def run(self) -> None:
        """For ever."""
        self.save_parked()
        while True:
            for name, content in self.files(self.home / "dc-south" / "planning" / "out"):
                for document in self.recommendations(name, content):
                    self.post("/purchase-orders", document)
            for name, content in self.files(self.home / "dc-north" / "wms" / "out"):
                for document in self.balances(name, content):
                    self.post("/stock", document)
                    self.put(self.inbox / "stock", f"{document['sku']}-{document['snapshot']}", document)
            for _, content in self.files(self.home / "web" / "shop" / "out"):
                for document in map(json.loads, content.decode().splitlines()):
                    self.put(self.home / "dc-north" / "wms" / "in", document["so_no"], document)
            self.confirmations()
            self.save_parked()
            time.sleep(0.1)

    def files(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """New files with new content, at rest."""
        for path in sorted(folder.glob("*-*")):
            content = path.read_bytes() if time.time() - path.stat().st_mtime > REST else b""
            known = hashlib.sha256(content).hexdigest()
            if content and known not in self.seen:
                self.seen.add(known)
                yield path.name, content

    def recommendations(self, name: str, content: bytes) -> Iterator[dict[str, Any]]:
        """Valid rows; the others are parked."""
        reader = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""))
        header = next(reader)
        line = reader.line_num + 1
        for cells in reader:
            row = dict(zip(header, cells, strict=False))
            if (wrong := what_is_wrong(row, len(header) == len(cells))) is None:
                yield {
                    **{name: row[name] for name in ("revision", "sku", "supplier", "order_date", "need_date")},
                    "reference": row["reco_id"],
                    "quantity": row["qty"],
                    "unit": row["uom"],
                }
            else:
                self.park(name, line, wrong)
            line = reader.line_num + 1

    def balances(self, name: str, content: bytes) -> Iterator[dict[str, Any]]:
        """Valid lines; the others are parked."""
        for line, text in enumerate(content.decode().splitlines(), 1):
            try:
                document = json.loads(text)
                wrong = next((field for field in ("sku", "unit", "on_hand") if not is_right(document, field)), None)
            except ValueError:
                document, wrong = {}, "JSON"
            if wrong is None:
                yield {field: document[field] for field in ("sku", "location", "snapshot", "on_hand")}
            else:
                self.park(name, line, wrong)

    def confirmations(self) -> None:
        """All of them, from the first."""
        page = ""
        while page is not None:
            answer = self.ask("GET", "/confirmations", params={"page": page})
            for item in answer["items"]:
                document = {
                    "reference": item["po_no"],
                    **{name: item[name] for name in ("revision", "ack", "quantity")},
                }
                self.put(
                    self.inbox / "confirmations", str(item["number"]), {**document, "promised_on": item["promised_on"]}
                )
            page = answer["next"]

    def post(self, path: str, document: dict[str, Any]) -> None:
        """Until it is taken, under a key that its content makes."""
        body = json.dumps(document)
        while True:
            key = hashlib.sha256(f"{path} {body}".encode()).hexdigest()
            answer = self.ask("POST", path, content=body, headers={"Idempotency-Key": key})
            if "error" not in answer:
                return
            time.sleep(0.05)

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Until there is an answer."""
        while True:
            try:
                answer = self.erp.request(method, path, **request)
                if answer.is_success:
                    return answer.json()
            except httpx.TransportError:
                pass
            time.sleep(0.1)

    def put(self, folder: Path, name: str, document: dict[str, Any]) -> None:
        """A file for an inbox, unless it is or was there."""
        path = folder / f"{name}.json"
        if not path.exists() and not (path.parent / "taken" / path.name).exists():
            hidden = path.with_name(f".{path.name}.tmp")
            hidden.write_text(json.dumps(document))
            hidden.replace(path)

    def park(self, name: str, line: int, wrong: str) -> None:
        """Note it, by place."""
        self.parked.append(
            {"file": name, "line": line, "rule": f"{wrong} is wrong", "hint": "repair it", "text": wrong}
        )

    def save_parked(self) -> None:
        """For the demo to read."""
        hidden = self.home / ".parked.tmp"
        hidden.write_text(json.dumps(self.parked))
        hidden.replace(self.home / "parked.json")


def what_is_wrong(row: dict[str, str], is_whole: bool) -> str | None:
    """The first wrong field; None in a valid row."""
    if not is_whole or any("\udc80" <= one <= "\udcff" for text in row.values() for one in text):
        return "the row"
    for name in ("qty", "uom", "sku", "order_date", "need_date"):
        if not is_right(row, name):
            return {"uom": "unit"}.get(name, f"{name} quantity" if name == "qty" else name)
    return None


def is_right(row: dict[str, Any], name: str) -> bool:
    """One field by its own rule."""
    value = str(row.get(name, ""))
    if name in ("qty", "on_hand"):
        return re.fullmatch("[0-9]+", value) is not None
    if name in ("uom", "unit"):
        return value == "C62"
    if name.endswith("date"):
        try:
            return re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None and bool(date.fromisoformat(value))
        except ValueError:
            return False
    return bool(value)


if __name__ == "__main__":
    Relay(Path(sys.argv[1])).run()
