"""`distctl verify`: whether a backup can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from agent.backup_folder import Verdict
    from console.cli.output import Output

app = new_app()


@app.command()
def verify(
    context: typer.Context, backup: Annotated[Path, typer.Argument(help="A backup, as `distctl backup list` shows it.")]
) -> None:
    """Look at a backup as a whole; exit 9 and what is wrong with it."""
    from agent.backup_folder import row_of
    from agent.backup_folder import verify as look

    output = session_of(context).output
    found = look(backup)
    if not output.is_for_people:
        row = row_of(found.path, found.manifest, found.manifest_sha256).model_dump(mode="json")
        output.record({"ok": not found.findings, "findings": list(found.findings), **row})
    elif not found.findings:
        from console.presenters import moment, words

        manifest = found.manifest
        told = f"{words(manifest.events)} events up to number {words(manifest.last_event)}"
        output.line(f"the backup is whole: {manifest.site} as of {moment(manifest.taken_at)}, {told}")
    if found.findings:
        complain(found, output)


def complain(found: Verdict, output: Output) -> None:
    """Say what is wrong with a backup, and end."""
    for finding in found.findings:
        output.say(finding)
    output.say(
        f"{found.path} cannot be trusted: use another one, as `distctl backup list {found.path.parent}` shows them"
    )
    raise typer.Exit(ExitCode.UNHEALTHY)
