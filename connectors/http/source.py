"""Polls a list over HTTP: pages, a cursor with an overlap, and a memory that leaves out what the overlap shows twice.

Order: pages as the server gives them, records as they stand in a page. The cursor moves only with the last page of a whole
reading, so a reading that breaks off begins again where it began, and what was taken in of it is known by then.

Crash behaviour: nothing is kept here. The checkpoint is the cursor, the remembered items are (position, content).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from connectors.base import Batch, RawDocument, SourceRecord, Surroundings, UnreadableRecord
from connectors.formats.codec import decode
from connectors.formats.records import BadRecord, Record
from connectors.http.answers import meaning_of_status, parse, retry_after
from connectors.http.client import Answer, HttpClient
from connectors.http.cursor import Progress, parse_instant, parse_iso, start
from connectors.http.pages import first_parameters, next_address, with_parameters
from connectors.http.pointer import find, find_text
from connectors.http.settings import HttpSourceSettings, InstantCursor, Meaning
from state.model.errors import NotConnectedError, RejectedError, TransientError
from state.model.ids import digest, sha256
from state.model.visible import shown

BATCH_SIZE: Final = 500
_LONGEST_POSITION: Final = 200  # characters; a longer name of a record is kept as its hash


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One whole page, read but not yet compared with the memory."""

    number: int  # from 1
    answer: Answer
    found: Sequence[Record | BadRecord]
    following: str | None  # the address of the next


