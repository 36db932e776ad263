"""What every simulator process does: say that it is ready, and end when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from connectors.simulators.folder import put_atomic


def report_ready(path: Path, *, port: int = 0) -> None:
    """Write `{"pid", "port"}`; it is there whole or not at all."""
    put_atomic(path, json.dumps({"pid": os.getpid(), "port": port}).encode())


def run_until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or to SIGTERM or SIGINT."""
    asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
