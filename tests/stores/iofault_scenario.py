"""What the fault tests run in a process of its own: write, arm the fault, write again, and tell what each caller was told.

Prints one JSON object. `told` is, for each of five writes made together after the fault began, "kept" or the code of its error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from state.database import Database
from state.migrations import Migration
from state.model.errors import DistctlError, StoreInDoubtError
from state.testing import NOON

THINGS = Migration(
    version=1, name="things", sql="CREATE TABLE things (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT) STRICT;"
)


async def told(database: Database, body: str) -> str:
    try:
        await database.write(
            lambda connection: connection.execute("INSERT INTO things (body) VALUES (?)", (body,)), name="test"
        )
    except DistctlError as error:
        return ("doubt " if isinstance(error, StoreInDoubtError) else "") + error.code
    return "kept"


async def run(path: Path, arm: Callable[[], None]) -> dict[str, object]:
    fatal: list[str] = []
    database = await Database.open(path, now=NOON, migrations=[THINGS], on_fatal=lambda error: fatal.append(error.code))
    before = await told(database, "before")
    arm()
    during = await asyncio.gather(*(told(database, f"during {n}" + "x" * 40_000) for n in range(5)))
    later = await told(database, "later")
    is_broken = database.is_broken
    await database.close()
    return {"before": before, "during": during, "later": later, "broken": is_broken, "fatal": fatal}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]).touch))))
