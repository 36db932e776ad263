"""Posts deliveries under their idempotency key and asks for them by it.

Order: the parcels of one call go one after another. After one that did not end well, later ones of its partition key are
not sent, and after `NotConnectedError` none is. With `batch` they go as one array, and each has its own answer.

Crash behaviour: nothing is kept here; what was sent and not answered is in doubt at the agent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import orjson

from connectors.base import Found, NotFound, Outcome, Parcel, Surroundings
from connectors.http.answers import DOCUMENT_SIZE, OutcomeMap, meaning_of_status, parse, retry_after
from connectors.http.client import Answer, HttpClient
from connectors.http.pointer import ABSENT, find, find_text
from connectors.http.settings import BatchSettings, HttpSinkSettings, Meaning, ProbeSettings, Rule
from state.model.delivery import OutcomeKind
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from state.model.visible import shown

Result = Outcome | DistctlError

_OVERHEAD: Final = 128  # bytes a record for its key field and punctuation


class HttpSink:
    """A sink over HTTP."""

    def __init__(self, settings: HttpSinkSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._clock = surroundings.clock
        self._client = HttpClient(settings, home=surroundings.home, deadline=surroundings.deadline)
        self._map = self._outcome_map(settings.rules)
        probe, batch = settings.probe, settings.batch
        self._probe_map = None if probe is None else self._outcome_map(probe.rules, reference=probe.reference)
        self._batch_map = self._map if batch is None else self._outcome_map(batch.rules)

    async def deliver(self, parcels: Sequence[Parcel]) -> Sequence[Result]:
        """One answer for each parcel, in their order; all of it inside one deadline."""
        until = self._client.deadline()
        if self._settings.batch is None:
            return await self._deliver_each(parcels, until)
        return await self._deliver_batches(parcels, self._settings.batch, until)

    async def probe(self, parcel: Parcel) -> Found | NotFound:
        """Ask the target for our key. Raises `NotConnectedError` or `TransientError` where it cannot be asked now."""
        return await self._ask(parcel, self._client.deadline())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # --- one by one ---------------------------------------------------------------------------------------------------

    async def _deliver_each(self, parcels: Sequence[Parcel], until: float) -> list[Result]:
        results: list[Result] = []
        stuck: set[str] = set()
        for parcel in parcels:
            if stop := _stops_all(results):
                result: Result = stop
            elif parcel.partition_key in stuck or (results and _is_over(until)):
                result = _not_sent()
            else:
                result = await self._deliver_one(parcel, until)
            if not _ended_well(result):
                stuck.add(parcel.partition_key)
            results.append(result)
        return results

    async def _deliver_one(self, parcel: Parcel, until: float) -> Result:
        settings = self._settings
        try:
            address = self._client.address(_filled(settings.path, parcel))
            answer = await self._client.send(
                settings.method,
                address,
                body=parcel.payload,
                headers={"content-type": "application/json", settings.key_header: parcel.idempotency_key},
                until=until,
            )
        except (RejectedError, NotConnectedError, InDoubtError, TransientError) as error:
            return error
        return await self._read(answer, parcel, self._map, until)

    async def _read(self, answer: Answer, parcel: Parcel, outcomes: OutcomeMap, until: float) -> Result:
        result = outcomes.read(answer)
        if answer.status == 409 and self._settings.conflict == "by_key" and not outcomes.has_rule_for(answer):
            return outcomes.as_meant(await self._whose_conflict(answer, parcel, until), answer)
        return result

    async def _whose_conflict(self, answer: Answer, parcel: Parcel, until: float) -> Meaning:
        """Whether a 409 is our own delivery that is already there, or somebody else's business.

        The answer may name our key. Otherwise the target is asked; where it has nothing, a first sending met another's
        conflict, and a second may be running beside the first (draft-ietf-httpapi-idempotency-key-header, 2.7).
        """
        if _names(parcel.idempotency_key, answer):
            return Meaning.DUPLICATE
        probe = self._settings.probe
        if probe is None:
            return Meaning.DUPLICATE if parcel.is_resend else Meaning.REJECTED
        if not probe.asks_by_key:
            return Meaning.IN_DOUBT if parcel.is_resend else Meaning.REJECTED
        try:
            found = await self._ask(parcel, until)
        except (NotConnectedError, TransientError):
            return Meaning.IN_DOUBT
        if isinstance(found, Found):
            return Meaning.DUPLICATE
        return Meaning.IN_DOUBT if parcel.is_resend else Meaning.REJECTED

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, parcel: Parcel, until: float) -> Found | NotFound:
        probe, outcomes = self._settings.probe, self._probe_map
        if probe is None or outcomes is None:
            raise TransientError(
                "this target cannot be asked", hint="set probe in the sink's settings", code="no-probe"
            )
        try:
            address = self._client.address(_filled(probe.path, parcel))
        except RejectedError as error:
            return NotFound(detail=error.message)
        answer = await self._client.ask(address, until=until)
        if answer.status == 404 and not probe.is_search:
            return NotFound(detail=f"{answer.call} answered 404")
        if answer.status != 200:
            raise self._cannot_ask(answer)
        records = _records_of(parcel, answer, probe)
        if not records:
            return NotFound(detail=f"{answer.call} has no record of ours")
        return Found(outcome=self._found(records, answer, outcomes))

    def _found(self, records: list[object], answer: Answer, outcomes: OutcomeMap) -> Outcome:
        """The outcome of what is there. A record that a rule calls wrong has been taken and refused."""
        record = Answer(call=answer.call, status=200, headers={}, body=orjson.dumps(records[0]))
        match outcomes.read(record):
            case Outcome() as outcome:
                found = outcome
            case DuplicateError(reference=reference):
                found = Outcome(kind=OutcomeKind.ACCEPTED, reference=reference, document=record.body[:DOCUMENT_SIZE])
            case RejectedError() as error:
                found = Outcome(kind=OutcomeKind.REJECTED, detail=str(error), document=record.body[:DOCUMENT_SIZE])
            case error:
                raise TransientError(error.message, hint="it is asked again", code=error.code)
        return found if len(records) == 1 else replace(found, detail=f"{len(records)} records there carry it")

    def _cannot_ask(self, answer: Answer) -> DistctlError:
        """A 404 of a search, or any other no to the question itself, says nothing about the delivery."""
        stops = meaning_of_status(answer.status) in (Meaning.NOT_CONNECTED, Meaning.REJECTED)
        kind = NotConnectedError if stops else TransientError
        return kind(
            f"{answer.call} answered {answer.status}",
            retry_after=retry_after(answer.headers.get("retry-after", ""), now=self._clock.now()),
            hint="the target could not be asked; look at auth and at the path of probe"
            if stops
            else "it is asked again",
            code=f"http-{answer.status}",
        )

    # --- several in one call ------------------------------------------------------------------------------------------

    async def _deliver_batches(self, parcels: Sequence[Parcel], batch: BatchSettings, until: float) -> list[Result]:
        results: list[Result] = []
        for group in _groups(parcels, batch.body_limit):
            if stop := _stops_all(results):
                results.extend(stop for _ in group)
            elif results and (_is_over(until) or not all(map(_ended_well, results))):
                results.extend(_not_sent() for _ in group)
            else:
                results.extend(await self._deliver_group(group, batch, until))
        return results

    async def _deliver_group(self, group: Sequence[Parcel], batch: BatchSettings, until: float) -> list[Result]:
        try:
            answer = await self._client.send(
                self._settings.method,
                self._client.address(self._settings.path if batch.path is None else batch.path),
                body=_array(group, batch),
                headers={"content-type": "application/json"},
                until=until,
            )
        except (NotConnectedError, InDoubtError, TransientError) as error:
            return [error for _ in group]
        # 207 says that each item has an answer of its own, which is what is read here
        whole = self._map.read(replace(answer, status=200) if answer.status == 207 else answer)
        if isinstance(whole, Outcome):
            return await self._read_each(group, answer, whole, batch, until)
        if isinstance(whole, RejectedError) and len(group) > 1:
            return await self._deliver_apart(group, batch, until)
        if len(group) == 1:
            return [await self._read(answer, group[0], self._map, until)]
        return [whole for _ in group]

    async def _deliver_apart(self, group: Sequence[Parcel], batch: BatchSettings, until: float) -> list[Result]:
        """One bad record never fails its group: what is refused as a whole goes again one by one."""
        results: list[Result] = []
        for parcel in group:
            if stop := _stops_all(results):
                results.append(stop)
            elif _is_over(until):
                results.append(_not_sent())
            else:
                results.extend(await self._deliver_group([parcel], batch, until))
        return results

    async def _read_each(
        self, group: Sequence[Parcel], answer: Answer, whole: Outcome, batch: BatchSettings, until: float
    ) -> list[Result]:
        items = find(parse(answer.body), batch.results)
        if not isinstance(items, list) and whole.kind is OutcomeKind.DELAYED:
            return [whole for _ in group]
        matched = _matched(group, items, batch)
        return [
            _not_answered(answer) if item is None else await self._read_item(item, parcel, answer, batch, until)
            for parcel, item in zip(group, matched, strict=True)
        ]

    async def _read_item(
        self, item: dict[str, object], parcel: Parcel, answer: Answer, batch: BatchSettings, until: float
    ) -> Result:
        status = _status(item, batch.status)
        one = Answer(call=answer.call, status=status or answer.status, headers={}, body=orjson.dumps(item))
        if status is not None:
            return await self._read(one, parcel, self._batch_map, until)
        return self._batch_map.read(one, status_counts=False)

    def _outcome_map(self, rules: Sequence[Rule], *, reference: str | None = None) -> OutcomeMap:
        conflict = self._settings.conflict
        return OutcomeMap(
            rules=rules,
            reference=self._settings.reference if reference is None else reference,
            server_errors=Meaning(self._settings.server_errors),
            conflict=Meaning.REJECTED if conflict == "by_key" else Meaning(conflict),
            ask_again=self._settings.ask_again,
            clock=self._clock,
            safe=self._client.safe,
            without_secrets=self._client.without_secrets,
        )


def _filled(template: str, parcel: Parcel) -> str:
    """The path with our key and the business key in it, percent-encoded so that neither can leave its place."""
    if "{" not in template:
        return template
    if "{subject}" in template and parcel.subject in ("", ".", ".."):
        raise _unfit(parcel.subject)
    try:
        return template.format(key=quote(parcel.idempotency_key, safe=""), subject=quote(parcel.subject, safe=""))
    except UnicodeEncodeError:
        raise _unfit(parcel.subject) from None


def _unfit(subject: str) -> RejectedError:
    return RejectedError(
        f"the business key {shown(subject)} cannot stand in an address",
        rule="a business key in a path is text that is not empty, . or ..",
        shown=shown(subject),
        hint="correct the key, or take {subject} out of path",
        code="subject-in-path",
    )


def _names(key: str, answer: Answer) -> bool:
    return key.encode() in answer.body or any(key in value for value in answer.headers.values())


def _records_of(parcel: Parcel, answer: Answer, probe: ProbeSettings) -> list[object]:
    """The records in the answer that are ours. Raises `TransientError` for an answer of another shape."""
    document = parse(answer.body)
    found = find(document, probe.records)
    if document is ABSENT or (found is ABSENT and probe.is_search):
        raise TransientError(
            f"{answer.call} answered with something that has no records at {probe.records or 'its root'}",
            hint="look at records of probe; it is asked again",
            code="unreadable-answer",
        )
    records = found if isinstance(found, list) else [found]
    wanted = {
        pointer: template.format(key=parcel.idempotency_key, subject=parcel.subject)
        for pointer, template in probe.match.items()
    }
    return [
        record
        for record in records
        if isinstance(record, dict) and all(find_text(record, pointer) == text for pointer, text in wanted.items())
    ]


def _groups(parcels: Sequence[Parcel], body_limit: int) -> Iterator[list[Parcel]]:
    """Consecutive parcels that fit into one request; one that is too long goes alone."""
    group: list[Parcel] = []
    size = 0
    for parcel in parcels:
        length = len(parcel.payload) + len(parcel.idempotency_key) + _OVERHEAD
        if group and size + length > body_limit:
            yield group
            group, size = [], 0
        group.append(parcel)
        size += length
    if group:
        yield group


def _array(group: Sequence[Parcel], batch: BatchSettings) -> bytes:
    """The records as one JSON array, each with its key put first; the payloads stay digit for digit."""
    key_field = orjson.dumps(batch.key_field)
    array = b"[%s]" % b",".join(_keyed(parcel, key_field) for parcel in group)
    return array if batch.wrap is None else b"{%s:%s}" % (orjson.dumps(batch.wrap), array)


def _keyed(parcel: Parcel, key_field: bytes) -> bytes:
    inside = parcel.payload.strip()[1:-1].strip()
    key = orjson.dumps(parcel.idempotency_key)
    return b"{%s:%s,%s}" % (key_field, key, inside) if inside else b"{%s:%s}" % (key_field, key)


def _matched(group: Sequence[Parcel], items: object, batch: BatchSettings) -> list[dict[str, object] | None]:
    """The answer of each parcel, None where there is none that is surely its own."""
    answers = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if batch.result_key is None:
        is_whole = isinstance(items, list) and len(answers) == len(items) == len(group)
        return list(answers) if is_whole else [None] * len(group)
    keys = [find_text(item, batch.result_key) for item in answers]
    times = Counter(keys)
    by_key = {key: item for key, item in zip(keys, answers, strict=True) if times[key] == 1}
    return [by_key.get(parcel.idempotency_key) for parcel in group]


def _status(item: dict[str, object], pointer: str) -> int | None:
    status = find(item, pointer)
    return status if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 999 else None


def _not_answered(answer: Answer) -> InDoubtError:
    return InDoubtError(
        f"{answer.call} answered {answer.status} without a word that is surely about this one",
        hint="it is asked, or sent again under the same key; look at batch.results and batch.result_key",
        code="not-answered",
    )


def _not_sent() -> NotConnectedError:
    """It failed by no fault of its own, so this must not count against it."""
    return NotConnectedError("not sent: an earlier one of the same call did not end well", code="not-sent")


def _stops_all(results: Sequence[Result]) -> NotConnectedError | None:
    """The error that makes sending more pointless: the system is out of reach, not merely one parcel held back."""
    last = results[-1] if results else None
    return last if isinstance(last, NotConnectedError) and last.code != "not-sent" else None


def _ended_well(result: Result) -> bool:
    return isinstance(result, Outcome | DuplicateError)


def _is_over(until: float) -> bool:
    return asyncio.get_running_loop().time() >= until
