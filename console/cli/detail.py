"""One thing in full: facts, then what it holds, then its history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from console.cli.output import Output

if TYPE_CHECKING:
    from agent.control.schema import (
        AttemptRow,
        DeadLetterDetail,
        DeliveryDetail,
        EventDetail,
        InDoubtDetail,
        RawBytes,
    )

_TOLD_APART = frozenset({"data", "history", "deliveries", "tries", "raw", "payload", "document", "as_of"})


def show_event(event: EventDetail, output: Output) -> None:
    """An event with its data and its deliveries."""
    if not output.is_for_people:
        output.record(event)
        return
    output.facts(_facts(event))
    if event.document:
        output.line(f"read from {event.document.name}, {event.document.size:,} bytes, SHA-256 {event.document.sha256}")
    output.line("data")
    for line in json.dumps(event.data, indent=2, ensure_ascii=False).splitlines():
        output.line(f"  {line}")
    for delivery in event.history:
        _show_delivery(delivery, output)


def _show_delivery(delivery: DeliveryDetail, output: Output) -> None:
    output.line(f"delivery {delivery.delivery} to {delivery.target}: {delivery.state}")
    output.facts({f"  {name}": value for name, value in _facts(delivery).items() if name not in {"delivery", "target"}})
    _show_tries(delivery.tries, output)


def show_dead_letter(letter: DeadLetterDetail, output: Output) -> None:
    """A dead letter with its cause, its cure and its raw bytes."""
    if not output.is_for_people:
        output.record(letter)
        return
    output.facts(_facts(letter))
    if letter.document:
        output.line(f"stood in {letter.document.name}, SHA-256 {letter.document.sha256}")
    _show_bytes("raw", letter.raw, output)
    _show_tries(letter.tries, output)


def show_in_doubt(row: InDoubtDetail, output: Output) -> None:
    """A delivery in doubt with the evidence."""
    if not output.is_for_people:
        output.record(row)
        return
    output.facts(_facts(row))
    if row.due_at is None:
        output.line("it waits for a person: the target neither remembers our key nor can be asked")
    _show_bytes("payload", row.payload, output)
    _show_tries(row.tries, output)


def _facts(record: object) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _TOLD_APART}


def _show_bytes(title: str, raw: RawBytes, output: Output) -> None:
    output.line(f"{title}, {raw.size:,} bytes{', the beginning' if raw.is_cut else ''}")
    for line in (raw.text if raw.text is not None else f"base64 {raw.base64}").splitlines():
        output.line(f"  {line}")


def _show_tries(tries: list[AttemptRow], output: Output) -> None:
    from console.presenters import TRIES

    if tries:
        output.rows(tries, TRIES)
