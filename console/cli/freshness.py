"""Lists page by page, and the line under them: as of when, whose, and whether there is more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.output import Format, Output

if TYPE_CHECKING:
    from agent.control.schema import Answer, Page
    from console.presenters import Listing

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest first.")]


def list_pages(fetch: Callable[[int, str | None], Page[Any]], listing: Listing, output: Output, *, limit: int) -> None:
    """Write at most `limit` rows of `fetch(size, cursor)`; JSON lines leave as soon as their page is here."""
    from agent.control.client import gather

    rows: list[Any] = []
    page: Page[Any] | None = None
    for page in gather(fetch, limit=limit):
        rows += page.items
        if output.format is Format.JSONL:
            output.rows(page.items, listing)
    if output.format is not Format.JSONL:
        output.rows(rows, listing)
    if page is not None:
        say_freshness(page, output, shown=len(rows))


def say_freshness(answer: Answer, output: Output, *, shown: int = 0) -> None:
    """Tell people on stderr how old this is and whether it is all."""
    from console.presenters import moment

    if output.is_for_people and output.talk.isatty():
        output.say(f"as of {moment(answer.as_of)}, {answer.site} ({answer.environment})")
    if getattr(answer, "next", None) is not None:
        output.say(f"these are the newest {shown:,}; there are more: --limit")
