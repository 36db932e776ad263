"""What an answer means: the outcome map of a sink. Pure, but for the clock that a date in `Retry-After` is held against.

The first rule of the settings that holds decides; without one the status code does (RFC 9110, RFC 6585):

====================  =====================================================================================
2xx                   accepted; 202 is delayed; 207 in doubt, for it has several answers
301, 307, 308         not connected: the address moved, nothing was done
302, 303, other 3xx   in doubt: servers answer so after they did it
401, 403, 407         not connected: our credentials are wrong, for every delivery alike
408, 425, 429, 503    not connected: the server asks for a pause (Retry-After)
409                   `conflict` of the settings; the sink decides `by_key`
421, 423, 424         transient: not done, and not for ever
other 4xx             rejected, with the server's words
500, 502, 504, other  in doubt: the call may have landed. `server_errors: transient` where it surely has not.
====================  =====================================================================================

In doubt is the safe class: inside the target's memory of our key it is simply sent again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import translate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import orjson

from connectors.base import Outcome
from connectors.http.client import Answer
from connectors.http.pointer import ABSENT, find, find_text
from connectors.http.settings import Condition, Meaning, Rule
from state.model.clock import Clock
from state.model.delivery import OutcomeKind
from state.model.errors import (
    DistctlError,
    DuplicateError,
    InDoubtError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from state.model.retry import honoured

DOCUMENT_SIZE: Final = 4096
_MATCHED: Final = 4096  # characters that a pattern looks at
_LONGEST_NUMBER: Final = 12  # digits of a Retry-After that are read; more is absurd either way

_SUCCESSES: Final = {202: Meaning.DELAYED, 207: Meaning.IN_DOUBT}  # every other one says accepted
_CREDENTIALS: Final = frozenset((401, 403, 407))
_PAUSE: Final = frozenset((408, 425, 429, 503))
_MOVED: Final = frozenset((301, 307, 308))
_LATER: Final = frozenset((421, 423, 424))
_WORDS: Final = ("/detail", "/detail/0/msg", "/message", "/error/message", "/error", "/errors/0/message", "/title")

_HINTS: Final = {
    Meaning.REJECTED: "correct the record, or the mapping that made it; under order latest a newer snapshot closes this",
    Meaning.TRANSIENT: "it is tried again",
    Meaning.NOT_CONNECTED: "nothing was taken; the lane goes on when the server does",
    Meaning.IN_DOUBT: "it is asked, or sent again under the same key, never blindly",
}


def meaning_of_status(status: int, *, server_errors: Meaning = Meaning.IN_DOUBT) -> Meaning:
    """The class of a status code, where no rule says otherwise. 409 is rejected here."""
    if 200 <= status < 300:
        return _SUCCESSES.get(status, Meaning.ACCEPTED)
    if status in _MOVED | _CREDENTIALS | _PAUSE:
        return Meaning.NOT_CONNECTED
    if status in _LATER:
        return Meaning.TRANSIENT
    if 400 <= status < 500:
        return Meaning.REJECTED
    return server_errors if status in (500, 502, 504) else Meaning.IN_DOUBT


def parse(body: bytes) -> object:
    """The JSON document of an answer, or `ABSENT` where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return ABSENT


def first_rule(rules: Sequence[Rule], answer: Answer, document: object) -> Rule | None:
    """The rule that decides, if one holds.

    Raises `InDoubtError` where a rule would have to look into a success that is not JSON: the error may stand inside.
    """
    for rule in rules:
        if rule.when.status is not None and answer.status not in rule.when.status:
            continue
        if rule.when.looks_inside and document is ABSENT and 200 <= answer.status < 300:
            raise InDoubtError(
                f"{answer.call} answered {answer.status} with something that is not JSON",
                hint="it is asked, or sent again; the outcome map cannot read this answer",
                code="unreadable-answer",
            )
        if _holds(rule.when, answer, document):
            return rule
    return None


