"""The judge: compares the ledgers at both ends, what sources produced and what targets recorded, and finds no fault or some.

lost        a record that a source produced never took effect at a target of its flow, was not refused there and set aside, and
            was not overtaken by a newer snapshot where the order allows that
doubled     a record took effect twice at a target
inverted    a record took effect after a newer one of its key, where the flow keeps an order
untold      what a target took is not known at the hub or where it arose, or is told there twice
stuck       what does not come to rest
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from state.model.delivery import OrderMode
from tests.simulation.counterparts import Record, Target, record_in
from tests.simulation.estate import HUB, ROUTES
from tests.simulation.world import World

KINDS: Final = ("lost", "doubled", "inverted", "untold", "stuck", "own fault")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def judge(world: World) -> list[Finding]:
    """Whatever is wrong in the ledgers."""
    produced = _produced(world)
    found: list[Finding] = []
    for name, target in world.counterparts.targets.items():
        wanted = {flow: records for flow, records in produced.items() if name in ROUTES[flow].targets}
        found += _of_target(target, wanted)
    found += _untold(world)
    return found


def _produced(world: World) -> dict[str, list[Record]]:
    return {
        flow: [record for document in producer.documents for record in document]
        for flow, producer in world.counterparts.producers.items()
    }


def _of_target(target: Target, wanted: dict[str, list[Record]]) -> Iterator[Finding]:
    effects = Counter(effect.record for effect in target.ledger)
    refused = {record for _, record in target.refusals}
    newest: dict[tuple[str, str], int] = {}
    for flow, key, revision in effects:
        newest[flow, key] = max(revision, newest.get((flow, key), 0))
    expected = {record for records in wanted.values() for record in records}
    for record in sorted(expected - set(effects) - refused):
        flow, key, revision = record
        if ROUTES[flow].order is not OrderMode.LATEST or newest.get((flow, key), 0) < revision:
            yield Finding("lost", f"{_shown(record)} never came to {target.name}")
    for record in sorted(set(effects) - expected):
        yield Finding("doubled", f"{_shown(record)} came to {target.name}, and nobody sent it there")
    for record, count in sorted(effects.items()):
        if count > 1:
            at = ", ".join(f"{effect.at:.3f}" for effect in target.ledger if effect.record == record)
            yield Finding("doubled", f"{_shown(record)} took effect {count} times at {target.name}: at {at}")
    yield from _inverted(target)


def _inverted(target: Target) -> Iterator[Finding]:
    last: defaultdict[tuple[str, str], int] = defaultdict(int)
    seen: set[Record] = set()
    for effect in target.ledger:
        flow, key, revision = effect.record
        if ROUTES[flow].order is OrderMode.ANY or effect.record in seen:
            continue
        seen.add(effect.record)
        if revision < last[flow, key]:
            detail = (
                f"{_shown(effect.record)} took effect at {effect.at:.3f} at {target.name}, after rev {last[flow, key]}"
            )
            yield Finding("inverted", detail)
        last[flow, key] = max(last[flow, key], revision)


_TOLD: Final = """
SELECT cause.data, answer.data FROM events answer JOIN origins o ON o.id = answer.origin_id
JOIN events cause ON cause.id = answer.causation_id WHERE o.op = 'ack'
"""


def _untold(world: World) -> Iterator[Finding]:
    """What is told, where an event arose and at the hub, of what its targets took."""
    told = {name: _told(machine.disk.connection) for name, machine in world.machines.items()}
    for name, target in world.counterparts.targets.items():
        for record in sorted({effect.record for effect in target.ledger}):
            if ROUTES[record[0]].order is OrderMode.LATEST:
                continue  # one that lands late may have been superseded meanwhile
            for site in {HUB, ROUTES[record[0]].source.partition("/")[0]}:
                if (name, record) not in told[site]:
                    yield Finding("untold", f"{site} does not know that {name} took {_shown(record)}")


def _told(connection: sqlite3.Connection) -> set[tuple[str, Record]]:
    return {
        (said["target"], record_in(cause))
        for cause, answer in connection.execute(_TOLD)
        if (said := orjson.loads(answer))["state"] == "delivered"
    }


def _shown(record: Record) -> str:
    flow, key, revision = record
    return f"{flow} {key} rev {revision}"
