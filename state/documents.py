"""Documents: the latest of each business key, as the trace index points to it."""

from __future__ import annotations

import sqlite3

from state import inbox, trace
from state.model.event import Event


def find(connection: sqlite3.Connection, *, entity: str, key: str) -> Event | None:
    """The latest event about the document, or None where nothing was ever said of it."""
    seq = trace.latest(connection, entity=entity, key=key)
    return None if seq is None else inbox.get(connection, seq)
