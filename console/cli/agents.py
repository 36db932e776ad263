"""`distctl agents`: the other agents of the estate, as the hub or a site sees them."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

app = new_app(no_args_is_help=True, help="The other agents: how they stand, and who may come.")

Site = Annotated[str, typer.Argument(help="The site of the agent.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]


@app.command("list")
def list_(context: typer.Context) -> None:
    """How each agent stands and what to do: all of them at the hub, the hub at a site."""
    session = session_of(context)
    page = session.client().agents()
    from console.presenters import AGENTS

    session.output.rows(page.items, AGENTS)


@app.command()
def show(context: typer.Context, site: Site) -> None:
    """One agent, with what it last told of itself, and what of its streams or ours is beyond retention."""
    session = session_of(context)
    agent = session.client().agent(site).agent
    if not session.output.is_for_people:
        session.output.record(agent)
        return
    session.output.facts({name: fact for name, fact in agent.model_dump(mode="json").items() if name != "gaps"})
    for gap in agent.gaps:
        session.output.line(gap.text)


@app.command()
def invite(context: typer.Context, site: Site) -> None:
    """Make a token that enrols the agent of that site, once, within 15 minutes."""
    from console.presenters import moment

    session = session_of(context)
    invitation = session.client().invite_agent(site)
    if not session.output.is_for_people:
        session.output.record(invitation)
        return
    session.output.line(invitation.token)
    session.output.say(f"until {moment(invitation.expires_at)}, at {site}: distctl agent enrol --hub URL --token TOKEN")


@app.command()
def adopt(context: typer.Context, site: Site, reason: Reason) -> None:
    """Let a fenced site go on with the store that says hello next. Stop every other store of it first."""
    session = session_of(context)
    session.client().adopt_agent(site, reason=reason)
    session.output.say(f"the next hello of {site} begins a new epoch")


@app.command()
def waive(context: typer.Context, site: Site, reason: Reason) -> None:
    """After a restore, go on without what that site's agent may have: what it alone knew is in no store from then on."""
    session = session_of(context)
    session.client().waive_agent(site, reason=reason)
    session.output.say(f"{site} is not waited for any more; what it hands up later is taken in all the same")


@app.command()
def deny(context: typer.Context, site: Site, reason: Reason) -> None:
    """Keep the agents that the site has had until now out, at once."""
    session = session_of(context)
    session.client().deny_agent(site, reason=reason)
    session.output.say(f"the agent of {site} is denied; an invitation gives it a new identity")


@app.command()
def allow(context: typer.Context, site: Site, reason: Reason) -> None:
    """End a denial."""
    session = session_of(context)
    session.client().allow_agent(site, reason=reason)
    session.output.say(f"the agent of {site} may come again")
