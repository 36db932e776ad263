"""What the tests of a whole agent share: an estate in a folder, a planner who publishes files, a partner, the agent as a process.

The agent is the one that users run, `distctl agent run`, on a leash held by the test. The partner is a `HostilePartner` on a
thread of the test's own: it outlives every agent, and its ledger is the judge.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

from agent.control.client import ControlClient
from agent.control.endpoint import socket_in
from agent.control.schema import LaneRow, Status
from agent.crash_points import VARIABLE
from connectors.hostile import HostilePartner
from connectors.simulators.leash import leashed
from state.model.errors import DistctlError

Table: TypeAlias = dict[str, Any]
T = TypeVar("T")

SITE = "north"
LONG = 30.0
"""Seconds after which something that should happen has not."""

COLUMNS = ("reco_id", "revision", "sku", "qty", "uom", "need", "today")
ORDER = {"reference": "record.reco_id", "revision": "record.revision", "quantity": "record.quantity.value"}


def until(claim: Callable[[], T | None], what: str, *, seconds: float = LONG) -> T:
    """What `claim` answers as soon as it is neither false nor None; fails after `seconds`."""
    stop_at = time.monotonic() + seconds
    while not (answer := claim()):
        assert time.monotonic() < stop_at, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return answer


# --- the estate ---------------------------------------------------------------------------------------------------


class EstateFolder:
    """An estate of one site: a planner who drops files, and whatever the test adds. JSON is YAML as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.systems: dict[str, Table] = {"planning": {"connector": "files"}}
        self.flows: dict[str, Table] = {}
        (folder / "planning").mkdir(parents=True)

    def add_erp(self, name: str, url: str, *, memory: Table, deadline: str = "400ms", in_flight: int = 4) -> None:
        """A system with orders behind HTTP."""
        limits = {"in_flight": in_flight, "deadline": deadline}
        self.systems[name] = {
            "connector": "http",
            "settings": {"base_url": url},
            "memory": memory,
            "limits": limits,
        }

    def add_folder(self, name: str) -> Path:
        """A system that takes files; returns its folder."""
        self.systems[name] = {"connector": "files", "settings": {"folder": name, "name": "{subject}-{key}.json"}}
        path = self.folder / name
        path.mkdir()
        return path

    def add_flow(self, name: str, *targets: Table, pattern: str = "reco-*.csv", **over: Any) -> Table:
        """A flow from the planner's files to `targets`; the table may be changed before `write`."""
        fields = dict.fromkeys(COLUMNS, "string") | {"revision": "integer", "qty": "decimal"}
        self.flows[name] = {
            "flow": name,
            "owner": "planning@acme.example",
            "tier": 1,
            "source": {
                "system": "planning",
                "every": "500ms",
                "settings": {
                    "folder": "planning",
                    "pattern": pattern,
                    "format": {"kind": "csv"},
                    "guard": {"kind": "done-marker"},
                    "order": "name",
                    "batch": 5,
                },
                "fields": fields | {"need": "date", "today": "date"},
            },
            "contract": "replenishment-recommendation/1",
            "mapping": {
                "fields": {
                    "reco_id": "record.reco_id",
                    "revision": "record.revision",
                    "sku": "record.sku",
                    "type": "'buy'",
                    "status": "'approved'",
                    "supplier": "'ACME'",
                    "to_loc": "'NORTH'",
                    "quantity": {"value": "record.qty", "unit": "record.uom"},
                    "order_date": "record.today",
                    "need_date": "record.need",
                }
            },
            "order": {"mode": "strict"},
            "targets": list(targets),
            **over,
        }
        return self.flows[name]

    def write(self) -> None:
        """Write the folder as it should be now; each file is there whole or not at all."""
        files = {
            "estate.yaml": {"name": "acme", "environment": "test", "currency": "EUR"},
            f"sites/{SITE}.yaml": {"site": SITE, "systems": self.systems},
            **{f"flows/{name}.yaml": flow for name, flow in self.flows.items()},
        }
        for path in (self.folder / "flows").glob("*.yaml"):
            if f"flows/{path.name}" not in files:
                path.unlink()
        for name, content in files.items():
            self.put(name, json.dumps(content, indent=1))

    def put(self, name: str, text: str) -> None:
        """Replace one file of the folder, if that changes it."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            hidden = path.with_name(f".{path.name}")
            hidden.write_text(text)
            hidden.replace(path)


def to_erp(system: str, *, probe: bool = True, fields: Table | None = None, **over: Any) -> Table:
    """A flow's target behind HTTP."""
    settings: Table = {"path": "/orders"}
    if probe:
        settings["probe"] = {"path": "/by-key/{key}"}
    retry = {"first": "100ms", "longest": "1s", "attempts": 8}
    return {"system": system, "settings": settings, "retry": retry, "mapping": {"fields": fields or ORDER}, **over}


def to_folder(system: str, **over: Any) -> Table:
    """A flow's target that takes files."""
    return {"system": system, "mapping": {"fields": ORDER}, **over}


# --- the planner and the partner ----------------------------------------------------------------------------------


