"""`distctl agents`: the other agents of the estate, as the hub or a site sees them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from agent.control.client import ControlClient
    from agent.control.schema import DrainState, DrainView
    from console.cli.output import Output

app = new_app(no_args_is_help=True, help="The other agents: how they stand, and who may come.")

Site = Annotated[str, typer.Argument(help="The site of the agent.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it touches, and change nothing.")]


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
    from console.presenters import agent_facts

    session.output.facts(agent_facts(agent))
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


@app.command()
def drain(
    context: typer.Context,
    site: Site,
    reason: Reason,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is drained.")] = False,
    within: Annotated[str, typer.Option(help="With --wait: how long at most; exit 5 where something is left.")] = "1h",
) -> None:
    """Have the agent of a site take in nothing more, and deliver and hand up what it has. It holds until `undrain`."""
    session = session_of(context)
    client = session.client(site)
    _announce(client.begin_drain(reason=reason, dry_run=True) if dry_run else client.drain(), session.output)
    if dry_run:
        return
    answer = client.begin_drain(reason=reason)
    if wait:
        answer = _wait(client, answer, within=within)
    if session.output.is_for_people:
        session.output.say(_told(answer.drain, site))
    else:
        session.output.record(answer)
    if wait and answer.drain.state == "draining":
        raise typer.Exit(ExitCode.PARTLY)


@app.command()
def undrain(context: typer.Context, site: Site, reason: Reason, dry_run: DryRun = False) -> None:
    """Have it take in again."""
    session = session_of(context)
    answer = session.client(site).end_drain(reason=reason, dry_run=dry_run)
    if not session.output.is_for_people:
        session.output.record(answer)
        return
    sources = _count(answer.drain.sources, "source")
    verb = "would be" if dry_run else "is" if answer.drain.sources == 1 else "are"
    session.output.say(f"{sources} of {site} {verb} read again")


def _announce(answer: DrainState, output: Output) -> None:
    """What draining touches, in one line."""
    view = answer.drain
    output.say(f"stops {_count(view.sources, 'source')} of {answer.site}; it owes {_owed(view)}")


def _told(view: DrainView, site: str) -> str:
    if view.state == "drained":
        return f"{site} is drained: it owes nothing"
    return f"{site} takes in nothing more; left are {_owed(view)}"


def _owed(view: DrainView) -> str:
    """`12 deliveries to south/wms, 1 parked (distctl dlq list), 3 events for other agents`."""
    owed = [
        f"{_count(view.deliveries, 'delivery', 'deliveries')} to {', '.join(view.targets)}" if view.deliveries else "",
        f"{view.parked:,} parked (distctl dlq list)" if view.parked else "",
        f"{_count(view.events, 'event')} for other agents" if view.events else "",
        f"{_count(view.unapplied, 'event')} that wait for their estate" if view.unapplied else "",
    ]
    return ", ".join(part for part in owed if part) or "nothing"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _wait(client: ControlClient, answer: DrainState, *, within: str) -> DrainState:
    """How it stands when nothing is left, or the time is over."""
    import time

    from state.model.errors import NotConnectedError, StoreError

    until = time.monotonic() + _seconds(within)
    while answer.drain.state == "draining" and time.monotonic() < until:
        time.sleep(1.0)
        with suppress(NotConnectedError, StoreError):  # it goes on draining while nobody can ask it
            answer = client.drain()
    return answer


def _seconds(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from state.model.estate import Duration

    try:
        return TypeAdapter(Duration).validate_python(text).total_seconds()
    except ValidationError:
        raise typer.BadParameter("it is a duration such as `10m`", param_hint="--within") from None
