"""Errands at the hub: what people ask of its sites, until it is answered or nobody waits any more.

Nothing here is durable, and nothing is done twice: an errand is given with the reply of a pull, again only where the same run of
the site's process does not have it, and to a later run only where it changes nothing. `docs/decisions/015-reaching-a-site.md` has
what each caller is told when the line breaks.

Concurrency: all of it runs in the agent's loop, without a lock. Crash: the callers' connections break with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import orjson
import zstandard

from agent.errand import LARGEST_BODY, Answered, Question
from agent.sync.secret import new_secret
from agent.sync.wire import Answer, Errand, TokenScope, read
from state.model.errors import DistctlError, InDoubtError, NotConnectedError, RejectedError
from state.model.people import Scope

MOST_AT_ONCE: Final = 32
"""Errands of one site that are under way together; whoever comes then is told to try again."""

ANSWER_BYTES: Final = 2 * LARGEST_BODY + 64 * 1024
"""Of an answer before compression: a text of the API at most doubles where it is written into JSON."""

PACKED_BYTES: Final = ANSWER_BYTES + ANSWER_BYTES // 128
"""Of an answer as it travels: what cannot be compressed grows by less than this."""

HERE_FOR: Final = 30.0
"""Seconds after its last pull for which a site counts as being there."""


@dataclass(frozen=True, slots=True)
class Presence:
    """One pull of a site: which run of its process pulled, and until when it counts as being there."""

    run: str
    until: float


@dataclass(slots=True)
class _Open:
    """An errand that somebody waits for."""

    errand: Errand
    site: str
    until: float
    may_change: bool
    answered: asyncio.Future[Answered]
    given_to: str = ""  # the run that has it, or may have it


class Errands:
    """The errands of all sites of one hub."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        secret: Callable[[], str] = new_secret,
    ) -> None:
        """`secret` makes what nobody can guess, of each errand: 32 hexadecimal digits."""
        self._monotonic = monotonic
        self._secret = secret
        self._present: dict[str, Presence] = {}
        self._open: dict[str, _Open] = {}
        self.wake: Callable[[Iterable[str]], None] = lambda _: None
        """Told of a site for which there is an errand."""

    # Who asks.

    async def ask(self, site: str, question: Question) -> Answered:
        """What the site answers. Raises as `agent.errand.Elsewhere`; `DistctlError` where its agent knows no errands."""
        self._require_there(site)
        one = self._add(site, question)
        self.wake([site])
        try:
            async with asyncio.timeout(question.seconds):
                return await one.answered
        except TimeoutError:
            raise _unanswered(one, f"{site} did not answer within {question.seconds:g} s") from None
        finally:
            del self._open[one.errand.id]

    def is_there(self, site: str) -> bool:
        """Whether the site pulled a moment ago."""
        found = self._present.get(site)
        return found is not None and self._monotonic() < found.until

    def _require_there(self, site: str) -> None:
        if not self.is_there(site):
            raise NotConnectedError(
                f"the agent of {site} is not connected", hint="nothing was done", code="site-offline"
            )
        if not self._present[site].run:
            raise DistctlError(
                f"the agent of {site} is too old: it takes no errands",
                hint=f"ask it at {site} itself, or install this version of distctl there",
                code="agent-too-old",
            )
        if sum(one.site == site for one in self._open.values()) >= MOST_AT_ONCE:
            raise NotConnectedError(
                f"{MOST_AT_ONCE} calls wait for {site} already", hint="nothing was done; try again", code="site-busy"
            )

    def _add(self, site: str, question: Question) -> _Open:
        caller = question.caller
        errand = Errand(
            id=self._secret(),
            method="POST" if question.may_change else "GET",
            target=question.target,
            seconds=question.seconds,
            name=caller.name,
            person=caller.person,
            token=_token(caller.scope),
        )
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        one = _Open(errand, site, self._monotonic() + question.seconds, question.may_change, future)
        self._open[errand.id] = one
        return one

    # The sites.

    def hear(self, site: str, run: str) -> Presence:
        """The site pulls. What another run of it had, it does not have any more."""
        presence = self._present[site] = Presence(run, self._monotonic() + HERE_FOR)
        for one in self._open.values():
            if one.site != site or one.given_to in {"", run} or one.answered.done():
                continue
            if one.may_change:
                one.answered.set_exception(_unanswered(one, f"the agent of {site} began anew meanwhile"))
            else:
                one.given_to = ""
        return presence

    def lose(self, site: str, presence: Presence) -> None:
        """The connection of that pull is gone; the site may have come again meanwhile."""
        if self._present.get(site) is presence:
            del self._present[site]

    def has_for(self, site: str, run: str, taken: Collection[str]) -> bool:
        """Whether there is an errand for this run that it does not have."""
        return bool(self._due(site, run, taken))

    def give(self, site: str, run: str, taken: Collection[str]) -> list[Errand]:
        """Those errands, which from now on this run may have."""
        due = self._due(site, run, taken)
        for one in due:
            one.given_to = run
        return [self._as_of_now(one) for one in due]

    def answer(self, site: str, answer: Answer) -> None:
        """Hand an answer to who waits for it. Raises `RejectedError` where nobody does, or another site was asked."""
        one = self._open.get(answer.errand)
        if one is None or one.site != site or not one.given_to:
            raise RejectedError(
                "nobody waits for this answer",
                rule="an answer is to an errand that was given to the same site and has not ended",
                hint="whoever asked was told that nobody knows how it ended",
                code="malformed:errand",
            )
        if not one.answered.done():
            one.answered.set_result(Answered(status=answer.status, type=answer.type, body=answer.body.encode()))

    def _due(self, site: str, run: str, taken: Collection[str]) -> list[_Open]:
        if not run:
            return []
        return [
            one
            for number, one in self._open.items()
            if one.site == site and number not in taken and one.given_to in {"", run} and not one.answered.done()
        ]

    def _as_of_now(self, one: _Open) -> Errand:
        return one.errand.model_copy(update={"seconds": max(one.until - self._monotonic(), 0.0)})


def pack(answer: Answer) -> bytes:
    """An answer as it travels."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(orjson.dumps(answer.to_head()))


def unpack(raw: bytes) -> Answer:
    """The answer. Raises `RejectedError`, `malformed` or `too-large`, before there is room made for it."""
    try:
        size = zstandard.frame_content_size(raw)
        if size > ANSWER_BYTES:
            raise RejectedError(f"the answer is larger than {ANSWER_BYTES:,} bytes", code="too-large")
        said = orjson.loads(zstandard.ZstdDecompressor().decompress(raw, allow_extra_data=False)) if size > 0 else None
    except (zstandard.ZstdError, orjson.JSONDecodeError):
        said = None
    if not isinstance(said, dict):
        raise RejectedError("the answer cannot be read", rule="an answer is a JSON object in zstd", code="malformed")
    return read(Answer, said)


def _token(scope: Scope | None) -> TokenScope | None:
    if scope is None:
        return None
    return TokenScope(
        name=scope.token,
        roles=sorted(scope.roles),
        sites=None if scope.sites is None else sorted(scope.sites),
        issued_by=scope.issued_by,
    )


def _unanswered(one: _Open, why: str) -> DistctlError:
    """What the caller is told of an errand without an answer."""
    if one.given_to and one.may_change:
        hint = (
            f"it may have done what it was asked to: look at `distctl --site {one.site} audit list` before asking again"
        )
        return InDoubtError(why, hint=hint, code="site-silent")
    return NotConnectedError(why, hint="nothing was changed; try again", code="site-silent")
