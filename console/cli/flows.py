"""`distctl flows`: the flows in force and those that still owe something."""

from __future__ import annotations

import typer

from console.cli.freshness import say_freshness
from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


@app.command()
def flows(context: typer.Context) -> None:
    """The flows: what they read, owe and delivered."""
    session = session_of(context)
    page = session.client().flows()
    from console.presenters import flows as listing

    session.output.rows(page.items, listing(page.as_of))
    say_freshness(page, session.output)
