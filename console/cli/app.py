"""`distctl`: its commands and options, and what any run of it ends with.

Commands are loaded when they are named, and import what they need when they run: `distctl --help` loads typer and nothing of ours
besides these tables. Errors are one line on stderr that says what, where and what to do; the exit code is from the one table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.main import get_command

from console.cli.group import COMPLETE_VARIABLE, lazy_group, new_app
from console.cli.output import Format, standard_output
from console.cli.session import Session
from console.cli.usage import UsageError, complain_of_usage
from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from state.model.errors import DistctlError

COMMANDS: Final = {
    "init": ("console.cli.init", "Write a small working estate to start from."),
    "check": ("console.cli.check", "Check an estate folder; findings name file, line and column."),
    "agent": ("console.cli.agent", "Run a site's agent."),
    "status": ("console.cli.status", "What is owed, what waits, what needs a person."),
    "reload": (
        "console.cli.reload",
        "Read the estate folder again now; at a site, judge the hub's estate again that was refused.",
    ),
    "flows": ("console.cli.flows", "The flows: what they read, owe and delivered."),
    "events": ("console.cli.events", "The events, newest first, or one of them."),
    "trace": ("console.cli.trace", "Everything known of a business key."),
    "dlq": ("console.cli.dlq", "Dead letters: records and deliveries set aside."),
    "indoubt": ("console.cli.indoubt", "Deliveries of which nobody can say whether they landed."),
    "audit": ("console.cli.audit", "Who did what and why, and whether the record is whole."),
    "agents": ("console.cli.agents", "The other agents: how they stand, and who may come."),
    "token": ("console.cli.token", "Tokens by which remote people and scripts ask."),
    "backup": ("console.cli.backup", "Make a verified backup of an agent's store, or list those in a folder."),
    "verify": ("console.cli.verify", "Look at a backup as a whole; exit 9 and what is wrong with it."),
    "restore": ("console.cli.restore", "Put an agent's store back from a backup, in its next epoch."),
    "doctor": ("console.cli.doctor", "Examine this machine, the store and the estate."),
    "demo": ("console.cli.demo", "A whole estate on this machine, with partners that misbehave."),
    "completion": ("console.cli.completion", "Print the completion script of a shell."),
    "schema": ("console.cli.schema", "Print the JSON Schema of the estate's files, for editors."),
}
"""name: (module, help). A test compares the help with the command's own."""

_VALUED: Final = ("-o", "--output", "--socket", "--data", "--site", "--token-file")
_FLAGS: Final = ("--no-color",)


app = new_app(cls=lazy_group(COMMANDS), no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        standard_output().text(f"distctl {version('distctl')}\n")
        raise typer.Exit


@app.callback(epilog="Exit codes and every command: docs/cli.md. Changes and their order: CHANGELOG.md.")
def distctl(
    context: typer.Context,
    output: Annotated[Format | None, typer.Option("-o", "--output", help="How data is written to stdout.")] = None,
    socket: Annotated[
        Path | None, typer.Option(envvar="DISTCTL_SOCKET", help="The control socket of the agent that is meant.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="DISTCTL_DATA", help="The data folder of the agent that is meant.")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(envvar="DISTCTL_SITE", help="The site of the agent that is meant, if several run here."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="DISTCTL_TOKEN_FILE", help="Ask by the token in this file; or put it into DISTCTL_TOKEN."),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keeps a distributor's systems in step: see what flows, what waits, what was set aside, and why."""
    del version
    context.obj = Session(
        socket=socket,
        data=data,
        site=site,
        on_command_line=frozenset(name for name in ("socket", "data", "site") if _is_on_command_line(context, name)),
        token_file=token_file,
        output=standard_output(format=output, is_plain=no_color),
    )


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def main(arguments: list[str] | None = None) -> None:
    """Run `distctl` with `arguments` (default: the command line) and end the process with a code of the table."""
    from state.model.errors import DistctlError

    given = sys.argv[1:] if arguments is None else arguments
    _have_streams()
    _write_whatever_comes()
    try:
        raise SystemExit(_run(hoist(given)))
    except DistctlError as error:
        _complain(error)
    except Exception as error:  # noqa: BLE001 - the last catcher: people get a line and a report, never a traceback
        _report_crash(error, given)


def _run(arguments: list[str]) -> int:
    """Run the command that `arguments` name; returns its exit code."""
    _prepare_completion()
    try:
        ended = get_command(app).main(
            arguments, prog_name="distctl", complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
    except UsageError as error:
        ended = complain_of_usage(error, standard_output())
    except typer.Abort:
        ended = ExitCode.INTERRUPTED
    except OSError:
        standard_output().end()  # typer writes help by itself: is that what failed?
        raise
    return ended if isinstance(ended, int) else ExitCode.DONE


def hoist(arguments: Iterable[str]) -> list[str]:
    """Bring the options of every command to the front, so that they may stand anywhere, as in `distctl status -o json`.

    What follows `--` stays where it is.
    """
    front: list[str] = []
    rest: list[str] = []
    pending = iter(arguments)
    for word in pending:
        if word == "--":
            rest += [word, *pending]
        elif word in _VALUED:
            front += [word, *_next(pending)]
        elif word in _FLAGS or _carries_value(word):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _next(pending: Iterable[str]) -> list[str]:
    for word in pending:
        return [word]
    return []


def _carries_value(word: str) -> bool:
    return word.startswith(tuple(f"{name}=" for name in _VALUED)) or (word.startswith("-o") and len(word) > 2)


def _have_streams() -> None:
    """A stream that the caller closed (`>&-`) is None to Python. In its stead: one that takes nothing, or for talk all of it."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _write_whatever_comes() -> None:
    """A terminal of a narrow character set gets `\\u241b` for what it cannot show, and never an error of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _prepare_completion() -> None:
    if COMPLETE_VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()


def _complain(error: DistctlError) -> None:
    standard_output().say(f"distctl: {error}")
    raise SystemExit(error.exit_code)


def _report_crash(error: Exception, arguments: list[str]) -> None:
    from console.cli.crash import write_report

    out = standard_output()
    out.say(f"distctl: failed unexpectedly: {type(error).__name__}. The report is {write_report(error, arguments)}")
    raise SystemExit(ExitCode.FAILED)


if __name__ == "__main__":
    main()
