"""`distctl audit`: who did what and why, and whether the record is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode

Of = Annotated[str | None, typer.Option("--of", metavar="SITE", help="The copy that is kept here of another site's.")]

app = new_app(no_args_is_help=True, help="Who did what and why, and whether the record is whole.")


@app.command("list")
def list_(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only by this person or token.")] = None,
    target: Annotated[str | None, typer.Option(help="Only about this thing, e.g. `delivery 17`.")] = None,
    of: Of = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="What its store has no longer: it was cut back, or put back from a backup.")
    ] = False,
    limit: Limit = 100,
) -> None:
    """The entries, newest first."""
    session = session_of(context)
    client = session.client()
    from console.presenters import AUDIT

    list_pages(
        lambda size, cursor: client.audit(actor=actor, target=target, of=of, lost=lost, limit=size, cursor=cursor),
        AUDIT,
        session.output,
        limit=limit,
    )


@app.command()
def verify(context: typer.Context, of: Of = None) -> None:
    """Go along the hash chain and what other agents know of it; exit 9 and the first bad entry if it is broken."""
    session = session_of(context)
    verdict = session.client().audit_verdict(of=of)
    whose = f"the copy of the audit of {verdict.audit_of}" if verdict.audit_of else "the audit"
    if not session.output.is_for_people:
        session.output.record(verdict)
    elif verdict.ok:
        known = f"; it fits what is known at {', '.join(verdict.fits)}" if verdict.fits else ""
        session.output.line(f"{whose} is whole up to entry {verdict.entries:,}, head {verdict.head}{known}")
    else:
        session.output.line(f"{whose} is broken at entry {verdict.first_bad}: {verdict.reason}")
    if not verdict.ok:
        raise typer.Exit(ExitCode.UNHEALTHY)


@app.command()
def acknowledge(
    context: typer.Context,
    site: Annotated[str, typer.Argument(help="The site whose audit it is.")],
    reason: Annotated[str, typer.Option(help="What came of it; kept in the audit.")],
) -> None:
    """Say that somebody knows of what does not fit in the audit of a site: `status` asks for nobody any more."""
    session = session_of(context)
    session.client().acknowledge_audit(site, reason=reason)
    session.output.say(f"acknowledged; `distctl audit list --lost --of {site}` keeps what there is")
