"""The demo's agents: a hub and three sites, each a process of its own, enrolled and led by the commands that people type."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from agent.control.client import ControlClient, gather
from agent.control.endpoint import socket_in
from agent.control.schema import AgentRow, DeadLetterRow, EventRow
from connectors.simulators.judge import Parked
from connectors.simulators.program import Program
from connectors.simulators.stage import HUB, SITES, Stage
from state.model.errors import DistctlError

READY_WITHIN: Final = 30.0  # seconds
_COMMAND_WITHIN: Final = 60.0
_PLACE: Final = re.compile(r"^(?P<file>.*?),?\s+line (?P<line>[0-9]+)")
_MOST: Final = 20_000  # rows of a list
_DISTCTL: Final = (sys.executable, "-m", "console.cli.app")


class SiteAgent:
    """The agent of one site as a real process, asked through its control API as `distctl` asks it."""

    def __init__(self, stage: Stage, site: str, *, folder: str = "") -> None:
        """`folder` is that of a copy, in the demo's home."""
        self.site = site
        self.data = stage.folder(folder or site) / "data"
        self.client = ControlClient(socket_in(self.data))
        command = (*_DISTCTL, "--data", str(self.data), "--site", site, "agent", "run")
        estate = str(stage.folder(folder or site) / "estate")
        self.program: Program = stage.program(f"agent-{folder or site}", *command, "--estate", estate, "--log", "json")
        self._log = stage.home / "logs" / "commands.log"

    def start(self) -> None:
        """Start it and return when it works."""
        self.program.start()
        self.program.wait_until(self.is_ready, within=READY_WITHIN)

    def is_ready(self) -> bool:
        """Whether its control API answers and it has no trouble."""
        try:
            return self.client.health().ok
        except DistctlError:
            return False

    def distctl(self, *words: str) -> Any:
        """What a command about this agent answers. Raises `DistctlError` where it fails."""
        command = [*_DISTCTL, "--data", str(self.data), *words, "-o", "json"]
        with self._log.open("a") as log:
            done = subprocess.run(  # noqa: S603 - our own command
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_WITHIN, check=False
            )
            log.write(f"distctl {' '.join(words[:2])} at {self.site}: exit {done.returncode}\n{done.stderr}")
        if done.returncode:
            raise DistctlError(
                f"`distctl {' '.join(words)}` at {self.site} was to exit with 0 and exited with {done.returncode}: "
                f"{done.stderr.strip()}",
                hint=f"its output is in {self._log}",
                code="demo-command",
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def owes(self) -> bool:
        """Whether deliveries wait or are on their way, or events are to be handed to another agent."""
        return self.client.status().totals.backlog > 0 or any(row.waiting for row in self.client.agents().items)

    def parked(self) -> Iterator[Parked]:
        """Its open dead letters."""
        pages = gather(lambda size, cursor: self.client.dead_letters(limit=size, cursor=cursor), limit=_MOST)
        return (parked(row) for page in pages for row in page.items)

    def events_after(self, number: int) -> Iterator[EventRow]:
        """Those with a higher number, newest first."""
        for page in gather(lambda size, cursor: self.client.events(limit=size, cursor=cursor), limit=_MOST):
            for row in page.items:
                if row.seq <= number:
                    return
                yield row

    def last_audited(self, action: str) -> float:
        """When its audit last had that action, in seconds since 1970; 0 if never."""
        return max((row.at.timestamp() for row in self.client.audit().items if row.action == action), default=0.0)

    def peer(self, site: str) -> AgentRow:
        """How it sees another agent."""
        return self.client.agent(site).agent


class Agents:
    """The hub and the agents of the sites."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.hub = SiteAgent(stage, HUB)
        self.sites = {site: SiteAgent(stage, site) for site in SITES}
        self.copy = SiteAgent(stage, "web", folder="web-copy")

    @property
    def programs(self) -> Sequence[Program]:
        """Those of all agents, and of the copy that is made of one."""
        return [each.program for each in (self.hub, *self.sites.values(), self.copy)]

    def start(self) -> None:
        """The hub first; the others enrol with it. A leash ends with the thread that started a program, so all start here."""
        self.hub.start()
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._enrol, self.sites.values()))
        for agent in self.sites.values():
            agent.program.start()
        for agent in self.sites.values():
            agent.program.wait_until(agent.is_ready, within=READY_WITHIN)

    def owes(self) -> bool:
        """Whether any of them has something still to do."""
        return any(each.owes() for each in self._all)

    def parked(self) -> Sequence[Parked]:
        """What they set aside."""
        return [letter for each in self._all for letter in each.parked()]

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Each agent with its state and epoch: the hub as a site sees it, the sites as the hub does."""
        seen = [self.sites["dc-south"].peer(HUB), *(self.hub.peer(site) for site in self.sites)]
        return [{"site": row.agent, "state": row.state, "epoch": row.epoch} for row in seen]

    @property
    def _all(self) -> Sequence[SiteAgent]:
        return [self.hub, *self.sites.values()]

    def _enrol(self, agent: SiteAgent) -> None:
        token = self.hub.distctl("agents", "invite", agent.site)["token"]
        agent.distctl("agent", "enrol", "--hub", self.stage.hub_url(agent.site), "--token", token)


def parked(row: DeadLetterRow) -> Parked:
    """A dead letter as the judge compares it."""
    found = _PLACE.search(row.place)
    file, line = (found["file"], int(found["line"])) if found else (row.place, 0)
    text = f"{row.place} {row.field} {row.rule} {row.message} {row.shown}"
    return Parked(file=file, line=line, rule=row.rule, hint=row.hint, text=text)
