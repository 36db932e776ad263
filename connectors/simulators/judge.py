"""Compares what was published with what arrived, ledger against ledger, and says what is wrong.

Every figure comes from records that the counterparts keep themselves. Only the list of parked records is the agent's own word,
and that is held line by line against the planner's and the warehouse's lists of what they spoiled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.simulators.erp_faults import Fault
from connectors.simulators.ledger import rows

LEAST_PLANNED: Final = 1000
LEAST_REVISIONS: Final = 5
LEAST_KEYS: Final = 100
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """Where the counterparts keep their records."""

    planning: Path
    erp: Path
    wms: Path
    shop: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as a ledger has it: `number` orders what is said about `reference`."""

    reference: str
    number: int
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """A record that its system spoiled on purpose; `field` must be named in the complaint, if it is not empty."""

    file: str
    line: int
    kind: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A dead letter as the agent shows it; `text` is everything that it says about it."""

    file: str
    line: int
    rule: str
    hint: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One flow and target. `planned` counts what was published, spoiled or not; `altered` what arrived and was not that."""

    flow: str
    planned: int
    injected_bad: int
    delivered: int
    lost: Sequence[str]
    doubled: Sequence[str]
    order_inversions: Sequence[str]
    altered: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim and whether it holds."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the ledgers say of a whole run. The tallies are recommendations first, then those of the other flows."""

    tallies: Sequence[Tally]
    parked: int
    checks: Sequence[Check]


def judge(ledgers: Ledgers, parked: Sequence[Parked]) -> Verdict:
    """The verdict on everything that happened so far."""
    tallies = tally_all(ledgers)
    spoiled = spoiled_records(ledgers)
    checks = [
        *_planned_enough(ledgers),
        _adds_up(tallies[0]),
        *(check for tally in tallies for check in _arrived(tally)),
        *_parked_exactly(spoiled, parked),
        _misbehaved(ledgers),
    ]
    from_planning = {row[0] for row in rows(ledgers.planning, "SELECT file FROM published")}
    return Verdict(tallies=tallies, parked=sum(each.file in from_planning for each in parked), checks=checks)


def tally_all(ledgers: Ledgers) -> Sequence[Tally]:
    """Recommendations to the ERP, confirmations to planning, stock to the ERP and to planning, orders to the warehouse."""
    planned = _documents(ledgers.planning, "SELECT reco_id, revision, content FROM planned WHERE spoiled = ''")
    confirmed = _documents(ledgers.erp, "SELECT po_no, revision, content FROM confirmations ORDER BY number")
    counted = _documents(ledgers.wms, "SELECT sku, snapshot, content FROM counted WHERE spoiled = ''")
    ordered = _documents(ledgers.shop, "SELECT customer, number, content FROM ordered")
    return (
        _tally(
            "recommendations to the ERP",
            planned,
            _applied(ledgers, "order"),
            _count_spoiled(ledgers.planning, "planned"),
        ),
        _tally("confirmations to planning", confirmed, _taken(ledgers.planning, "confirmation"), 0),
        _tally(
            "stock to the ERP", counted, _applied(ledgers, "stock"), _count_spoiled(ledgers.wms, "counted"), latest=True
        ),
        _tally(
            "stock to planning",
            counted,
            _taken(ledgers.planning, "stock"),
            _count_spoiled(ledgers.wms, "counted"),
            latest=True,
        ),
        _tally("orders to the warehouse", ordered, _taken(ledgers.wms, "order"), 0),
    )


def spoiled_records(ledgers: Ledgers) -> Sequence[Spoiled]:
    """Everything that must be parked, and nothing else may be."""
    found = [
        *rows(ledgers.planning, "SELECT file, line, spoiled, spoiled_field FROM planned WHERE spoiled <> ''"),
        *rows(ledgers.wms, "SELECT file, line, spoiled, spoiled_field FROM counted WHERE spoiled <> ''"),
    ]
    return [Spoiled(file=file, line=line, kind=kind, field=field) for file, line, kind, field in found]


def is_published(ledgers: Ledgers) -> bool:
    """Whether planning, warehouse and shop have put out all they had."""
    return all(rows(path, "SELECT 1 FROM finished") for path in (ledgers.planning, ledgers.wms, ledgers.shop))


def count_weeks(ledgers: Ledgers) -> int:
    """Weeks that everybody has published so far."""
    counted = (
        rows(ledgers.planning, "SELECT count(DISTINCT file) FROM planned"),
        rows(ledgers.wms, "SELECT count(DISTINCT file) FROM counted"),
        rows(ledgers.shop, "SELECT count(DISTINCT file) FROM ordered"),
    )
    return min(int(count) for ((count,),) in counted)


def balances_since(ledgers: Ledgers, moment: float) -> tuple[int, int]:
    """What the warehouse has counted since then, in seconds since 1970: how many balances, and how many of them arrived."""
    counted = rows(ledgers.wms, "SELECT sku, snapshot FROM counted WHERE at > ? AND spoiled = ''", (moment,))
    arrived = {*rows(ledgers.erp, "SELECT reference, number FROM applied WHERE kind = 'stock'")}
    arrived |= {*rows(ledgers.planning, "SELECT reference, number FROM taken WHERE kind = 'stock'")}
    return len(counted), sum(balance in arrived for balance in counted)


def count_calls(ledgers: Ledgers, *, since: float, until: float) -> int:
    """How often the ERP was called to do something in that time, in seconds since 1970."""
    ((count,),) = rows(ledgers.erp, "SELECT count(*) FROM calls WHERE at > ? AND at < ?", (since, until))
    return int(count)


