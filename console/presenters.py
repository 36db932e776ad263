"""From wire types to rows for people: pure, and the same for `distctl` and the console.

A column takes its raw value and leaves the wording to `words`, so that whoever sorts sorts values and not texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

NOTHING: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading, its value of a row, and whether it is a number that lines up at the right."""

    title: str
    value: Callable[[Any], object]
    is_number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How one kind of row is listed, and what is said when there are none."""

    columns: Sequence[Column]
    empty: str


def words(value: object) -> str:
    """A value as people read it. Unknown is `-` and never 0; times are UTC to the second."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return moment(value)
        case list() | tuple():
            return ", ".join(words(one) for one in value) or NOTHING
        case _:
            return str(value)


def moment(value: datetime) -> str:
    """`2026-03-02 09:00:12Z`."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def mebibytes(size: int | None) -> str | None:
    """`1,024.0 MiB`; None stays None."""
    return None if size is None else f"{size / 1024**2:,.1f} MiB"


def age(since: datetime | None, now: datetime) -> str | None:
    """How long ago, as `span`. None stays None."""
    return None if since is None else span((now - since).total_seconds())


def span(seconds: float | None) -> str | None:
    """A time in the largest unit that leaves a number: `12s`, `4m`, `3h`, `9d`. None stays None."""
    if seconds is None:
        return None
    whole = max(int(seconds), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def lane_state(lane: Any) -> str:
    """The lane in one word: what a person did comes before what the target does."""
    if lane.state != "open":
        return str(lane.state)
    return "unreachable" if lane.breaker != "closed" else "open"


def lanes(now: datetime) -> Listing:
    """Lanes as `status` shows them at `now`."""
    return Listing(
        columns=(
            Column(title="FLOW", value=lambda lane: lane.flow),
            Column(title="TARGET", value=lambda lane: lane.target + (" (shadow)" if lane.shadow_of else "")),
            Column(title="STATE", value=lane_state),
            _number("BACKLOG", lambda lane: lane.backlog),
            _number("BEHIND", lambda lane: lane.waiting_behind or None),
            _number("WAITS", lambda lane: age(lane.due_since, now)),
            _number("DOUBT", lambda lane: lane.in_doubt),
            _number("PARKED", lambda lane: lane.parked),
            _number("DONE", lambda lane: lane.delivered),
            Column(title="WHY", value=lambda lane: lane.breaker_reason if lane.breaker != "closed" else ""),
        ),
        empty="no lanes: no flow delivers to a system of this site",
    )


def flows(now: datetime) -> Listing:
    """Flows as `flows` shows them at `now`."""
    return Listing(
        columns=(
            Column(title="FLOW", value=lambda flow: flow.flow + ("" if flow.in_force else " (gone)")),
            _number("TIER", lambda flow: flow.tier),
            _number("READ", lambda flow: flow.records),
            _number("BAD", lambda flow: flow.unreadable),
            _number("BACKLOG", lambda flow: flow.backlog),
            _number("BEHIND", lambda flow: flow.waiting_behind or None),
            _number("PARKED", lambda flow: flow.parked),
            _number("DONE", lambda flow: flow.delivered),
            _number("READ AGO", lambda flow: age(flow.last_batch_at, now)),
            Column(title="SOURCE", value=lambda flow: flow.source),
            Column(title="TARGETS", value=lambda flow: flow.targets),
            Column(title="OWNER", value=lambda flow: flow.owner),
        ),
        empty="no flows",
    )


def step_in_short(step: Any) -> str:
    """What became of an event here, or what another site said became of it there."""
    said = step.said
    if said is None:
        return deliveries_in_short(step)
    reason = f"({said.detail})" if said.detail and said.state == "parked" else ""
    return " ".join(part for part in (said.target, said.state, said.reference, reason) if part)


def deliveries_in_short(event: Any) -> str:
    """`dc/erp delivered PO-17, dc/wms parked (letter 3: no such supplier)`."""
    return ", ".join(
        " ".join(part for part in (one.target, one.state, one.reference, _obstacle(one)) if part)
        for one in event.deliveries
    )


def _obstacle(delivery: Any) -> str:
    if delivery.letter is not None:
        return f"(letter {delivery.letter}: {delivery.reason})"
    if delivery.behind_letter is not None:
        return f"(waiting behind delivery {delivery.behind}, letter {delivery.behind_letter})"
    return f"(waiting behind delivery {delivery.behind})" if delivery.behind is not None else ""


def _number(title: str, value: Callable[[Any], object]) -> Column:
    return Column(title=title, value=value, is_number=True)


EVENTS: Final = Listing(
    columns=(
        _number("SEQ", lambda event: event.seq),
        Column(title="RECORDED", value=lambda event: event.recorded_at),
        Column(title="FLOW", value=lambda event: event.flow),
        Column(title="OP", value=lambda event: event.op),
        Column(title="KEY", value=lambda event: event.subject),
        Column(title="DELIVERIES", value=deliveries_in_short),
    ),
    empty="no events",
)

STEPS: Final = Listing(
    columns=(
        Column(title="RECORDED", value=lambda step: step.recorded_at),
        Column(title="SYSTEM", value=lambda step: step.source),
        Column(title="CONTRACT", value=lambda step: step.contract),
        Column(title="OP", value=lambda step: step.op),
        Column(title="KEY", value=lambda step: step.subject),
        Column(title="PLACE", value=lambda step: step.place),
        Column(title="DELIVERIES", value=step_in_short),
    ),
    empty="nothing is known of this key",
)

DEAD_LETTERS: Final = Listing(
    columns=(
        _number("ID", lambda letter: letter.id),
        Column(title="PARKED", value=lambda letter: letter.parked_at),
        Column(title="FLOW", value=lambda letter: letter.flow),
        Column(title="KEY", value=lambda letter: letter.subject),
        Column(title="PLACE", value=lambda letter: " ".join(part for part in (letter.place, letter.field) if part)),
        Column(title="CODE", value=lambda letter: letter.code),
        Column(title="SHOWN", value=lambda letter: letter.shown),
        Column(title="RULE", value=lambda letter: letter.rule),
        Column(title="DO", value=lambda letter: letter.hint),
    ),
    empty="no dead letters",
)

IN_DOUBT: Final = Listing(
    columns=(
        _number("DELIVERY", lambda row: row.delivery),
        Column(title="FLOW", value=lambda row: row.flow),
        Column(title="TARGET", value=lambda row: row.target),
        Column(title="KEY", value=lambda row: row.subject),
        Column(title="FIRST SENT", value=lambda row: row.first_sent_at),
        _number("TRIES", lambda row: row.attempts),
        Column(title="NEXT", value=lambda row: row.due_at or "asks a person"),
        Column(title="DETAIL", value=lambda row: row.detail),
    ),
    empty="nothing is in doubt",
)

AUDIT: Final = Listing(
    columns=(
        _number("SEQ", lambda entry: entry.seq),
        Column(title="AT", value=lambda entry: entry.at),
        Column(title="ACTOR", value=lambda entry: entry.actor),
        Column(title="ACTION", value=lambda entry: entry.action),
        Column(title="TARGET", value=lambda entry: entry.target),
        Column(title="REASON", value=lambda entry: entry.reason),
    ),
    empty="the audit has no entries",
)

TOKENS: Final = Listing(
    columns=(
        Column(title="NAME", value=lambda token: token.name),
        Column(title="PERSON", value=lambda token: token.person),
        Column(title="STATE", value=lambda token: token.state),
        Column(title="ROLES", value=lambda token: token.roles),
        Column(title="SITES", value=lambda token: "every site" if token.sites is None else token.sites),
        Column(title="EXPIRES", value=lambda token: token.expires_at),
        Column(title="LAST USED", value=lambda token: token.last_used_at),
        Column(title="MADE BY", value=lambda token: token.created_by),
        Column(title="REVOKED", value=lambda token: token.revoked_at),
        Column(title="REASON", value=lambda token: token.reason),
    ),
    empty="no tokens",
)


def estate_of(row: Any) -> str:
    """Which bundle an agent has in force, and which one it refuses and why."""
    bundle = row.bundle
    if bundle is None:
        return ""
    in_force = f"{bundle.number} {bundle.estate[:8]}" if bundle.number else "its folder"
    trial = " on trial" if bundle.state == "trial" else ""
    refused = f", refused {bundle.refused}: {bundle.reason}" if bundle.refused else ""
    return f"{in_force}{trial}{refused}"


def agent_state(row: Any) -> str:
    """How another agent stands, and whether it drains: `open`, `open, drained`."""
    drain = row.said.get("drain")
    return f"{row.state}, {drain.get('state')}" if isinstance(drain, dict) else str(row.state)


def agent_facts(row: Any) -> dict[str, object]:
    """What is known of another agent, with what it told of itself as facts of their own: `owes deliveries`."""
    facts: dict[str, object] = row.model_dump(mode="json", exclude={"gaps", "said", "bundle"})
    for name, said in row.said.items():
        facts |= {f"{name} {part}": fact for part, fact in said.items()} if isinstance(said, dict) else {name: said}
    return {_PLAINLY.get(name, name): fact for name, fact in facts.items()}


_PLAINLY: Final = {
    "refused_at": "another store refused at",
    "waiting": "events that it does not have yet",
    "done_in": "seconds until it has them",
    "audit_kept": "audit entries copied here",
    "units_queued": "writes that wait for its store",
    "clock_skew_seconds": "its clock is ahead by seconds",
    "queues deliveries": "owes deliveries",
    "queues parked": "has parked",
    "queues events": "owes events to other agents",
    "queues unapplied": "events that wait for their estate",
}
"""What people read of an agent where its JSON has another name."""

AGENTS: Final = Listing(
    columns=(
        Column(title="AGENT", value=lambda row: row.agent),
        Column(title="STATE", value=agent_state),
        Column(title="HEARD", value=lambda row: row.heard_at),
        _number("WAITING", lambda row: row.waiting),
        Column(title="DONE IN", value=lambda row: span(row.done_in)),
        _number("EPOCH", lambda row: row.epoch or None),
        Column(title="ESTATE", value=estate_of),
        Column(title="CERTIFICATE UNTIL", value=lambda row: row.certificate_until),
        Column(title="REASON", value=lambda row: row.reason),
        Column(title="TO DO", value=lambda row: row.to_do),
    ),
    empty="no other agents",
)

BACKUPS: Final = Listing(
    columns=(
        Column(title="BACKUP", value=lambda one: one.name),
        Column(title="TAKEN", value=lambda one: one.taken_at),
        Column(title="SITE", value=lambda one: one.site),
        _number("EPOCH", lambda one: one.epoch or None),
        _number("EVENTS", lambda one: one.events),
        _number("UP TO", lambda one: one.last_event),
        Column(title="SIZE", value=lambda one: mebibytes(one.size), is_number=True),
        Column(title="VERSION", value=lambda one: one.version),
        Column(title="PROBLEM", value=lambda one: one.problem),
    ),
    empty="no backups in this folder",
)

TRIES: Final = Listing(
    columns=(
        _number("TRY", lambda one: one.number),
        Column(title="ENDED", value=lambda one: one.ended_at),
        Column(title="CALL", value=lambda one: one.verdict),
        Column(title="LED TO", value=lambda one: one.result),
        Column(title="CODE", value=lambda one: one.code),
        Column(title="DETAIL", value=lambda one: one.detail),
    ),
    empty="no try went wrong",
)
