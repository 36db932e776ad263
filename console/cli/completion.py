"""`distctl completion`: the completion script of a shell."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from console.cli.group import COMPLETE_VARIABLE, new_app
from console.cli.session import session_of

app = new_app()


class Shell(StrEnum):
    """Shells that are known here."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(context: typer.Context, shell: Annotated[Shell, typer.Argument(help="The shell you use.")]) -> None:
    """Print the completion script of a shell."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="distctl", complete_var=COMPLETE_VARIABLE, shell=shell.value)
    session_of(context).output.text(f"{script}\n")