class Planner:
    """Publishes recommendations as files and remembers them: the other side of every judgement."""

    def __init__(self, folder: Path, *, prefix: str = "reco") -> None:
        self.folder = folder
        self.published: defaultdict[str, list[int]] = defaultdict(list)  # revisions by reference, in order
        self.spoiled = 0
        self._prefix = prefix
        self._files = 0

    def publish(self, *references: str, spoiled: int = 0, qty: str = "5") -> None:
        """One file with the next revision of each reference, and `spoiled` records that nobody can read."""
        lines = [",".join(COLUMNS)]
        for reference in references:
            revision = len(self.published[reference]) + 1
            self.published[reference].append(revision)
            lines.append(f"{reference},{revision},SKU-1,{qty},EA,2026-12-01,2026-11-23")
        for _ in range(spoiled):
            self.spoiled += 1
            lines.append(f"BAD-{self.spoiled},1,SKU-1,many,EA,2026-12-01,2026-11-23")
        self._files += 1
        path = self.folder / f"{self._prefix}-{self._files:06}.csv"
        path.write_text("\n".join(lines) + "\n")
        path.with_name(f"{path.name}.done").touch()

    @property
    def count(self) -> int:
        """How many good records were published."""
        return sum(map(len, self.published.values()))


class Partner(HostilePartner):
    """A hostile partner that can be closed and opened again from the test's own thread."""

    loop: asyncio.AbstractEventLoop

    def open_shop(self) -> None:
        """Listen, on the same port as ever."""
        asyncio.run_coroutine_threadsafe(self.start(), self.loop).result(LONG)

    def close_shop(self) -> None:
        """End every connection and refuse new ones. What was to land late lands first."""
        asyncio.run_coroutine_threadsafe(self.stop(), self.loop).result(LONG)


@contextmanager
def open_partner(**options: Any) -> Iterator[Partner]:
    """A partner on a thread of its own, until the block ends."""
    partner = Partner(**options)
    partner.loop = asyncio.new_event_loop()
    thread = threading.Thread(target=partner.loop.run_forever)
    thread.start()
    try:
        partner.open_shop()
        yield partner
        partner.close_shop()
    finally:
        partner.loop.call_soon_threadsafe(partner.loop.stop)
        thread.join()
        partner.loop.close()


def taken(partner: Partner) -> dict[str, list[int]]:
    """What the partner's ledger holds: revisions by reference, in the order in which they landed."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for entry in list(partner.ledger):
        found[entry.body["reference"]].append(entry.body["revision"])
    return dict(found)


def left(folder: Path) -> dict[str, list[int]]:
    """What a files target holds: revisions by reference, in the order in which they were written."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        order = json.loads(path.read_bytes())
        found[order["reference"]].append(order["revision"])
    return dict(found)


# --- the agent ----------------------------------------------------------------------------------------------------


class AgentProcess:
    """`distctl agent run` on one estate and one data folder, started and ended as often as the test likes."""

    def __init__(self, estate: Path, data: Path) -> None:
        self.data = data
        self.log_path = data.with_name(f"{data.name}.log")
        self.client = ControlClient(socket_in(data))
        self.command = leashed(
            [
                *(sys.executable, "-m", "console.cli.app", "--data", str(data)),
                *("agent", "run", "--estate", str(estate), "--log", "json"),
            ]
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def store(self) -> Path:
        """The agent's store."""
        return self.data / "distctl.db"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        assert self._process is not None, "the agent was not started"
        return self._process

    def start(
        self,
        *,
        crash_at: str = "",
        anew: bool = True,
        environment: Mapping[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> Self:
        """Start it and return at once; unless `anew`, earlier starts that were killed count towards safe mode."""
        assert not self.is_running
        if anew and (self.data / "starts").exists():
            (self.data / "starts").unlink()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, VARIABLE: crash_at, **(environment or {})},
                preexec_fn=before_exec,  # noqa: PLW1509 - the child only sets limits; no lock of the partner thread is touched
            )
        return self

    def run(self, **options: Any) -> Self:
        """Start it and return when it answers."""
        self.start(**options)
        until(self.answers, "the agent answers")
        return self

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait(self, seconds: float = LONG) -> int:
        """The exit code once it has ended; that of a process that was killed is minus the signal."""
        return self.process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.is_running:
            self.process.kill()
            self.process.wait(LONG)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def status(self) -> Status:
        """What `distctl status` shows."""
        return self.client.status()

    def lane(self, target: str, flow: str = "reco") -> LaneRow:
        """One lane of the status."""
        return next(lane for lane in self.status().lanes if (lane.flow, lane.target) == (flow, f"{SITE}/{target}"))

    def settle(self, *, seconds: float = LONG) -> None:
        """Return when nothing is owed any more."""
        until(lambda: self.status().totals.backlog == 0, "everything is settled", seconds=seconds)

    def log(self) -> str:
        """All that it ever logged."""
        return self.log_path.read_text()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the store of an agent that has ended, or runs, says."""
        with closing(sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def answers(self) -> bool:
        """Whether it is there for callers. Fails where it has ended."""
        assert self.is_running, f"the agent ended with {self.process.returncode}:\n{self.log()[-4000:]}"
        try:
            return self.client.health().ok
        except DistctlError:
            return False


def counted(agent: AgentProcess) -> Sequence[tuple[Any, ...]]:
    """Lanes whose counters differ from their rows; none, if all is well."""
    states = ("pending", "inflight", "in_doubt", "delayed", "parked", "delivered", "superseded", "discarded")
    sums = ", ".join(f"count(d.id) FILTER (WHERE d.state = '{state}') AS {state}" for state in states)
    differ = " OR ".join(f"l.{state} <> c.{state}" for state in states)
    return agent.rows(
        f"SELECT l.flow FROM lanes l JOIN (SELECT l.id, {sums} FROM lanes l LEFT JOIN deliveries d ON d.lane_id = l.id"
        f" GROUP BY l.id) c ON c.id = l.id WHERE {differ}"
    )
