"""`distctl agent`: the daemon in the foreground, and what a person tells it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

app = new_app(no_args_is_help=True)


class Log(StrEnum):
    """How the agent logs."""

    JSON = "json"
    TEXT = "text"


@app.callback()
def agent() -> None:
    """Run a site's agent."""


@app.command()
def run(
    context: typer.Context,
    estate: Annotated[Path, typer.Option(help="The estate folder.")] = Path(),
    log: Annotated[
        Log | None, typer.Option(help="The form of the log on stderr; default text on a terminal, else JSON.")
    ] = None,
) -> None:
    """Run a site's agent in the foreground until SIGTERM or ctrl-c. --site may be left out where the estate has one."""
    import asyncio

    from agent.runtime import AgentOptions, run_agent

    session = session_of(context)
    site = session.site or _only_site(estate)
    form = log or (Log.TEXT if session.output.talk.isatty() else Log.JSON)
    options = AgentOptions(estate=estate.resolve(), site=site, data=session.data_path(site), log=form.value)
    raise typer.Exit(asyncio.run(run_agent(options)))


@app.command()
def resume(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why it may go on; kept in the audit.")],
) -> None:
    """End safe mode, in which an agent waits after several starts that came to nothing."""
    session = session_of(context)
    session.client().resume(reason=reason)
    session.output.say("the agent goes on")


def _only_site(folder: Path) -> str:
    from agent.estate.load import load
    from state.model.errors import ConfigError

    sites = list(load(folder).raise_first().sites)
    if len(sites) != 1:
        raise ConfigError("the estate has more than one site", hint=f"name yours with --site: {', '.join(sites)}")
    return sites[0]
