"""The drill for a lost hub, rehearsed: the page's own commands, against a hub and three sites that are at work.

`pytest -s` prints how long each step took; the page's table is one such run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.simulators.judge import count_weeks, tally_all
from connectors.simulators.stage import Stage
from console.cli.demo_agents import Agents
from tests.acceptance.agent_process import until
from tests.acceptance.walk_through import assert_shows, blocks, expectations, run, section

PAGE = Path(__file__).parents[2] / "docs" / "lost-hub.md"
BEFORE = ["Before it happens"]
DRILL = [
    "What goes on without it",
    "Put the last backup back",
    "Start the hub",
    "See who has answered",
    "Go on without a site that is gone",
    "Look whether all is well",
]
LONG = 60.0
SECONDS = 300


class Rehearsal:
    """The demo's estate at work, as machines that can be lost."""

    def __init__(self, home: Path) -> None:
        self.stage = Stage(home, seed=1, pause=0.2)
        self.agents = Agents(self.stage)
        self.weeks = 0

    def start(self) -> None:
        self.stage.open()
        self.agents.start()
        self.stage.begin()

    def publish(self) -> None:
        """The next week, by all that are there."""
        self.weeks += 1
        self.stage.give_cue(self.weeks)

    def lose(self, site: str) -> None:
        """The machine of a site is gone, with all that was on it but the folder that its partners write to."""
        agent = self.agents.hub if site == "hq" else self.agents.sites[site]
        agent.program.kill()
        shutil.rmtree(agent.data)

    def wrong(self) -> list[str]:
        """What the ledgers say is lost, doubled or out of order."""
        return [
            f"{tally.flow}: {one}"
            for tally in tally_all(self.stage.ledgers)
            for one in (*tally.lost, *tally.doubled, *tally.order_inversions)
        ]

    def arrived(self) -> bool:
        return count_weeks(self.stage.ledgers) == self.weeks and not self.wrong()

    def type(self, titles: list[str]) -> dict[str, float]:
        """Do what these sections say, compare what they show, and say how many seconds each took."""
        steps = [block for title in titles for block in blocks(PAGE, title)]
        instead = {
            "/var/lib/distctl/hq": str(self.agents.hub.data),
            "/var/lib/distctl/dc-south": str(self.agents.sites["dc-south"].data),
            "/srv/backups": str(self.stage.home / "backups"),
        }
        done = run(steps, self.stage.home, instead=instead, prelude=self._prelude(), seconds=SECONDS)
        for number, step in expectations(steps):
            url = f"https://127.0.0.1:{self.stage.hub_port}"
            assert_shows(done[number].shown.replace(url, "https://hub.demo.example:7443"), step.text)
        return {title: step.seconds for title, step in zip(titles, done, strict=True)}

    def _prelude(self) -> str:
        """Where `distctl` is, and a systemd that knows one unit and outlives the shell."""
        start = (
            f"setsid {shlex.join(self.agents.hub.program.command)} 2>> logs/agent-hq.log & echo $! > hub.pid; disown"
        )
        return f"PATH={Path(sys.executable).parent}:$PATH; systemctl() {{ {start}; }}"

    def end(self) -> None:
        """Whatever still runs."""
        for program in (*self.stage.programs, *self.agents.programs):
            program.stop()
        if (started := self.stage.home / "hub.pid").exists():
            os.kill(int(started.read_text()), signal.SIGKILL)


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    rehearsal = Rehearsal(tmp_path / "home")
    try:
        rehearsal.start()
        yield rehearsal
    finally:
        rehearsal.end()


def test_the_page_has_a_time_for_each_step() -> None:
    rows = re.findall(r"^\| (.+) \| [0-9]+ \|$", section(PAGE, "How long it took"), re.MULTILINE)
    assert rows == [*BEFORE, *DRILL]


@pytest.mark.slow
def test_a_hub_is_lost_with_a_site_and_comes_back_as_the_page_says(rehearsal: Rehearsal) -> None:
    rehearsal.publish()
    until(rehearsal.arrived, "the first week arrives", seconds=LONG)
    times = rehearsal.type(BEFORE)
    rehearsal.publish()
    until(rehearsal.arrived, "the second week arrives, which the backup does not have", seconds=LONG)
    for site in ("hq", "web"):
        rehearsal.lose(site)
    rehearsal.stage.shop.stop()
    rehearsal.publish()
    south = rehearsal.agents.sites["dc-south"].client
    until(lambda: "cannot be reached" in str(south.health().troubles), "the hub is missed")
    times |= rehearsal.type(DRILL)
    until(lambda: not rehearsal.wrong(), "all that was published arrives once and in order", seconds=LONG)
    for title, seconds in times.items():
        print(f"| {title} | {seconds:.1f} |")  # noqa: T201 - for whoever rehearses it
