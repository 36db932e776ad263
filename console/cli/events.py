"""`distctl events`: what was taken in."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.detail import show_event
from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


@app.command()
def events(
    context: typer.Context,
    event: Annotated[str | None, typer.Argument(help="The sequence number or the id of one event.")] = None,
    flow: Annotated[str | None, typer.Option(help="Only of this flow.")] = None,
    key: Annotated[str | None, typer.Option(help="Only about this business key.")] = None,
    limit: Limit = 100,
) -> None:
    """The events, newest first, or one of them."""
    session = session_of(context)
    client = session.client()
    if event is not None:
        show_event(client.event(event), session.output)
        return
    from console.presenters import EVENTS

    list_pages(
        lambda size, cursor: client.events(flow=flow, key=key, limit=size, cursor=cursor),
        EVENTS,
        session.output,
        limit=limit,
    )
