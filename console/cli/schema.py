"""`distctl schema`: the JSON Schema of the estate's files, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


class Kind(StrEnum):
    """The kinds of files in an estate folder."""

    ESTATE = "estate"
    SITE = "site"
    FLOW = "flow"


@app.command()
def schema(
    context: typer.Context, kind: Annotated[Kind, typer.Argument(help="Which kind of file.")] = Kind.FLOW
) -> None:
    """Print the JSON Schema of the estate's files, for editors."""
    from agent.estate.schema import schemas

    text = json.dumps(schemas()[f"{kind.value}.schema.json"], indent=2)
    session_of(context).output.text(f"{text}\n")
