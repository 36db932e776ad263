"""`distctl audit`: who did what and why, and whether the record is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode

app = new_app(no_args_is_help=True, help="Who did what and why, and whether the record is whole.")


@app.command("list")
def list_(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only by this person or token.")] = None,
    target: Annotated[str | None, typer.Option(help="Only about this thing, e.g. `delivery 17`.")] = None,
    limit: Limit = 100,
) -> None:
    """The entries, newest first."""
    session = session_of(context)
    client = session.client()
    from console.presenters import AUDIT

    list_pages(
        lambda size, cursor: client.audit(actor=actor, target=target, limit=size, cursor=cursor),
        AUDIT,
        session.output,
        limit=limit,
    )


@app.command()
def verify(context: typer.Context) -> None:
    """Go along the hash chain; exit 9 and the first bad entry if it is broken."""
    session = session_of(context)
    verdict = session.client().audit_verdict()
    if not session.output.is_for_people:
        session.output.record(verdict)
    elif verdict.ok:
        session.output.line(f"the audit is whole up to entry {verdict.entries:,}, head {verdict.head}")
    else:
        session.output.line(f"the audit is broken at entry {verdict.first_bad}: {verdict.reason}")
    if not verdict.ok:
        raise typer.Exit(ExitCode.UNHEALTHY)
