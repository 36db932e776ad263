"""Leaves files for a partner: whole or not at all, and the same name for the same delivery each time.

Order: parcels are written in the order they come. Concurrency: calls run on a few threads of the sink's own; two calls of one
key write the same bytes to the same name. Crash behaviour: a file is written under a hidden name, made durable, renamed. Killed
before the rename, the partner sees nothing; after it, a resend finds the file (in the folder or where the partner moved it) and
writes none.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import secrets
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

from connectors.base import Found, NotFound, Outcome, Parcel, Surroundings
from connectors.files.folder import open_untricked, sync_folder
from connectors.files.naming import file_name, glob_for
from connectors.files.os_errors import telling, translate
from connectors.files.settings import Acknowledgement, SinkSettings
from connectors.files.threads import Threads
from connectors.formats.codec import encode
from connectors.formats.settings import CsvSettings, FormatSettings, JsonLinesSettings, JsonSettings, XmlSettings
from state.model.clock import to_millis
from state.model.delivery import OutcomeKind
from state.model.errors import DistctlError, InDoubtError, NotConnectedError, RejectedError
from state.model.visible import visible

_THREADS: Final = 4
_ANSWER_SIZE: Final = 4096  # bytes of an acknowledgement that are kept
_UNFINISHED: Final = (".distctl-", ".part")
_LEFT_OVER_AFTER_MS: Final = 3_600_000
_MAYBE_DONE: Final = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EINTR}
_SUFFIXES: Final[dict[type, str]] = {
    CsvSettings: "csv",
    JsonSettings: "json",
    JsonLinesSettings: "jsonl",
    XmlSettings: "xml",
}


class FilesSink:
    """A folder as a sink. The contract is `connectors.base.Sink`."""

    def __init__(self, settings: SinkSettings, around: Surroundings) -> None:
        self._settings = settings
        self._clock = around.clock
        self._flow = around.name.partition("@")[0]
        self._folder = around.home / settings.folder
        self._archives = tuple(self._folder / folder for folder in settings.taken_to)
        self._work = Threads(f"files-{around.name}", _THREADS)
        self._is_swept = False

    async def deliver(self, parcels: Sequence[Parcel]) -> Sequence[Outcome | DistctlError]:
        """One file a parcel, so that a resend of one finds its own. Where the folder cannot be written, the rest waits."""
        answers: list[Outcome | DistctlError] = []
        for parcel in parcels:
            answers.append(await self._work.run(partial(self._answer, parcel)))
            if isinstance(answers[-1], NotConnectedError):
                answers += [answers[-1]] * (len(parcels) - len(answers))
                break
        return answers

    async def probe(self, parcel: Parcel) -> Found | NotFound:
        """Looks for an acknowledgement, then in the folder, then where the partner moves what it took."""
        return await self._work.run(partial(self._probe, parcel))

    async def close(self) -> None:
        """Give the threads back."""
        self._work.close()

    # Delivering

    def _answer(self, parcel: Parcel) -> Outcome | DistctlError:
        try:
            return self._deliver(parcel)
        except DistctlError as error:
            return error

    def _deliver(self, parcel: Parcel) -> Outcome:
        name = self._name(parcel)
        content = render(parcel.payload, self._settings.format)
        with telling(f"looking for {name} in {self._folder}"):
            self._sweep()
            present = self._content(self._folder / name)
            taken_as = self._taken_as(name, thorough=parcel.is_resend) if present is None else None
        if present is None and taken_as is not None:
            return self._outcome(name, detail=f"the partner has it: {taken_as}", duplicate=True)
        if present is not None and present != content:
            raise _conflict(name, self._folder)
        if present is None:
            self._write(name, content)
        else:
            self._make_durable(self._folder / name)
        if self._settings.done_marker and not os.path.lexists(self._folder / self._marker(name)):
            self._write(self._marker(name), b"")
        return self._outcome(name, duplicate=present is not None)

    def _write(self, name: str, content: bytes) -> None:
        """The file under its name, durable; or an error after which there is none, or one that says it is in doubt."""
        unfinished = self._folder / f"{_UNFINISHED[0]}{secrets.token_hex(8)}{_UNFINISHED[1]}"
        try:
            with telling(f"writing {self._folder / name}"):
                _write_durably(unfinished, content)
            self._publish(unfinished, self._folder / name)
        finally:
            _remove(unfinished)

    def _publish(self, unfinished: Path, target: Path) -> None:
        try:
            unfinished.rename(target)
        except OSError as error:
            if error.errno in _MAYBE_DONE:
                raise _in_doubt(target, error) from error
            raise translate(error, f"renaming to {target}") from error
        self._make_durable(target)

    def _make_durable(self, target: Path) -> None:
        """Its name; of a file that was found there too, since who wrote it may have been killed before this."""
        try:
            sync_folder(self._folder)
        except OSError as error:
            raise _in_doubt(target, error) from error

    def _outcome(self, name: str, *, detail: str = "", duplicate: bool = False) -> Outcome:
        answer = self._settings.acknowledgement
        if answer is None:
            return Outcome(kind=OutcomeKind.ACCEPTED, reference=name, detail=detail, duplicate=duplicate)
        return Outcome(
            kind=OutcomeKind.DELAYED,
            reference=name,
            detail=detail or "waiting for the partner's acknowledgement",
            duplicate=duplicate,
            ask_again_in=answer.every,
        )

    # Asking

    def _probe(self, parcel: Parcel) -> Found | NotFound:
        name = self._name(parcel)
        with telling(f"looking for {name} in {self._folder}"):
            self._folder.stat()  # an unmounted share has no files, and that is no answer
            if (said := self._acknowledged(name)) is not None:
                return Found(outcome=said)
            if self._is_complete(name):
                sync_folder(self._folder)  # who wrote it may have been killed before this
                return Found(outcome=self._outcome(name, detail="it lies in the folder"))
            if (taken_as := self._taken_as(name, thorough=True)) is not None:
                return Found(outcome=self._outcome(name, detail=f"the partner has it: {taken_as}"))
        return NotFound(detail=f"no {name} in {self._searched()}")

    def _acknowledged(self, name: str) -> Outcome | None:
        answer = self._settings.acknowledgement
        if answer is None:
            return None
        folder = self._folder / answer.folder
        for kind, path in _answers(folder, name, answer):
            document = _beginning(path)
            return Outcome(kind=kind, reference=name, detail=f"the partner answered: {path.name}", document=document)
        return None

    def _is_complete(self, name: str) -> bool:
        marker = self._settings.done_marker and self._folder / self._marker(name)
        return os.path.lexists(self._folder / name) and (not marker or os.path.lexists(marker))

    def _taken_as(self, name: str, *, thorough: bool) -> str | None:
        """Its path in one of the partner's archives. Only `thorough` reads whole archives, for names the partner changed."""
        for archive in self._archives:
            if os.path.lexists(archive / name):
                return str(archive / name)
            found = _first(archive, glob_for(self._settings.taken_as, name)) if thorough else None
            if found is not None:
                return str(found)
        return None

    def _searched(self) -> str:
        answers = self._settings.acknowledgement
        folders = [self._folder, *self._archives, *([self._folder / answers.folder] if answers else [])]
        return ", ".join(visible(str(folder)) for folder in folders)

    # Names and leftovers

    def _name(self, parcel: Parcel) -> str:
        suffix = _SUFFIXES[type(self._settings.format)]
        return file_name(self._settings.name, parcel, flow=self._flow, suffix=suffix)

    def _marker(self, name: str) -> str:
        return f"{name}{self._settings.done_marker}"

    def _content(self, path: Path) -> bytes | None:
        try:
            descriptor = open_untricked(path)
        except FileNotFoundError:
            self._folder.stat()  # without the folder there is no answer
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise _conflict(path.name, self._folder) from error  # a symbolic link; it is not followed
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def _sweep(self) -> None:
        """Hidden files of a process that was killed while it wrote, once a start."""
        if self._is_swept:
            return
        with os.scandir(self._folder) as scan:
            for item in scan:
                if item.name.startswith(_UNFINISHED[0]) and item.name.endswith(_UNFINISHED[1]) and self._is_old(item):
                    _remove(Path(item.path))
        self._is_swept = True

    def _is_old(self, item: os.DirEntry[str]) -> bool:
        try:
            written_ms = item.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return False
        return to_millis(self._clock.now()) - written_ms > _LEFT_OVER_AFTER_MS


