"""`distctl agent`: the daemon in the foreground, and what a person tells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

if TYPE_CHECKING:
    from agent.service_unit import Service
    from state.model.errors import ConfigError

app = new_app(no_args_is_help=True)


class Log(StrEnum):
    """How the agent logs."""

    JSON = "json"
    TEXT = "text"


@app.callback()
def agent() -> None:
    """Run a site's agent."""


@app.command()
def run(
    context: typer.Context,
    estate: Annotated[
        Path | None,
        typer.Option(
            help="The estate folder; default the current one. An enrolled site needs none: its estate comes from the hub."
        ),
    ] = None,
    log: Annotated[
        Log | None, typer.Option(help="The form of the log on stderr; default text on a terminal, else JSON.")
    ] = None,
) -> None:
    """Run a site's agent in the foreground until SIGTERM or ctrl-c. --site may be left out where there is one."""
    import asyncio

    from agent.runtime import AgentOptions, run_agent
    from agent.site_estate import is_enrolled

    session = session_of(context)
    site = session.site or _enrolled_site(session.data) or _only_site(estate or Path())
    data = session.data_path(site)
    folder = estate or (None if is_enrolled(data) else Path())
    form = log or (Log.TEXT if session.output.talk.isatty() else Log.JSON)
    options = AgentOptions(estate=folder and folder.resolve(), site=site, data=data, log=form.value)
    raise typer.Exit(asyncio.run(run_agent(options)))


@app.command()
def enrol(
    context: typer.Context,
    hub: Annotated[str, typer.Option(help="The address of the hub: https://host:port.")],
    token: Annotated[
        str,
        typer.Option(envvar="DISTCTL_INVITATION", help="The invitation that the hub's `distctl agents invite` gave."),
    ],
) -> None:
    """Make this site's agent one of the hub's. Its key never leaves this machine; an agent that runs takes it up by itself."""
    import asyncio

    from agent.clock import SystemClock
    from agent.identity.enrolment import enrol as enrol_at
    from agent.identity.invitation import Token

    session = session_of(context)
    data = session.data_path(session.site or Token.read(token).site)
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    identity = asyncio.run(enrol_at(hub, token, data, clock=SystemClock()))
    session.output.say(f"{identity.site} is enrolled with {hub}; its certificate is renewed by itself")


@app.command()
def resume(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why it may go on; kept in the audit.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whether it could, and change nothing.")] = False,
) -> None:
    """End safe mode, in which an agent waits after several starts that came to nothing."""
    session = session_of(context)
    session.client().resume(reason=reason, dry_run=dry_run)
    session.output.say("the agent would go on; nothing was changed" if dry_run else "the agent goes on")


@app.command()
def install(
    context: typer.Context,
    estate: Annotated[Path, typer.Option(help="The estate folder.")] = Path(),
    user: Annotated[str, typer.Option(help="The account that the agent runs under.")] = "distctl",
    dynamic_user: Annotated[
        bool,
        typer.Option("--dynamic-user", help="An account that systemd makes. Only root reaches its control socket."),
    ] = False,
    program: Annotated[Path | None, typer.Option(help="The `distctl` that the unit starts; default this one.")] = None,
    credentials: Annotated[
        Path, typer.Option(help="Where the secrets lie that the estate calls `credential:NAME`, a file each.")
    ] = Path("/etc/distctl/credentials"),
    writable: Annotated[
        list[Path] | None, typer.Option(help="A folder that the agent may write as well, such as that of backups.")
    ] = None,
    memory: Annotated[str, typer.Option(help="What it may use at most, as systemd writes it.")] = "2G",
    print_: Annotated[bool, typer.Option("--print", help="Show the unit and write nothing.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="For packages: write under this folder, where packages keep their units.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a unit that was edited by hand.")] = False,
) -> None:
    """Write a hardened systemd unit for a site's agent, and say what to do next. --site may be left out where there is one."""
    from agent import service_unit
    from agent.estate.load import load

    session = session_of(context)
    found = load(estate).raise_first()
    site = session.site or _only_site(estate)
    if site not in found.sites:
        raise _no_site(site, found.sites)
    service = service_unit.service_of(
        found,
        site,
        home=estate.resolve(),
        program=(program or _this_program()).absolute(),
        data=session.data.absolute() if session.data else None,
        user=None if dynamic_user else user,
        memory=memory,
        credentials=credentials.absolute(),
        writable=[path.absolute() for path in writable or ()],
    )
    unit = service_unit.unit_of(service)
    for caution in service_unit.cautions(service):
        session.output.say(f"careful: {caution}")
    if print_:
        session.output.text(unit)
        return
    path = service_unit.path_of(service, root)
    changed = service_unit.install(unit, path, replace=replace)
    session.output.line(f"{path} {'is written' if changed else 'is as it should be'}")
    if root is None:
        for step in _next_steps(service):
            session.output.line(step)


def _next_steps(service: Service) -> Iterator[str]:
    """What an administrator types next, in order."""
    if service.user is not None and not _is_account(service.user):
        yield f"  useradd --system --no-create-home --shell /usr/sbin/nologin {service.user}"
    for name in service.credential_names:
        yield f"  install -D -m 0600 SECRET {service.credentials / name}"
    yield "  systemctl daemon-reload"
    yield f"  systemctl enable --now {service.name}"
    yield f"  distctl --data {service.data} status"


def _is_account(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _this_program() -> Path:
    """The `distctl` beside the interpreter, which is where pip puts it, else the one that was called."""
    import sys

    beside = Path(sys.executable).with_name("distctl")
    return beside if beside.exists() else Path(sys.argv[0])


def _no_site(site: str, known: Iterable[str]) -> ConfigError:
    from state.model.errors import ConfigError

    return ConfigError(f"the estate has no site {site!r}", hint=f"its sites: {', '.join(known)}", code="unknown-site")


def _enrolled_site(data: Path | None) -> str | None:
    """The site whose agent has its data there, where it enrolled."""
    from agent.site_estate import is_enrolled

    if data is None or not is_enrolled(data):
        return None
    from agent.clock import SystemClock
    from agent.identity.site import SiteIdentity

    return SiteIdentity.open(data, clock=SystemClock()).site


def _only_site(folder: Path) -> str:
    from agent.estate.load import load
    from state.model.errors import ConfigError

    sites = list(load(folder).raise_first().sites)
    if len(sites) != 1:
        raise ConfigError("the estate has more than one site", hint=f"name yours with --site: {', '.join(sites)}")
    return sites[0]
