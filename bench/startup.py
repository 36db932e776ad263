"""P11: how long `distctl --help` and `distctl status` take, beside an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.agent_process import DISTCTL, open_agent
from bench.estate import write_estate
from bench.rounds import Round, interleaved, stopwatch
from bench.row import Aim, Figure, Row

_ROUNDS: Final = 15


async def measure(folder: Path) -> list[Row]:
    """Wall time from start to end of the process; `status` asks an agent that runs."""
    home = write_estate(folder / "startup", url="http://127.0.0.1:9")
    async with open_agent(home) as agent:
        sides = {
            "pass": _round([sys.executable, "-c", "pass"]),
            "help": _round([DISTCTL, "--help"]),
            "status": _round([DISTCTL, "--data", str(agent.data), "status"]),
        }
        figures = await interleaved(sides, rounds=_ROUNDS)
    bare = Figure(value=figures["pass"], unit="ms", of="python -c pass")
    return [
        _row("distctl --help / python -c pass", figures["help"], bare, Aim(reach=8, dream=5, more_is_better=False)),
        _row("distctl status / python -c pass", figures["status"], bare, Aim(reach=20, dream=12, more_is_better=False)),
    ]


def _row(measure: str, value: float, bare: Figure, aim: Aim) -> Row:
    ours = Figure(value=value, unit="ms", of=measure.partition(" /")[0])
    return Row(number="P11", measure=measure, ours=ours, beside=bare, aim=aim)


def _round(command: Sequence[str]) -> Round:
    async def run() -> float:
        with stopwatch() as watch:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return watch.seconds * 1000

    return run
