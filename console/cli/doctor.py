"""`distctl doctor`: what may hurt the agent on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.group import new_app
from console.cli.session import Session, session_of
from console.exit_codes import ExitCode

app = new_app()


@app.command()
def doctor(
    context: typer.Context,
    estate: Annotated[Path | None, typer.Option(help="Check this estate folder as well.")] = None,
) -> None:
    """Examine this machine, the store and the estate."""
    from agent.doctor import Grade, examine

    session = session_of(context)
    results = examine(_data_folder(session), estate=estate)
    if session.output.is_for_people:
        for one in results:
            session.output.line(f"{one.grade.value:<8} {one.name:<10} {one.text}{f'. {one.hint}' if one.hint else ''}")
    else:
        session.output.plain_rows([one.to_json() for one in results])
    if any(one.grade is Grade.BAD for one in results):
        raise typer.Exit(ExitCode.UNHEALTHY)


def _data_folder(session: Session) -> Path | None:
    from state.model.errors import NotConnectedError

    try:
        return session.socket_path().parent.parent
    except NotConnectedError:
        return None  # no agent was ever here, and none is named
