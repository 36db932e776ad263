"""`distctl schema`: the JSON Schema of the estate's files, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

if TYPE_CHECKING:
    from pydantic import BaseModel

app = new_app()


class File(StrEnum):
    """The kinds of files in an estate folder."""

    ESTATE = "estate"
    SITE = "site"
    FLOW = "flow"


@app.command()
def schema(
    context: typer.Context, file: Annotated[File, typer.Argument(help="Which kind of file.")] = File.FLOW
) -> None:
    """Print the JSON Schema of the estate's files, for editors."""
    from state.model.estate import EstateSettings, FlowSpec, SiteSpec

    models: dict[File, type[BaseModel]] = {File.ESTATE: EstateSettings, File.SITE: SiteSpec, File.FLOW: FlowSpec}
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[file].model_json_schema()}
    session_of(context).output.text(json.dumps(described, indent=2) + "\n")
