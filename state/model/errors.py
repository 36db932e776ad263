"""The one tree of errors, grouped by what the caller does next.

Every error says what went wrong, where, which rule was broken and what to do; `str(error)` is fit for an operator. Adapters
translate what their libraries raise into these: nothing above `connectors/` names an httpx or sqlite3 error.
"""

from __future__ import annotations

from datetime import timedelta


class DistctlError(Exception):
    """The root. `hint` says what to do about it; `code` is a short stable word for grouping (`unknown-unit`)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).__name__.removesuffix("Error").lower()

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class TransientError(DistctlError):
    """It may work later: back off and try the same delivery again. `retry_after` is the partner's wish, if it said one."""

    exit_code = 7

    def __init__(self, message: str, *, retry_after: timedelta | None = None, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after


class NotConnectedError(DistctlError):
    """Nothing was sent because the system cannot be reached: opens the breaker and parks nothing.

    `retry_after` is set when a reachable system asked for a pause as a whole (HTTP 429, 503).
    """

    exit_code = 7

    def __init__(self, message: str, *, retry_after: timedelta | None = None, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after


class RejectedError(DistctlError):
    """The record or the delivery is wrong and stays wrong: park it, with the reason and the hint.

    `place` is where: `orders.csv line 14, field qty`. `rule` is what was broken, `shown` the offending value made safe.
    """

    def __init__(
        self, message: str, *, place: str = "", rule: str = "", shown: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.place = place
        self.rule = rule
        self.shown = shown


class BrokenRuleError(RejectedError, ValueError):
    """One value breaks one rule of the vocabulary. A ValueError too, so that pydantic gathers it with its siblings."""


class InDoubtError(DistctlError):
    """The call ended and nobody can say whether it landed: ask before anything else, never resend blindly."""

    exit_code = 10


class DuplicateError(DistctlError):
    """The target already has it by our key: settle as done and note it. `reference` is the target's own number."""

    exit_code = 0

    def __init__(self, message: str, *, reference: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.reference = reference


class FencedError(DistctlError):
    """A newer lease or epoch holds the work: drop the result, never settle."""


class NotFoundError(DistctlError):
    """What was asked for does not exist."""

    exit_code = 3


class DeniedError(DistctlError):
    """The caller may not do this."""

    exit_code = 4


class ConflictError(DistctlError):
    """Somebody decided first, or the thing changed meanwhile."""

    exit_code = 6


class InvariantError(DistctlError):
    """Our own rule is broken: stop this task, keep the event."""


class StoreError(DistctlError):
    """The local store cannot do it now (locked, full, read-only); nothing was applied."""

    exit_code = 7


class StoreInDoubtError(DistctlError):
    """A commit failed half way (EIO): nobody can say. The process ends and the store is verified at the next start."""

    exit_code = 10


class StoreCorruptError(DistctlError):
    """The local store is damaged: nothing writes to it again. The file is kept; a person restores or recovers it."""


class ConfigError(DistctlError):
    """The configuration is wrong; refuse to start. Lines and columns count from 1, 0 is unknown."""

    exit_code = 2

    def __init__(
        self, message: str, *, file: str = "", line: int = 0, column: int = 0, hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.file = file
        self.line = line
        self.column = column

    @property
    def place(self) -> str:
        """`file:line:column` as far as known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.place}: {text}" if self.place else text
