"""The agent as users run it: `distctl agent run`, a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.control.endpoint import socket_in, store_in
from bench.estate import SITE
from connectors.simulators.leash import leashed

DISTCTL: Final = str(Path(sys.executable).with_name("distctl"))
_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcess:
    """An agent that runs and answers."""

    pid: int
    data: Path

    def delivered(self, flow: str) -> int:
        """How many deliveries of a flow have their outcome."""
        return self.count("SELECT sum(delivered) FROM lanes WHERE flow = ?", flow)

    def received(self) -> int:
        """How many events came over its links; those that a hub has are durable at both ends."""
        return self.count("SELECT sum(seq) FROM streams_in")

    def sent(self) -> int:
        """How many events are in its streams, acknowledged or not."""
        return self.count("SELECT sum(seq) FROM streams_out")

    def count(self, query: str, *parameters: object) -> int:
        """What its store answers to a query for one number; 0 for NULL."""
        with closing(sqlite3.connect(f"{store_in(self.data).as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute(query, parameters).fetchone()[0] or 0)

    def resident_megabytes(self) -> float:
        """What it holds in memory now, in MB (10^6 bytes)."""
        return resident_megabytes(self.pid)


@asynccontextmanager
async def open_agent(home: Path, site: str = SITE, *, data: Path | None = None) -> AsyncIterator[AgentProcess]:
    """Start the agent of a site of the estate in `home`, with its store in `data` there; it is stopped with the block."""
    data = data or home / "data"
    command = [DISTCTL, "--data", str(data), "--site", site, "agent", "run", "--estate", str(home), "--log", "json"]
    log_path = data.with_suffix(".log")
    with log_path.open("ab") as log, subprocess.Popen(leashed(command), stdout=log, stderr=log) as process:
        try:
            await until(socket_in(data).exists, "the agent answers")
            yield AgentProcess(pid=process.pid, data=data)
        except SystemExit:
            print(log_path.read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGCONT)  # it may stand still
            process.terminate()


async def until(claim: Callable[[], bool], what: str, *, every: float = 0.01) -> None:
    """Return as soon as `claim` holds. Raises `SystemExit` where it never does."""
    stop_at = time.monotonic() + _PATIENCE_SECONDS
    while not claim():
        if time.monotonic() > stop_at:
            raise SystemExit(f"not within {_PATIENCE_SECONDS:g} s: {what}")
        await asyncio.sleep(every)


def resident_megabytes(pid: int | str) -> float:
    """The resident memory of a process, in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
