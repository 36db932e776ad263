"""What a site says of itself with each hello and pull, and what the hub makes of it: `distctl agents show` has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from state import draining


def told(connection: sqlite3.Connection) -> dict[str, Any]:
    """What the store adds to the health of a site: what it owes, and whether it drains."""
    found = draining.look(connection)
    said: dict[str, Any] = {"queues": found.owed.counts}
    if found.since is not None:
        said["drain"] = {"state": found.state, "since": found.since.isoformat(), "reason": found.why}
    return said


def heard(health: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What a site said, and by how many seconds its clock is ahead of `now`, which is when it was heard."""
    try:
        skew = (datetime.fromisoformat(str(health.get("clock"))) - now).total_seconds()
    except (ValueError, TypeError):  # an agent that says none, or one without its offset
        return dict(health)
    return {**health, "clock_skew_seconds": round(skew, 1)}
