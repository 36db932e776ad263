"""What becomes of a store that is put back from a backup: its next life, in which it trusts nothing of the time in between.

All of it is one transaction on the copy, before anybody else opens it: the next epoch begins, what no other agent acknowledged is
numbered anew, and whatever was owed is in doubt. Settled deliveries stay settled, dead letters stay open.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from state import audit, backup, dead_letters, lanes, life
from state.backup import Contents
from state.key_queues import KeyQueues
from state.life import Life
from state.model.clock import to_millis
from state.model.delivery import DeliveryState
from state.model.ids import DeliveryId, LaneId, Seq
from state.queries import load

_SQL = load("restore")


def begin_again(
    connection: sqlite3.Connection,
    held: Contents,
    *,
    site: str,
    above: int,
    name: str,
    folder: str,
    manifest_sha256: str,
    taken_at: datetime,
    now: datetime,
    by: str,
    reason: str,
) -> tuple[Life, int]:
    """Begin the next life of the store of `site`, in an epoch higher than its own and than `above`; the caller commits.

    Returns the life and how many deliveries are in doubt. `held` is what the backup was found to hold; it is noted as the last
    backup of this store. Raises `ConfigError` where the store is another site's.
    """
    millis = to_millis(now)
    life.begin(connection, site, now=millis)
    begun = life.begin_epoch(connection, now=millis, least=above + 1)
    doubted = doubt(connection, taken_at=taken_at, now=now)
    backup.note(connection, held, name=name, folder=folder, manifest_sha256=manifest_sha256, taken_at=taken_at, now=now)
    audit.append(
        connection,
        at_ms=millis,
        actor=by,
        action="restore",
        target="store",
        reason=reason,
        before={"epoch": held.epoch, "last_event": held.last_event},
        after={"epoch": begun.epoch, "in_doubt": doubted},
        details={"backup": name, "manifest": manifest_sha256, "taken_at": taken_at.isoformat()},
    )
    return begun, doubted


def doubt(connection: sqlite3.Connection, *, taken_at: datetime | None, now: datetime) -> int:
    """Put in doubt whatever the store owed at `taken_at`, since its calls may have left after that; returns how many.

    Where nobody knows of when the store is (None), they may have left since each event was taken in.

    Each is judged when its turn comes: inside the memory of its target the same call goes again, otherwise the target is asked.
    What was in doubt already is asked anew: the life that ended may have sent it again.
    """
    moved: Counter[tuple[LaneId, DeliveryState]] = Counter()
    for lane, before, after, count in connection.execute(_SQL.count_unsettled).fetchall():
        moved[LaneId(lane), DeliveryState(before)] -= count
        moved[LaneId(lane), DeliveryState(after)] += count
    since = (
        f"put back from a backup of {taken_at:%Y-%m-%d %H:%M:%S}Z" if taken_at else "an old copy, or had one beside it"
    )
    detail = f"the store was {since}: it may have been sent since"
    row = {"now": to_millis(now), "taken": to_millis(taken_at) if taken_at else None, "detail": detail}
    changed = connection.execute(_SQL.doubt_unsettled, row).rowcount
    lanes.count(connection, moved)
    KeyQueues(connection, now=now).advance([(key, LaneId(lane)) for key, lane in connection.execute(_SQL.list_keys)])
    return changed


def settle_answered(
    connection: sqlite3.Connection, *, site: str, contract: str, after: Seq, limit: int, now: datetime
) -> tuple[int, Seq]:
    """Settle deliveries in doubt whose targets' answers others had kept, and gave back behind `after`.

    One that was set aside when the store was copied was sent again by the life that ended, where its target has it: its letter
    closes. Looks at `limit` answers of `contract` that arose at `site`; returns how many deliveries are settled, and the last
    looked at.
    """
    moved: Counter[tuple[LaneId, DeliveryState]] = Counter()
    keys: list[tuple[int, LaneId]] = []
    answers = connection.execute(_SQL.answers, (after, site, contract, limit)).fetchall()
    for _, cause, data, said_at, asked_from in answers:
        answer: dict[str, Any] = orjson.loads(data)
        if answer.get("state") != DeliveryState.DELIVERED:
            continue
        found = connection.execute(
            _SQL.unsure, (cause, asked_from, answer.get("flow"), answer.get("target"))
        ).fetchone()
        if found is None:
            continue
        delivery, key, lane, state, passes = found
        row = (said_at, answer.get("outcome"), answer.get("reference", ""), answer.get("detail", ""), delivery)
        connection.execute(_SQL.settle, row)
        dead_letters.close(connection, DeliveryId(delivery), "replayed", now=to_millis(now))
        moved[LaneId(lane), DeliveryState(state)] -= 1
        moved[LaneId(lane), DeliveryState.DELIVERED] += 1
        keys.append((key, LaneId(lane)))
        if passes:
            older = connection.execute(_SQL.doubted_before, (key, lane, delivery)).fetchall()
            moved.update(_supersede(connection, [(old, lane, delivery) for (old,) in older], now=now))
    lanes.count(connection, moved)
    KeyQueues(connection, now=now).advance(keys)
    return len(keys), Seq(answers[-1][0]) if answers else after


def supersede_passed(
    connection: sqlite3.Connection, *, after: DeliveryId, limit: int, now: datetime
) -> tuple[int, DeliveryId]:
    """Supersede, in lanes in which the latest counts, snapshots in doubt that are followed by a newer one.

    The life that ended had let the newer one pass, or would have: sent now, the older one would come after it. Its own late
    landing is no danger any more, since that life's calls are over. Looks at `limit` deliveries behind `after`; returns how many
    are superseded, and the last.
    """
    found = connection.execute(_SQL.passed, (after, limit)).fetchall()
    lanes.count(connection, _supersede(connection, [(old, lane, new) for old, _, lane, new in found], now=now))
    KeyQueues(connection, now=now).advance([(key, LaneId(lane)) for _, key, lane, _ in found])
    return len(found), DeliveryId(found[-1][0]) if found else after


def _supersede(
    connection: sqlite3.Connection, passed: Sequence[tuple[int, int, int]], *, now: datetime
) -> Counter[tuple[LaneId, DeliveryState]]:
    """Settle each (delivery, lane, newer delivery); returns by how much the lanes' counters move."""
    moved: Counter[tuple[LaneId, DeliveryState]] = Counter()
    for old, lane, new in passed:
        connection.execute(_SQL.supersede, (to_millis(now), f"by delivery {new}, before the store was put back", old))
        moved[LaneId(lane), DeliveryState.IN_DOUBT] -= 1
        moved[LaneId(lane), DeliveryState.SUPERSEDED] += 1
    return moved
