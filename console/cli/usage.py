"""A command line that is wrong, said in one line of plain words."""

from __future__ import annotations

from typing import Any, Final

import typer

from console.cli.output import Output
from console.exit_codes import ExitCode

# typer exports the children of this class and not itself, and since 0.26 has a click of its own.
UsageError: Final[Any] = typer.BadParameter.__base__

_IN_PLAIN_WORDS: Final = (
    ("Input should be a valid integer, unable to parse string as an integer", "it must be a whole number"),
    ("Input should be a valid number, unable to parse string as a number", "it must be a number"),
    ("Input should be greater than or equal to", "it must be at least"),
    ("Input should", "it must"),
    ("Value error, ", ""),
)


def complain_of_usage(error: Any, output: Output) -> ExitCode:
    """Say what is wrong and where help is. A group named without a command answers with its help."""
    if error.ctx is not None and error.message == error.ctx.get_help():
        error.show()
        return ExitCode.USAGE
    where = f". See `{error.ctx.command_path} --help`" if error.ctx is not None else ""
    output.say(f"distctl: {in_plain_words(error.format_message()).rstrip('.')}{where}")
    return ExitCode.USAGE


def in_plain_words(message: str) -> str:
    """`it must be at least 1` for what a validator says of its input."""
    for said, meant in _IN_PLAIN_WORDS:
        message = message.replace(said, meant)
    return message
