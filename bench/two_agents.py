"""A site and its hub, as users run them: two processes, enrolled, on a link of mutual TLS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.identity.testing import free_port
from bench.agent_process import DISTCTL, AgentProcess, open_agent
from bench.estate import HUB, SITE, write_linked_estate


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoAgents:
    """Both run, and the site is enrolled."""

    home: Path
    site: AgentProcess
    hub: AgentProcess

    def settled_at_the_site(self) -> int:
        """How many outcomes came back to the site: whatever comes down to it is one."""
        return self.site.received()


@asynccontextmanager
async def open_two_agents(home: Path, *, url: str) -> AsyncIterator[TwoAgents]:
    """Write an estate into `home` whose orders go to the partner at `url`, and start its agents."""
    port = free_port()
    write_linked_estate(home, url=url, port=port)
    async with open_agent(home, HUB, data=home / HUB) as hub:
        enrol(hub.data, home / SITE, port=port)
        async with open_agent(home, SITE, data=home / SITE) as site:
            yield TwoAgents(home=home, site=site, hub=hub)


def enrol(hub: Path, site: Path, *, port: int) -> None:
    """Invite the site at the hub with its data in `hub`, and enrol the agent with its data in `site`."""
    invited = json.loads(distctl("--data", str(hub), "agents", "invite", SITE, "-o", "json"))
    address = f"https://127.0.0.1:{port}"
    distctl("--data", str(site), "agent", "enrol", "--hub", address, DISTCTL_INVITATION=invited["token"])


@contextmanager
def standing_still(agent: AgentProcess) -> Iterator[None]:
    """Stop the process for the length of the block, as it is: its peers wait for its answers."""
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent.pid, signal.SIGCONT)


def distctl(*words: str, **environment: str) -> str:
    """What a command prints on stdout. Raises `SystemExit` where it fails."""
    done = subprocess.run(
        [DISTCTL, *words], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise SystemExit(f"distctl {' '.join(words[2:])}: {done.stderr}")
    return done.stdout
