"""`distctl restore`: put an agent's store back from a backup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import Session, session_of

if TYPE_CHECKING:
    from agent.restore import Restored
    from console.cli.output import Output

app = new_app()


@app.command()
def restore(
    context: typer.Context,
    backup: Annotated[Path, typer.Argument(help="A backup, as `distctl backup list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Move aside what lies there, under a name with the date. Nothing is removed."),
    ] = False,
) -> None:
    """Put an agent's store back from a backup, in its next epoch. The agent must not run; --data is where."""
    from agent import crash_points
    from agent.backup_folder import read_manifest, verify
    from agent.clock import SystemClock
    from agent.control.peer import user_name
    from agent.restore import Order, finish, put_back
    from console.cli.verify import complain

    session = session_of(context)
    data, crash = _data_of(session), crash_points.from_environment(os.environ)
    if finished := finish(data, crash=crash):
        session.output.say("an interrupted restore was finished")
        _tell(finished, data, session.output)
        _expect(finished, read_manifest(backup)[1] if backup.exists() else finished.manifest_sha256, data)
        return
    found = verify(backup)
    if found.findings:
        complain(found, session.output)
    order = Order(data=data, site=session.site, by=user_name(os.geteuid()), reason=reason, replace=replace)
    _tell(put_back(found, order, clock=SystemClock(), crash=crash), data, session.output)


def _data_of(session: Session) -> Path:
    from state.model.errors import ConfigError

    if session.data is None and session.site is None:
        raise ConfigError(
            "nothing says whose store is meant",
            hint="Name the agent's --data folder, or its --site",
            code="which-agent",
        )
    return session.data_path(session.site or "").absolute()


def _tell(done: Restored, data: Path, output: Output) -> None:
    if not output.is_for_people:
        output.record(done)
        return
    from console.presenters import moment, words

    output.line(f"{data}: the store of {done.site} as of {moment(done.taken_at)}, now in epoch {done.epoch}")
    if done.in_doubt:
        output.line(
            f"{words(done.in_doubt)} deliveries are in doubt: they may have been sent since, and are asked about"
        )
    if done.aside:
        output.line(f"what was there lies in {data / done.aside}")
    output.say(
        "start the agent: `distctl status` says what it asks about, `distctl indoubt list` what waits for a person"
    )


def _expect(finished: Restored, manifest_sha256: str, data: Path) -> None:
    """What was finished may be another backup than the one that is asked for now."""
    from state.model.errors import ConflictError

    if finished.manifest_sha256 != manifest_sha256:
        hint = f"Look at {data} first; if you still want the other one, run this again with --replace"
        raise ConflictError(f"that was the backup {finished.backup}", hint=hint, code="half-restored")
