"""`distctl reload`: the agent looks for a better estate than the one in force."""

from __future__ import annotations

import typer

from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


@app.command()
def reload(context: typer.Context) -> None:
    """Read the estate folder again now; at a site, judge the hub's estate again that was refused."""
    session = session_of(context)
    answer = session.client().reload()
    if not session.output.is_for_people:
        session.output.record(answer)
        return
    session.output.say(f"estate {answer.estate_hash[:8]} is in force{'' if answer.changed else ', as before'}")