def _tally(
    flow: str, published: Sequence[Document], arrived: Sequence[Document], spoiled: int, *, latest: bool = False
) -> Tally:
    """With `latest` an older document may be passed over; without, each must arrive."""
    wanted = {(each.reference, each.number): each.content for each in published}
    times = Counter((each.reference, each.number) for each in arrived)
    owed = _last_of_each(wanted) if latest else set(wanted)
    return Tally(
        flow=flow,
        planned=len(wanted) + spoiled,
        injected_bad=spoiled,
        delivered=sum(document in times for document in wanted),
        lost=_named(owed - times.keys()),
        doubled=_named(document for document, count in times.items() for _ in range(count - 1)),
        order_inversions=_named(_inversions(arrived)),
        altered=_named(
            (each.reference, each.number)
            for each in arrived
            if wanted.get((each.reference, each.number)) != each.content
        ),
    )


def _inversions(arrived: Sequence[Document]) -> Iterable[tuple[str, int]]:
    """Documents that arrived after a newer one of their reference."""
    newest: dict[str, int] = defaultdict(int)
    for each in arrived:
        if each.number < newest[each.reference]:
            yield each.reference, each.number
        newest[each.reference] = max(newest[each.reference], each.number)


def _last_of_each(wanted: Mapping[tuple[str, int], str]) -> set[tuple[str, int]]:
    last: dict[str, int] = {}
    for reference, number in wanted:
        last[reference] = max(number, last.get(reference, 0))
    return set(last.items())


def _named(documents: Iterable[tuple[str, int]]) -> Sequence[str]:
    return [f"{reference} no. {number}" for reference, number in sorted(documents)]


def _planned_enough(ledgers: Ledgers) -> Sequence[Check]:
    ((planned,),) = rows(ledgers.planning, "SELECT count(*) FROM planned")
    often = "SELECT count(*) FROM (SELECT 1 FROM planned WHERE spoiled = '' GROUP BY reco_id HAVING count(*) >= ?)"
    ((keys,),) = rows(ledgers.planning, often, (LEAST_REVISIONS,))
    return (
        _check(f"at least {LEAST_PLANNED} recommendations planned", planned >= LEAST_PLANNED, f"{planned} planned"),
        _check(
            f"at least {LEAST_KEYS} keys with {LEAST_REVISIONS} or more revisions",
            keys >= LEAST_KEYS,
            f"{keys} keys, so order can be wrong",
        ),
    )


def _adds_up(tally: Tally) -> Check:
    return _check(
        "delivered = planned - injected_bad",
        tally.delivered == tally.planned - tally.injected_bad,
        f"{tally.delivered} = {tally.planned} - {tally.injected_bad}",
    )


def _arrived(tally: Tally) -> Sequence[Check]:
    def none(claim: str, wrong: Sequence[str]) -> Check:
        return _check(f"{tally.flow}: {claim}", not wrong, _listed(wrong) or f"{tally.delivered} delivered")

    return (
        none("none lost", tally.lost),
        none("none twice", tally.doubled),
        none("none out of order", tally.order_inversions),
        none("none altered", tally.altered),
    )


def _parked_exactly(spoiled: Sequence[Spoiled], parked: Sequence[Parked]) -> Sequence[Check]:
    expected = Counter((each.file, each.line) for each in spoiled)
    found = Counter((each.file, each.line) for each in parked)
    missing, surplus = _places(expected - found), _places(found - expected)
    mute = _places(Counter((each.file, each.line) for each in parked if not (each.rule and each.hint)))
    said = {(each.file, each.line): each.text for each in parked}
    unnamed = [
        f"{each.file} line {each.line}: {each.field}"
        for each in spoiled
        if (each.file, each.line) in said and each.field not in said[each.file, each.line]
    ]
    return (
        _check(
            "every spoiled record is parked, by file and line",
            not missing,
            _listed(missing) or f"{len(spoiled)} of them",
        ),
        _check("no valid record is parked", not surplus, _listed(surplus) or f"{len(parked)} parked in all"),
        _check("each parked record says rule and cure", not mute, _listed(mute) or "all do"),
        _check("each parked record names the field that was spoiled", not unnamed, _listed(unnamed) or "all do"),
    )


def _misbehaved(ledgers: Ledgers) -> Check:
    met = {row[0] for row in rows(ledgers.erp, "SELECT DISTINCT fault FROM calls")}
    missing = [fault.value for fault in Fault if fault.value not in met]
    return _check("the ERP misbehaved in every way it can", not missing, _listed(missing) or f"{len(Fault) - 1} ways")


def _applied(ledgers: Ledgers, kind: str) -> Sequence[Document]:
    query = "SELECT reference, number, content FROM applied WHERE kind = ? ORDER BY seq"
    return _documents(ledgers.erp, query, kind)


def _taken(ledger: Path, kind: str) -> Sequence[Document]:
    query = "SELECT reference, number, content FROM taken WHERE kind = ? ORDER BY seq"
    return _documents(ledger, query, kind)


def _documents(ledger: Path, query: str, *parameters: str) -> Sequence[Document]:
    return [
        Document(reference=reference, number=number, content=content)
        for reference, number, content in rows(ledger, query, parameters)
    ]


def _count_spoiled(ledger: Path, table: str) -> int:
    ((count,),) = rows(ledger, f"SELECT count(*) FROM {table} WHERE spoiled <> ''")  # noqa: S608 - our own table names
    return int(count)


def _check(name: str, ok: bool, detail: str) -> Check:
    return Check(name=name, ok=ok, detail=detail)


def _places(places: Counter[tuple[str, int]]) -> Sequence[str]:
    return [f"{file} line {line}" for file, line in sorted(places.elements())]


def _listed(wrong: Sequence[str]) -> str:
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"{len(wrong)}: {', '.join(wrong[:_SHOWN])}{more}" if wrong else ""
