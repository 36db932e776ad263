"""Takes files from a folder: each once, complete, in order, and put away only after it is committed.

Order: `read` takes the files by time or by name, one after the other. Concurrency: blocking work runs on two threads of the
source's own, one of which only watches. Crash behaviour: a file is put away after its last records were committed, and its ledger
items went in with them. Killed between the two, the next `read` finds the items and puts the file away without reading it
again. Killed inside a long file, the next `read` makes the same events again, whatever the file is called by then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, assert_never

from watchfiles import Change, watch

from connectors.base import Batch, RawDocument, Surroundings, UnreadableRecord
from connectors.files import folder as folders
from connectors.files import refusals
from connectors.files.arrivals import Arrivals
from connectors.files.folder import Entry, Fingerprint
from connectors.files.ledger import Verdict, judge, refused_item
from connectors.files.os_errors import telling, translate
from connectors.files.reading import Beginning, Inspected, MovedError, Portion, inspect, portions
from connectors.files.settings import DoneMarker, SourceSettings
from connectors.files.threads import Threads
from state.model.errors import DistctlError
from state.model.ids import sha256
from state.model.visible import visible

WATCHES_LATE_WRITERS_FOR: Final = 600.0  # seconds after a file was put away
_MOST_LATE_WRITERS: Final = 1000
_LOOK_AT_FOLDER_EVERY_MS: Final = 1000  # a share may send no notices, but the folder's own time moves
_BUSY_FOR: Final = 10.0  # seconds after something was taken in which the next is expected
_GATHER_MS: Final = 50  # notices are gathered for so long and no longer, however many more come
_GATHER_BUSY_MS: Final = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """A file whose last record was handed on, and where it goes once that is committed."""

    name: str
    fingerprint: Fingerprint
    sha256: str  # of its bytes; empty where it was not read
    key: str  # its document key
    into: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _PutAway:
    taken: _Taken
    path: Path
    inode: int
    at: float  # monotonic


class FilesSource:
    """A folder as a source. The contract is `connectors.base.Source`."""

    def __init__(self, settings: SourceSettings, around: Surroundings) -> None:
        self._settings = settings
        self._clock = around.clock
        self._memory = around.memory
        self._folder = around.home / settings.folder
        self._archive = self._folder / settings.archive
        self._quarantine = self._folder / settings.quarantine
        self._arrivals = Arrivals(settings.guard)
        self._unsettled: dict[str, _Taken] = {}  # by document key
        self._put_away: deque[_PutAway] = deque(maxlen=_MOST_LATE_WRITERS)
        self._grown: dict[str, _Taken] = {}  # by name: taken, and longer since
        self._stuck: dict[str, _Taken] = {}  # by name: committed, and could not be put away yet
        self._seen_at: int | None = None
        self._busy_until = 0.0  # monotonic
        self._work = Threads(f"files-{around.name}", 1)
        self._watching = Threads(f"watch-{around.name}", 1)
        self._stop = threading.Event()
        self._is_closed = False

    async def read(self) -> AsyncGenerator[Batch, None]:
        """Every complete file; one that cannot be read now is told of at the end and holds up no other.

        A file that changes half-way ends without a `last` batch, and the reading with it.
        """
        problem: DistctlError | None = None
        for entry in await self._work.run(self._look):
            is_open = False
            try:
                async for batch in self._take(entry):
                    is_open = not batch.last
                    yield batch
            except (FileNotFoundError, MovedError):
                self._arrivals.forget(entry.name)  # written to, renamed or taken away meanwhile: it is looked at anew
            except OSError as error:
                problem = problem or translate(error, f"reading {self._folder / entry.name}")
            except DistctlError as error:
                problem = problem or error
            if is_open:
                break  # it ended half-way; no other document begins before the next read
        if problem is not None:
            raise problem

    async def settle(self, batch: Batch) -> None:
        """Put the file away. Of a batch that another source object read it does nothing: the next `read` puts it away."""
        if batch.last and (taken := self._unsettled.get(batch.document.identity)) is not None:
            await self._work.run(partial(self._put_taken_away, taken))
            del self._unsettled[batch.document.identity]

    async def wait(self, longest: timedelta) -> None:
        """Return when something arrived, when something that moved may have come to rest, or after `longest`."""
        if self._is_closed:
            return
        stop = self._stop = threading.Event()
        rest = self._arrivals.next_rest(self._clock.monotonic())
        seconds = longest.total_seconds() if rest is None else min(longest.total_seconds(), rest)
        async with asyncio.TaskGroup() as group:
            pause = group.create_task(self._clock.sleep(seconds))
            watching = group.create_task(self._watching.run(partial(self._watch, stop)))
            try:
                await asyncio.wait({pause, watching}, return_when=asyncio.FIRST_COMPLETED)
                if not pause.done() and not watching.result() and not self._is_closed:
                    await pause  # it cannot be watched
            finally:
                stop.set()
                pause.cancel()

    async def close(self) -> None:
        """Stop watching and give the threads back."""
        self._is_closed = True
        self._stop.set()
        self._watching.close()
        self._work.close()

    # Looking

    def _look(self) -> list[Entry]:
        with telling(f"looking into {self._folder}"):
            self._seen_at = _modified_at(self._folder)
            self._look_after_late_writers()
            listed = folders.entries(self._folder, self._settings.pattern)
            names = self._names_with_markers(listed)
        markers = {entry.name for entry in listed if self._is_marker(entry.name)}
        ordered = sorted((entry for entry in listed if entry.name not in markers), key=self._order)
        now = self._clock.monotonic()
        complete = self._arrivals.look(ordered, names, now)
        if complete:
            self._busy_until = now + _BUSY_FOR
        return complete

    def _order(self, entry: Entry) -> tuple[int, str]:
        return (entry.fingerprint.modified_ns if self._settings.order == "mtime" else 0, entry.name)

    def _names_with_markers(self, listed: list[Entry]) -> set[str]:
        guard = self._settings.guard
        if not isinstance(guard, DoneMarker):
            return set()
        markers = {path.name for path in self._folder.iterdir()}
        self._put_orphans_away(markers, guard.suffix)
        return markers & {entry.name + guard.suffix for entry in listed}

    def _put_orphans_away(self, names: set[str], suffix: str) -> None:
        """Markers whose file is gone: one left behind would call the next file of that name complete."""
        for name in names:
            file = name.removesuffix(suffix)
            is_ours = name.endswith(suffix) and folders.is_wanted(file, self._settings.pattern)
            if is_ours and not os.path.lexists(self._folder / file):
                folders.put_away(self._folder / name, self._archive, tag="marker")

    def _is_marker(self, name: str) -> bool:
        return isinstance(self._settings.guard, DoneMarker) and name.endswith(self._settings.guard.suffix)

    def _watch(self, stop: threading.Event) -> bool:
        """Whether something arrived before `stop`; False at once where the folder cannot be watched."""
        if _modified_at(self._folder) != self._seen_at:
            return True
        gather = _GATHER_BUSY_MS if self._clock.monotonic() < self._busy_until else _GATHER_MS
        try:
            for changes in watch(
                self._folder,
                watch_filter=self._concerns_us,
                debounce=gather,
                step=gather,
                stop_event=stop,
                rust_timeout=_LOOK_AT_FOLDER_EVERY_MS,
                yield_on_timeout=True,
                recursive=False,
                raise_interrupt=False,
                force_polling=self._settings.force_polling or None,
            ):
                if changes or _modified_at(self._folder) != self._seen_at:
                    return True
        except (OSError, RuntimeError) as error:  # no such folder; no inotify watches left
            log.info("cannot watch %s, looking at intervals instead: %s", visible(str(self._folder)), error)
        return False

    def _concerns_us(self, change: Change, path: str) -> bool:
        name = Path(path).name
        return change is not Change.deleted and (
            folders.is_wanted(name, self._settings.pattern) or self._is_marker(name)
        )

    # Taking

    async def _take(self, entry: Entry) -> AsyncGenerator[Batch, None]:
        if (refused := refusals.refusal(entry, max_bytes=self._settings.max_bytes)) is not None:
            async for batch in self._refuse(entry, refused):
                yield batch
            return
        stuck = self._stuck.get(entry.name)
        if stuck is not None and stuck.fingerprint == entry.fingerprint:
            await self._work.run(partial(self._put_taken_away, stuck))
            return
        inspected = await self._work.run(
            partial(inspect, self._folder / entry.name, entry.fingerprint, self._beginning_of(entry.name))
        )
        verdict = judge(
            inspected.identity,
            await self._memory.known(inspected.identity.items),
            same_content=self._settings.same_content,
            reused_names=self._settings.reused_names,
        )
        match verdict:
            case Verdict.DONE | Verdict.SPOILED:
                await self._put_known_away(inspected, verdict)
            case Verdict.ASK:
                yield self._ask(inspected)
            case Verdict.NEW | Verdict.NEW_AGAIN:
                async for batch in self._read_file(inspected, self._key_of(inspected, verdict)):
                    yield batch
            case _:
                assert_never(verdict)

    async def _read_file(self, inspected: Inspected, key: str) -> AsyncGenerator[Batch, None]:
        document = inspected.document(key)
        if not inspected.identity.fingerprint.size:
            yield self._batch(inspected, document, self._empty(inspected))
            return
        # The generator is not closed here: a cancelled caller leaves it running in its thread, and it ends with it.
        reading = portions(inspected, self._settings.format, self._settings.batch)
        try:
            while (portion := await self._work.run(partial(next, reading, None))) is not None:
                yield self._batch(inspected, document, portion)
        except MovedError:
            self._expect_grown(
                self._taken(inspected, document.identity, self._archive), folders.fingerprint_at(inspected.path)
            )
            raise

    def _batch(self, inspected: Inspected, document: RawDocument, portion: Portion) -> Batch:
        if not portion.is_last:
            return Batch(document=document, records=portion.records, last=False)
        self._note(inspected, document.identity, self._quarantine if portion.is_spoiled else self._archive)
        return Batch(
            document=document,
            records=portion.records,
            remember=inspected.identity.remembered(is_spoiled=portion.is_spoiled),
        )

    def _empty(self, inspected: Inspected) -> Portion:
        if self._settings.empty == "accept":
            return Portion(records=(), is_last=True)
        return Portion(records=(refusals.empty(inspected.path.name),), is_last=True, is_spoiled=True)

    def _ask(self, inspected: Inspected) -> Batch:
        document = inspected.document(inspected.identity.second_key)
        self._note(inspected, document.identity, self._quarantine)
        return Batch(
            document=document,
            records=(refusals.same_content(inspected.path.name),),
            remember=(inspected.identity.asked, inspected.identity.asked_here),
        )

    async def _refuse(self, entry: Entry, refused: UnreadableRecord) -> AsyncGenerator[Batch, None]:
        item = refused_item(entry.name, refused.code, entry.fingerprint)
        taken = _Taken(
            name=entry.name, fingerprint=entry.fingerprint, sha256="", key=f"refused-{item}", into=self._quarantine
        )
        if await self._memory.known({item}):
            await self._work.run(partial(self._put_taken_away, taken))
            return
        self._unsettled[taken.key] = taken
        document = RawDocument(name=visible(entry.name), sha256=sha256(b""), size=0, content=b"", key=taken.key)
        yield Batch(document=document, records=(refused,), remember=(item,))

    def _key_of(self, inspected: Inspected, verdict: Verdict) -> str:
        grown = self._grown.get(inspected.path.name)
        if grown and inspected.begins_as and grown.fingerprint.inode == inspected.identity.fingerprint.inode:
            return grown.key  # its first records are the events they were
        if verdict is Verdict.NEW_AGAIN or not inspected.identity.fingerprint.size:
            return inspected.identity.second_key
        return ""

    # Putting away

    def _note(self, inspected: Inspected, key: str, into: Path) -> None:
        self._unsettled[key] = self._taken(inspected, key, into)

    def _taken(self, inspected: Inspected, key: str, into: Path) -> _Taken:
        identity = inspected.identity
        return _Taken(name=identity.name, fingerprint=identity.fingerprint, sha256=identity.sha256, key=key, into=into)

    async def _put_known_away(self, inspected: Inspected, verdict: Verdict) -> None:
        into = self._quarantine if verdict is Verdict.SPOILED else self._archive
        log.info("%s was taken before; it goes to %s unread", inspected.shown_name, into.name)
        taken = self._taken(inspected, inspected.identity.sha256, into)
        await self._work.run(partial(self._put_taken_away, taken))

    def _put_taken_away(self, taken: _Taken) -> None:
        path = self._folder / taken.name
        now = folders.fingerprint_at(path)
        if now != taken.fingerprint:
            self._expect_grown(taken, now)
            return
        self._stuck[taken.name] = taken
        with telling(f"moving {path} to {taken.into}"):
            target = folders.move(path, taken.into, tag=taken.sha256[:8] or "refused", expected=taken.fingerprint)
            for folder in {self._folder, taken.into, *self._move_marker(path)}:
                folders.sync_folder(folder)
        del self._stuck[taken.name]
        self._grown.pop(taken.name, None)
        self._watch_late_writers(taken, target)

    def _move_marker(self, path: Path) -> set[Path]:
        """Returns the folder that it went to, if there was one."""
        if not isinstance(self._settings.guard, DoneMarker):
            return set()
        marker = path.with_name(path.name + self._settings.guard.suffix)
        if not os.path.lexists(marker):
            return set()
        folders.move(marker, self._archive, tag="marker")
        return {self._archive}

    # Writers that come late

    def _watch_late_writers(self, taken: _Taken, path: Path) -> None:
        now = folders.fingerprint_at(path)
        if now is None:
            return
        late = _PutAway(taken=taken, path=path, inode=now.inode, at=self._clock.monotonic())
        self._put_away.append(late)
        if (now.size, now.modified_ns) != (taken.fingerprint.size, taken.fingerprint.modified_ns):
            self._put_late_back(late, now)  # it was replaced in the instant before it was moved

    def _look_after_late_writers(self) -> None:
        """A writer that paused for longer than the guard still writes into the file in the archive: put it back."""
        since = self._clock.monotonic() - WATCHES_LATE_WRITERS_FOR
        while self._put_away and self._put_away[0].at < since:
            self._put_away.popleft()
        for late in list(self._put_away):
            now = folders.fingerprint_at(late.path)
            if now is not None and now.inode == late.inode and now.size > late.taken.fingerprint.size:
                self._put_late_back(late, now)

    def _put_late_back(self, late: _PutAway, now: Fingerprint) -> None:
        if folders.put_back(late.path, self._folder, late.taken.name):
            log.warning("%s was written to after it was taken; it is read again", visible(late.taken.name))
            self._put_away.remove(late)
            self._expect_grown(late.taken, replace(now, inode=late.taken.fingerprint.inode))

    def _expect_grown(self, taken: _Taken, now: Fingerprint | None) -> None:
        """Note a file that is longer than when it was taken, so that its first records are recognised."""
        is_grown = now is not None and now.inode == taken.fingerprint.inode and now.size > taken.fingerprint.size
        if is_grown and taken.sha256 and taken.fingerprint.size:
            self._grown[taken.name] = taken

    def _beginning_of(self, name: str) -> Beginning | None:
        taken = self._grown.get(name)
        return Beginning(size=taken.fingerprint.size, sha256=taken.sha256) if taken else None


def _modified_at(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