class HttpSource:
    """A source over HTTP. The server announces nothing, so `wait` is a pause."""

    def __init__(self, settings: HttpSourceSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._clock = surroundings.clock
        self._memory = surroundings.memory
        self._client = HttpClient(settings, home=surroundings.home, deadline=surroundings.deadline)

    async def read(self) -> AsyncGenerator[Batch, None]:
        """Every record since the last commit that is not known, page by page.

        Raises `NotConnectedError` or `TransientError` where the list cannot be read now; of a page that is not whole
        nothing is taken.
        """
        progress = start(self._settings.cursor, await self._memory.checkpoint(), now=self._clock.now())
        taken: set[str] = set()
        async with aclosing(self._pages(progress)) as pages:
            async for page in pages:
                fresh = await self._fresh(page, progress, taken)
                checkpoint = progress.checkpoint() if page.following is None else None
                for batch in _batches(page, fresh, checkpoint, name=f"GET {self._settings.path}"):
                    yield batch

    async def settle(self, batch: Batch) -> None:
        """Nothing to do: a poll leaves nothing behind at the server."""

    async def wait(self, longest: timedelta) -> None:
        """Pause."""
        await self._clock.sleep(longest.total_seconds())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _pages(self, progress: Progress) -> AsyncGenerator[_Page, None]:
        settings = self._settings
        parameters = {**settings.query, **first_parameters(settings.pagination), **progress.parameters()}
        address = with_parameters(self._client.address(settings.path), parameters)
        for number in range(1, settings.max_pages + 1):
            page = await self._page(address, number, progress)
            yield page
            if page.following is None:
                return
            if page.following == address:
                raise _endless(f"page {number} of GET {settings.path} names itself as the next one")
            address = page.following
        raise _endless(f"GET {settings.path} has more than {settings.max_pages} pages (max_pages)")

    async def _page(self, address: str, number: int, progress: Progress) -> _Page:
        answer = await self._client.ask(address)
        if answer.status != 200:
            raise self._refused(answer)
        found = await asyncio.to_thread(self._decoded, answer)  # a page of megabytes keeps no other lane waiting
        document = parse(answer.body) if self._settings.looks_inside else None
        progress.see_answer(document)
        for one in found:
            if isinstance(one, Record):
                progress.see_record(one.fields)
        following = next_address(
            self._settings.pagination,
            client=self._client,
            address=address,
            answer=answer,
            document=document,
            page=number,
            count=len(found),
        )
        return _Page(number=number, answer=answer, found=found, following=following)

    def _decoded(self, answer: Answer) -> list[Record | BadRecord]:
        """The records of a whole page, good and bad. A page that is no page is the server's trouble, not a record's."""
        try:
            return list(decode(io.BytesIO(answer.body), self._settings.format))
        except RejectedError as error:
            raise TransientError(
                f"{answer.call} answered with a page that cannot be read: {self._client.safe(error.message)}",
                hint="nothing of it was taken and it is read again; look at format and at the server",
                code="unreadable-page",
            ) from None

    def _refused(self, answer: Answer) -> NotConnectedError | TransientError:
        meaning = meaning_of_status(answer.status)
        stops = meaning in (Meaning.NOT_CONNECTED, Meaning.REJECTED)
        kind = NotConnectedError if stops else TransientError
        return kind(
            f"{answer.call} answered {answer.status}",
            retry_after=retry_after(answer.headers.get("retry-after", ""), now=self._clock.now()),
            hint=_READ_HINTS.get(answer.status, "it is read again"),
            code=f"http-{answer.status}",
        )

    async def _fresh(
        self, page: _Page, progress: Progress, taken: set[str]
    ) -> dict[str, SourceRecord | UnreadableRecord]:
        """What of the page is neither known nor taken in this reading, by the item that remembers it."""
        items: dict[str, SourceRecord | UnreadableRecord] = {}
        for one in page.found:
            record = self._record(one, page.number, progress)
            items.setdefault(_item(record), record)
        skipped = taken & items.keys() | await self._memory.known(items.keys())
        taken.update(items)
        return {item: record for item, record in items.items() if item not in skipped}

    def _record(self, record: Record | BadRecord, page: int, progress: Progress) -> SourceRecord | UnreadableRecord:
        if isinstance(record, BadRecord):
            return _unreadable(record, page)
        settings = self._settings
        place = f"page {page}, record {record.number}"
        name = _digest(record.raw) if settings.id is None else find_text(record.fields, settings.id)
        if not name:
            return _nameless(record, place, settings.id or "")
        field = settings.revision_field
        revision = progress.version(name, record.raw) if field is None else find_text(record.fields, field)
        return SourceRecord(
            position=_short(f"{name}@{revision}" if revision else name),
            place=place,
            fields=dict(record.fields),
            raw=record.raw,
            changed_at=self._changed_at(record),
        )

    def _changed_at(self, record: Record) -> datetime | None:
        settings = self._settings
        if settings.changed_at is not None:
            return parse_iso(find(record.fields, settings.changed_at))
        if isinstance(settings.cursor, InstantCursor):
            return parse_instant(find(record.fields, settings.cursor.field), settings.cursor)
        return None


_READ_HINTS: Final = {
    401: "the server refuses our credentials: correct auth of the system",
    403: "the server refuses our credentials: correct auth of the system",
    404: "the address does not exist there: correct base_url or path",
    429: "the server asked for a pause",
    503: "the server asked for a pause",
}


def _batches(
    page: _Page, fresh: dict[str, SourceRecord | UnreadableRecord], checkpoint: bytes | None, *, name: str
) -> list[Batch]:
    """The news of one page in batches of bounded size. A page without news is none, unless the cursor moved."""
    items = list(fresh)
    parts = [items[at : at + BATCH_SIZE] for at in range(0, len(items), BATCH_SIZE)] or [[]] * (checkpoint is not None)
    body = page.answer.body
    # The key makes event ids out of the list and not of the page: the same record stands on other pages tomorrow.
    document = RawDocument(name=name, sha256=sha256(body), size=len(body), content=body, key=name)
    return [
        Batch(
            document=document,
            records=[fresh[item] for item in part],
            checkpoint=checkpoint if part is parts[-1] else None,
            remember=part,
            last=part is parts[-1],
        )
        for part in parts
    ]


def _item(record: SourceRecord | UnreadableRecord) -> str:
    """What is remembered: two changes in one second under one id are two."""
    return f"{record.position}#{_digest(record.raw)}"


def _unreadable(record: BadRecord, page: int) -> UnreadableRecord:
    return UnreadableRecord(
        position=f"bad-{_digest(record.raw)}",
        place=f"page {page}, record {record.number}{f', {record.place}' if record.place else ''}",
        field=record.field,
        rule=record.rule,
        shown=record.shown,
        message=f"record {record.number} of page {page} cannot be read: {record.rule}",
        hint=record.hint,
        code=record.code,
        raw=record.raw,
    )


def _nameless(record: Record, place: str, pointer: str) -> UnreadableRecord:
    return UnreadableRecord(
        position=f"bad-{_digest(record.raw)}",
        place=place,
        field=pointer.removeprefix("/"),
        rule="a record has a text or a number that names it",
        shown=shown(record.raw),
        message=f"{place} has no name at {pointer}",
        hint="correct id of the source's settings, or have the server fill it",
        code="no-id",
        raw=record.raw,
    )


def _endless(what: str) -> TransientError:
    return TransientError(what, hint="the server's pages do not end; look at pagination", code="endless-pages")


def _digest(raw: bytes) -> str:
    return digest(raw, size=8).hex()


def _short(position: str) -> str:
    return position if len(position) <= _LONGEST_POSITION else digest(position, size=16).hex()
