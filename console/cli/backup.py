"""`distctl backup`: backups of an agent's store, made by the agent where one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from console.cli.group import new_app
from console.cli.session import Session, session_of

if TYPE_CHECKING:
    from agent.control.schema import BackupRow


class _FolderOrCommand(TyperGroup):
    """What is no command is the folder to back up to: `distctl backup /backups`."""

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        return self.commands.get(cmd_name, self.commands["to"])

    def resolve_command(self, _ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        return (name, self.commands[name], rest) if name in self.commands else ("to", self.commands["to"], args)


app = new_app(
    cls=_FolderOrCommand,
    no_args_is_help=True,
    subcommand_metavar="FOLDER | COMMAND [ARGS]...",
    help="Make a verified backup of an agent's store, or list those in a folder.",
)


@app.command()
def to(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="Where backups go; made if its parent is there. Best on another disk.")
    ],
) -> None:
    """Make a backup in the folder; `distctl backup FOLDER` is short for it. The agent makes it where one runs."""
    session = session_of(context)
    made = _make(session, folder.absolute())
    if session.output.is_for_people:
        from console.presenters import mebibytes, words

        told = f"{words(made.events)} events up to number {words(made.last_event)}, {mebibytes(made.size)}, verified"
        session.output.line(f"{made.path}: {told}")
    else:
        session.output.record(made)
    if made.missing_documents:
        session.output.say(
            f"{made.missing_documents:,} raw documents are not in it: the agent's own archive has lost them"
        )


@app.command("list")
def list_(context: typer.Context, folder: Annotated[Path, typer.Argument(help="Where backups go.")]) -> None:
    """The backups in a folder, newest first. Only `distctl verify` looks into them."""
    from agent.backup_folder import published
    from console.presenters import BACKUPS

    session_of(context).output.rows(published(folder), BACKUPS)


def _make(session: Session, folder: Path) -> BackupRow:
    from state.model.errors import NotConnectedError

    path = session.socket_path()
    try:
        return session.client().back_up(folder).backup
    except NotConnectedError as error:
        if error.code != "no-agent":
            raise
    return _make_alone(session, path.parent.parent, folder)


def _make_alone(session: Session, data: Path, folder: Path) -> BackupRow:
    import os

    from agent import crash_points
    from agent.backup import make_alone
    from agent.backup_folder import row_of
    from agent.clock import SystemClock
    from agent.control.peer import user_name

    session.output.say(f"no agent runs on {data}: its store is backed up as it lies there")
    crash = crash_points.from_environment(os.environ)
    by = user_name(os.geteuid())
    made = make_alone(data, folder, site=session.site, clock=SystemClock(), by=by, crash=crash)
    return row_of(made.path, made.manifest, made.manifest_sha256)
