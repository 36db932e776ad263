"""An errand, to whoever asks one and whoever does it: a call of the control API of another site, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from state.model.people import Vouched

LARGEST_BODY: Final = 8 * 1024 * 1024
"""Bytes of an answer that go over a link."""

USUAL_SECONDS: Final = 10.0
"""How long a caller waits who does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call of the control API. `target` is the path with its query, as the caller wrote it."""

    method: str
    target: str
    caller: Vouched
    seconds: float  # after which the caller waits no more

    @property
    def may_change(self) -> bool:
        """Whether it may have changed something where nobody knows how it ended."""
        return self.method != "GET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the API answered: an HTTP status, the type of the body, and the body."""

    status: int
    type: str
    body: bytes


class Elsewhere(Protocol):
    """The other sites of the estate."""

    async def ask(self, site: str, question: Question) -> Answered:
        """Put a question to the agent of `site`.

        Raises `NotConnectedError` where nothing was done, `InDoubtError` where something may have been, `NotFoundError` for
        a site that the estate has not, and `ConfigError` where this agent is not the hub.
        """
        ...
