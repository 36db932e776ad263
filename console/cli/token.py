"""`distctl token`: tokens by which remote people and scripts ask an agent."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.freshness import Limit, list_pages
from console.cli.group import new_app
from console.cli.session import session_of
from state.model.people import Role

app = new_app(no_args_is_help=True, help="Tokens by which remote people and scripts ask.")

Name = Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and inner hyphens.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    role: Annotated[list[Role], typer.Option(help="What it may; may be repeated, never more than its person has.")],
    expires: Annotated[str, typer.Option(help="How long it holds, such as `90d`; at most a year.")],
    person: Annotated[
        str | None, typer.Option(help="Whose it is: one of `people` in estate.yaml. Default whoever makes it.")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="The site where it holds; may be repeated. Default the agent's own.")
    ] = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="It holds at every site, now and later.")] = False,
) -> None:
    """Make a token and print it, this once. The agent that makes it is the one that takes it."""
    from console.presenters import moment

    if at and everywhere:
        raise typer.BadParameter("--at and --everywhere exclude each other")
    session = session_of(context)
    roles = [one.value for one in role]
    issued = session.client().create_token(
        name, person=person, roles=roles, expires=expires, sites=at or (), everywhere=everywhere
    )
    if not session.output.is_for_people:
        session.output.record(issued)
        return
    session.output.line(issued.token)
    session.output.say(
        f"the token {name} of {issued.person} holds until {moment(issued.expires_at)}; it is not shown again"
    )


@app.command("list")
def list_(
    context: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Those too that were revoked.")] = False,
    limit: Limit = 100,
) -> None:
    """The tokens, newest first: whose they are, what they may, until when, and when they were last used."""
    session = session_of(context)
    client = session.client()
    from console.presenters import TOKENS

    list_pages(
        lambda size, cursor: client.tokens(revoked=all_, limit=size, cursor=cursor),
        TOKENS,
        session.output,
        limit=limit,
    )


@app.command()
def revoke(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")],
) -> None:
    """End a token now, for good. Its name may be given to another."""
    session = session_of(context)
    session.client().revoke_token(name, reason=reason)
    session.output.say(f"the token {name} is revoked")
