"""`distctl indoubt`: deliveries of which nobody can say whether they landed."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.detail import show_in_doubt
from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of

app = new_app(no_args_is_help=True, help="Deliveries of which nobody can say whether they landed.")


@app.command("list")
def list_(
    context: typer.Context,
    flow: Annotated[str | None, typer.Option(help="Only of this flow.")] = None,
    limit: Limit = 100,
) -> None:
    """What is in doubt, newest first."""
    session = session_of(context)
    client = session.client()
    from console.presenters import IN_DOUBT

    list_pages(
        lambda size, cursor: client.in_doubt(flow=flow, limit=size, cursor=cursor),
        IN_DOUBT,
        session.output,
        limit=limit,
    )


@app.command()
def show(context: typer.Context, delivery: Annotated[int, typer.Argument(help="Its number, as listed.")]) -> None:
    """One delivery in doubt: what was sent, and what each call came to."""
    session = session_of(context)
    show_in_doubt(session.client().in_doubt_delivery(delivery), session.output)
