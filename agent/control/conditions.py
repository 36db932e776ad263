"""What is so now and may need a person: pure, from the lanes and what the agent says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from agent.control.schema import AgentRow, AuditFinding, Condition, DrainView, LaneRow
from state.unapplied import Strange

_NAMED: Final = 5
"""Sites that a condition names: all may be silent at once, when their hub was away."""


def conditions_of(
    lanes: Sequence[LaneRow],
    *,
    open_dead_letters: int,
    troubles: Sequence[str],
    audits: Sequence[AuditFinding] = (),
    drain: DrainView | None = None,
    strange: Sequence[Strange] = (),
    agents: Sequence[AgentRow] = (),
) -> list[Condition]:
    """The conditions that hold, the most urgent first. A shadow lane counts for nothing.

    `agents` are those that a hub sees.
    """
    counted = [lane for lane in lanes if not lane.shadow_of]
    found = [*_conditions(counted, open_dead_letters, troubles, audits), *_unknown_estates(strange)]
    found += _sites(agents)
    return [*found, _draining(drain)] if drain is not None and drain.since is not None else found


def _conditions(
    lanes: Sequence[LaneRow], letters: int, troubles: Sequence[str], audits: Sequence[AuditFinding]
) -> Iterator[Condition]:
    if troubles:
        yield Condition(name="trouble", count=len(troubles), text="; ".join(troubles))
    if audits:
        text = "; ".join(f"{finding.text}: {finding.to_do}" for finding in audits)
        yield Condition(name="audit", count=len(audits), text=text)
    if doubts := sum(lane.in_doubt for lane in lanes):
        yield Condition(name="in-doubt", count=doubts, text=f"{doubts:,} in doubt: distctl indoubt list")
    if letters:
        yield Condition(name="parked", count=letters, text=f"{_dead_letters(letters)}: distctl dlq list")
    if behind := sum(lane.waiting_behind for lane in lanes):
        text = f"{behind:,} waiting behind what was set aside or is in doubt: distctl trace KEY"
        yield Condition(name="waiting-behind", count=behind, text=text)
    if cut_off := sorted({lane.target for lane in lanes if lane.breaker != "closed"}):
        yield Condition(name="unreachable", count=len(cut_off), text=f"unreachable: {', '.join(cut_off)}")
    for state in ("held", "frozen"):
        if stopped := [f"{lane.flow} to {lane.target}" for lane in lanes if lane.state == state]:
            yield Condition(name=state, count=len(stopped), text=f"{state}: {', '.join(stopped)}")
    if backlog := sum(lane.backlog for lane in lanes):
        yield Condition(name="backlog", count=backlog, text=f"{backlog:,} on their way")


def _unknown_estates(strange: Sequence[Strange]) -> Iterator[Condition]:
    if strange:
        told = "; ".join(f"{one.count:,} of {one.site} for estate {one.estate[:8]}" for one in strange)
        text = f"events wait for an estate that was never in force here: {told}"
        yield Condition(name="unknown-estate", count=sum(one.count for one in strange), text=text)


def _sites(agents: Sequence[AgentRow]) -> Iterator[Condition]:
    """The sites that are not in step: kept out until a person decides, silent, or with a store that is refused."""
    silent_last = sorted(agents, key=lambda row: row.state == "silent")  # the others wait for a person
    told = [one for row in silent_last if (one := _out_of_step(row))]
    if told:
        others = [f"{len(told) - _NAMED:,} others as well"] if len(told) > _NAMED else []
        text = f"{'; '.join([*told[:_NAMED], *others])}: distctl agents list"
        yield Condition(name="sites", count=len(told), text=text)


def _out_of_step(row: AgentRow) -> str:
    """`north is silent since 2026-03-02 08:58:59Z`; empty where a site is in step, or a person keeps it out."""
    since = f" since {row.heard_at:%Y-%m-%d %H:%M:%SZ}" if row.state == "silent" and row.heard_at else ""
    said = [f"is {row.state}{since}"] if row.state in {"fenced", "awaited", "silent"} else []
    said += ["has a store that is refused"] if row.refused_at else []
    return f"{row.agent} {' and '.join(said)}" if said else ""


def _draining(drain: DrainView) -> Condition:
    text = f"{drain.state}, and nothing is taken in since {drain.since:%Y-%m-%d %H:%M:%SZ} ({drain.reason})"
    return Condition(name="draining", count=1, text=f"{text}: distctl agents undrain SITE --reason ...")


def _dead_letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"