def retry_after(header: str, *, now: datetime) -> timedelta | None:
    """The pause that `Retry-After` asks for, between nothing and an hour; None where it says nothing readable."""
    text = header.strip()
    number = text.removeprefix("-")
    if number.isascii() and number.isdecimal():
        seconds = int(number[:_LONGEST_NUMBER])
        return honoured(timedelta(seconds=0 if text.startswith("-") else min(seconds, 10**6)))
    try:
        moment = parsedate_to_datetime(text)
        return honoured((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)
    except (ValueError, OverflowError, IndexError):
        return None


class OutcomeMap:
    """Reads answers by the settings of one sink. `safe` makes a server's words fit to be shown."""

    def __init__(
        self,
        *,
        rules: Sequence[Rule],
        reference: str,
        server_errors: Meaning = Meaning.IN_DOUBT,
        conflict: Meaning = Meaning.REJECTED,
        ask_again: timedelta = timedelta(seconds=30),
        clock: Clock,
        safe: Callable[[str], str],
        without_secrets: Callable[[str], str],
    ) -> None:
        self._rules = rules
        self._reference = reference
        self._server_errors = server_errors
        self._conflict = conflict
        self._ask_again = ask_again
        self._clock = clock
        self._safe = safe
        self._without_secrets = without_secrets

    def has_rule_for(self, answer: Answer) -> bool:
        """Whether a rule of the settings, and not the status code, decides."""
        return first_rule(self._rules, answer, parse(answer.body)) is not None

    def read(self, answer: Answer, *, status_counts: bool = True) -> Outcome | DistctlError:
        """What the answer means. Without `status_counts` only a rule can say; else it is in doubt."""
        document = parse(answer.body)
        try:
            rule = first_rule(self._rules, answer, document)
        except InDoubtError as error:
            return error
        if rule is not None:
            meaning = rule.outcome
        elif status_counts:
            meaning = self._meaning_of_status(answer.status)
        else:
            meaning = Meaning.IN_DOUBT
        return self._as_meant(meaning, answer, document, rule)

    def as_meant(self, meaning: Meaning, answer: Answer) -> Outcome | DistctlError:
        """The outcome or error for an answer whose meaning is decided."""
        return self._as_meant(meaning, answer, parse(answer.body), None)

    def _as_meant(
        self, meaning: Meaning, answer: Answer, document: object, rule: Rule | None
    ) -> Outcome | DistctlError:
        reference = self._safe(find_text(document, rule.reference if rule and rule.reference else self._reference))
        wish = answer.headers.get("retry-after")
        pause = retry_after(wish, now=self._clock.now()) if wish else None
        match meaning:
            case Meaning.ACCEPTED | Meaning.MODIFIED | Meaning.DELAYED:
                words = self._words(answer, document, rule) if rule else ""
                return self._outcome(meaning, answer, reference=reference, words=words, pause=pause)
        words = self._words(answer, document, rule)
        said = f"{answer.call} answered {answer.status}{f': {words}' if words else ''}"
        hint = (rule.hint if rule else "") or _hint(meaning, answer.status)
        code = f"http-{answer.status}"
        match meaning:
            case Meaning.DUPLICATE:
                return DuplicateError(said, reference=reference, hint=hint, code=code)
            case Meaning.REJECTED:
                return RejectedError(said, rule=_phrase(answer.status), shown=words, hint=hint, code=code)
            case Meaning.TRANSIENT:
                return TransientError(said, retry_after=pause, hint=hint, code=code)
            case Meaning.NOT_CONNECTED:
                return NotConnectedError(said, retry_after=pause, hint=hint, code=code)
            case Meaning.IN_DOUBT:
                return InDoubtError(said, hint=hint, code=code)

    def _meaning_of_status(self, status: int) -> Meaning:
        if status == 409:
            return self._conflict
        return meaning_of_status(status, server_errors=self._server_errors)

    def _outcome(
        self, meaning: Meaning, answer: Answer, *, reference: str, words: str, pause: timedelta | None
    ) -> Outcome:
        return Outcome(
            kind=OutcomeKind(meaning.value),
            reference=reference,
            detail=words,
            document=self._cut(answer.body),
            duplicate=answer.headers.get("idempotent-replayed", "").lower() == "true",
            ask_again_in=(self._ask_again if pause is None else pause) if meaning is Meaning.DELAYED else None,
        )

    def _cut(self, body: bytes) -> bytes:
        """The start of an answer, without our secrets; cut by bytes, for it is shown and never parsed."""
        text = self._without_secrets(body[: 2 * DOCUMENT_SIZE].decode("utf-8", "surrogateescape"))
        return text.encode("utf-8", "surrogateescape")[:DOCUMENT_SIZE]

    def _words(self, answer: Answer, document: object, rule: Rule | None) -> str:
        places = (rule.message,) if rule and rule.message is not None else _WORDS
        found = next((text for place in places if (text := find_text(document, place))), "")
        return self._safe(found or (_text(answer.body) if answer.status >= 300 or rule else "")).strip()


def _holds(condition: Condition, answer: Answer, document: object) -> bool:
    if condition.pointer is None:
        return condition.matches is None or _matches(condition.matches, _text(answer.body))
    found = find(document, condition.pointer)
    if condition.exists is not None and condition.exists is not (found is not ABSENT and found is not None):
        return False
    if "equals" in condition.model_fields_set and not _equal(found, condition.equals):
        return False
    return condition.matches is None or (
        found is not ABSENT and _matches(condition.matches, find_text(document, condition.pointer))
    )


def _equal(found: object, wanted: object) -> bool:
    """Equal in value and kind: true is not 1, and "7" is not 7."""
    return isinstance(found, bool) is isinstance(wanted, bool) and found == wanted


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern.casefold()).match(text[:_MATCHED].casefold()) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of * and ? only: fnmatch makes it without backtracking that could explode."""
    return re.compile(translate(pattern.replace("[", "[[]")))


def _text(body: bytes) -> str:
    return body[: 4 * _MATCHED].decode("utf-8", "replace")


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status}"


def _hint(meaning: Meaning, status: int) -> str:
    if meaning is Meaning.NOT_CONNECTED and status in _CREDENTIALS:
        return "the server refuses our credentials: correct auth of the system; nothing was taken and nothing is parked"
    if meaning is Meaning.NOT_CONNECTED and status in _MOVED:
        return "no redirect is followed: set base_url and path to where it moved"
    if meaning is Meaning.REJECTED and status in (404, 405):
        return "the address or the thing it names does not exist there: look at path and method of the flow"
    if meaning is Meaning.DELAYED:
        return ""
    return _HINTS.get(meaning, "")
