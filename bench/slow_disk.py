"""P10: the whole path where each fsync takes 4 ms longer, as on cheap flash, beside a bare loop there that commits each row.

The delay is a library of a few lines, compiled here and loaded before libc by each process that is started: the agents, the
partner and the bare loop.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.bare import open_bare
from bench.estate import FLOW
from bench.linked_path import whole_path
from bench.orders import orders
from bench.partner import open_partner
from bench.rounds import interleaved, stopwatch
from bench.row import Aim, Figure, Row
from bench.two_agents import open_two_agents

_SHIM: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int slowed(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int answer = real(fd);
    usleep(4000);
    return answer;
}
int fsync(int fd) { return slowed("fsync", fd); }
int fdatasync(int fd) { return slowed("fdatasync", fd); }
"""
_ORDERS: Final = 4000
_COMMITS: Final = 200
_ROUNDS: Final = 3


async def measure(folder: Path) -> list[Row]:
    """The row; none where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("P10 is left out: there is no C compiler (cc) to make fsync slow with", file=sys.stderr)
        return []
    with _slow_fsync(compiler, folder), open_partner(folder / "slow-ledger.db") as partner:
        async with open_two_agents(folder / "slow", url=partner.url) as agents:
            sides = {"ours": lambda: whole_path(agents, _ORDERS), "bare": lambda: _commits(folder / "slow-bare.db")}
            figures = await interleaved(sides, rounds=_ROUNDS)
            sent = agents.hub.delivered(FLOW)
        if partner.taken() != (sent, sent):
            raise SystemExit(f"P10: of {sent} orders the partner holds {partner.taken()}")
    return [
        Row(
            number="P10",
            measure="4 ms added to each fsync: whole path over two agents / fsyncs of a bare loop",
            ours=Figure(value=figures["ours"], unit="events/s", of="file at the site to outcome at the site"),
            beside=Figure(value=figures["bare"], unit="fsyncs/s", of="bare sqlite3, commit per event"),
            aim=Aim(reach=50, dream=100),
        )
    ]


@contextmanager
def _slow_fsync(compiler: str, folder: Path) -> Iterator[None]:
    """What is started inside the block waits 4 ms longer for each fsync."""
    source, library = folder / "slow_fsync.c", folder / "slow_fsync.so"
    source.write_text(_SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    try:
        yield
    finally:
        del os.environ["LD_PRELOAD"]


async def _commits(path: Path) -> float:
    command = [sys.executable, "-m", "bench.slow_disk", str(path)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _bare_loop(path: Path) -> float:
    path.unlink(missing_ok=True)
    payloads = orders(_COMMITS)
    with open_bare(path) as bare, stopwatch() as watch:
        bare.insert(payloads, a_commit=1)
    return watch.rate(_COMMITS)


if __name__ == "__main__":
    print(_bare_loop(Path(sys.argv[1])))
