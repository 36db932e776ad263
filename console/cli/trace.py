"""`distctl trace KEY`: one timeline of a business key."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.freshness import say_freshness
from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


@app.command()
def trace(
    context: typer.Context, key: Annotated[str, typer.Argument(help="What people call the thing: PO-4711.")]
) -> None:
    """Everything known of a business key."""
    session = session_of(context)
    view = session.client().trace(key)
    if not session.output.is_for_people:
        session.output.record(view)
        return
    from console.presenters import STEPS

    session.output.rows(view.steps, STEPS)
    say_freshness(view, session.output)
