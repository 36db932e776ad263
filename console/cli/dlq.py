"""`distctl dlq`: what was set aside, why, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.detail import show_dead_letter
from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of

app = new_app(no_args_is_help=True, help="Dead letters: records and deliveries set aside.")


@app.command("list")
def list_(
    context: typer.Context,
    flow: Annotated[str | None, typer.Option(help="Only of this flow.")] = None,
    code: Annotated[str | None, typer.Option(help="Only with this cause, e.g. `unknown-unit`.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The closed ones too.")] = False,
    limit: Limit = 100,
) -> None:
    """What was set aside, newest first."""
    session = session_of(context)
    client = session.client()
    from console.presenters import DEAD_LETTERS

    list_pages(
        lambda size, cursor: client.dead_letters(flow=flow, code=code, closed=all_, limit=size, cursor=cursor),
        DEAD_LETTERS,
        session.output,
        limit=limit,
    )


@app.command()
def show(context: typer.Context, number: Annotated[int, typer.Argument(help="Its id, as listed.")]) -> None:
    """One dead letter: cause, cure, raw bytes."""
    session = session_of(context)
    show_dead_letter(session.client().dead_letter(number), session.output)