def render(payload: bytes, settings: FormatSettings) -> bytes:
    """The payload as a file of that format; JSON goes as it is. Raises `RejectedError` for what the format cannot hold."""
    if isinstance(settings, JsonSettings):
        return payload
    value = json.loads(payload, parse_float=Decimal)
    return b"".join(encode(value if isinstance(value, list) else [value], settings))


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # hidden and harmless; the next start sweeps it


def _first(folder: Path, pattern: str) -> Path | None:
    try:
        with os.scandir(folder) as scan:
            return next((Path(item.path) for item in scan if fnmatch.fnmatchcase(item.name, pattern)), None)
    except FileNotFoundError:
        return None  # the partner makes it with the first file it takes


def _answers(folder: Path, name: str, settings: Acknowledgement) -> list[tuple[OutcomeKind, Path]]:
    said = ((OutcomeKind.REJECTED, settings.rejected), (OutcomeKind.ACCEPTED, settings.accepted))
    globs = ((kind, glob_for(pattern, name)) for kind, pattern in said if pattern)
    return [(kind, found) for kind, pattern in globs if (found := _first(folder, pattern)) is not None]


def _beginning(path: Path) -> bytes:
    with os.fdopen(open_untricked(path), "rb") as file:
        return file.read(_ANSWER_SIZE)


def _conflict(name: str, folder: Path) -> RejectedError:
    return RejectedError(
        f"{name} already lies in {visible(str(folder))} with other content",
        place=name,
        rule="one idempotency key has one content",
        hint="look at the file there; under order latest a newer snapshot, in a file of its own, closes this",
        code="name-conflict",
    )


def _in_doubt(target: Path, error: OSError) -> InDoubtError:
    return InDoubtError(
        f"{visible(str(target))} was renamed, and whether that is on disk nobody can say: {os.strerror(error.errno or 0)}",
        hint="the folder and the partner's archive are asked before anything is written again",
        code="not-durable",
    )
