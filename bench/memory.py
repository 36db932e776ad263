"""P9: what an agent holds in memory, idle and with a long backlog whose target is down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Final

from bench.agent_process import open_agent, resident_megabytes
from bench.backlog import PENDING, filled
from bench.estate import write_estate
from bench.row import Aim, Figure, Row

_SETTLES_SECONDS: Final = 4.0
_LOOKS: Final = 5


async def measure(folder: Path) -> list[Row]:
    """Resident memory, the median of some looks once the agent has come to rest."""
    bare = _interpreter()
    idle = await _agent(write_estate(folder / "idle", url="http://127.0.0.1:9"))
    full = await _agent(await filled(folder, PENDING))
    return [
        Row(
            number="P9",
            measure="agent memory, idle / bare interpreter",
            ours=Figure(value=idle, unit="MB", of="idle agent"),
            beside=Figure(value=bare, unit="MB", of="python"),
            aim=Aim(reach=90, dream=60, unit=" MB", more_is_better=False),
            held=idle,
        ),
        Row(
            number="P9",
            measure=f"agent memory, {PENDING:,} pending and the target down / idle",
            ours=Figure(value=full, unit="MB", of=f"{PENDING:,} pending"),
            beside=Figure(value=idle, unit="MB", of="idle agent"),
            aim=Aim(reach=40, dream=10, unit=" MB", more_is_better=False),
            held=full - idle,
        ),
    ]


async def _agent(home: Path) -> float:
    async with open_agent(home) as agent:
        await asyncio.sleep(_SETTLES_SECONDS)
        looks = []
        for _ in range(_LOOKS):
            looks.append(agent.resident_megabytes())
            await asyncio.sleep(0.2)
    return median(looks)


def _interpreter() -> float:
    with subprocess.Popen([sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdin is None or process.stdout is None:
                raise SystemExit("the interpreter did not start")
            process.stdin.write("print('here', flush=True); import time; time.sleep(60)\n")
            process.stdin.close()
            process.stdout.readline()
            return resident_megabytes(process.pid)
        finally:
            process.kill()
