"""`distctl status`: the agent in one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.output import Format, Output
from console.cli.session import session_of
from console.cli.watch import repeat
from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from agent.control.schema import Status

app = new_app()

CONDITIONS = (
    "parked",
    "waiting-behind",
    "in-doubt",
    "unreachable",
    "held",
    "frozen",
    "backlog",
    "audit",
    "draining",
    "sites",
    "trouble",
    "unknown-estate",
)


def _names() -> list[str]:
    return [*CONDITIONS, "any"]


def _known(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name != "any" and name not in CONDITIONS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(CONDITIONS)} or any")
    return names


@app.command()
def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again; with -o jsonl one line each.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            callback=_known,
            autocompletion=_names,
            help=f"Exit 9 where this is so: {', '.join(CONDITIONS)}, or any of them. May be given more than once.",
        ),
    ] = None,
    until_clear: Annotated[
        list[str] | None,
        typer.Option(
            callback=_known, autocompletion=_names, help="With --watch: end once none of these is so, e.g. `backlog`."
        ),
    ] = None,
) -> None:
    """What is owed, what waits, what needs a person."""
    if until_clear and not watch:
        raise typer.BadParameter("it needs --watch: one look cannot wait", param_hint="--until-clear")
    session = session_of(context)
    if watch and session.output.format is Format.JSON:
        session.output.format = Format.JSONL
    client = session.client()
    answer = client.status()
    show(answer, session.output, watching=watch)
    if watch and not (until_clear and not _matching(answer, until_clear)):
        for answer in repeat(client.status, every=every, output=session.output):
            show(answer, session.output, watching=True)
            if until_clear and not _matching(answer, until_clear):
                break
    if _matching(answer, fail_on or ()):
        raise typer.Exit(ExitCode.UNHEALTHY)


def show(answer: Status, output: Output, *, watching: bool = False) -> None:
    """Write `answer`: lanes for people, with what needs looking at above them; the whole of it as data."""
    if not output.is_for_people:
        output.record(answer)
        return
    from console.presenters import lanes, moment

    if watching:
        output.clear()
    output.line(f"{answer.site} ({answer.environment}) as of {moment(answer.as_of)}, estate {answer.estate_hash[:8]}")
    if answer.estate_from:
        output.line(f"estate: {answer.estate_from}")
    for condition in answer.conditions:
        output.line(f"! {condition.text}")
    output.rows(answer.lanes, lanes(answer.as_of))


def _matching(answer: Status, names: list[str] | tuple[str, ...]) -> list[str]:
    return [found.name for found in answer.conditions if found.name in names or "any" in names]
