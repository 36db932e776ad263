"""What happens to the demo's agents: killed, cut off, put back from a backup that is behind, copied.

Each act finds everybody at work and ends with everybody up; what arrived is judged at the end. What an act waits for and does not
see in time is a check that fails, and the play goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from connectors.simulators.judge import Check, balances_since, count_calls
from connectors.simulators.play import Act, Play, Played, kill_erp
from connectors.simulators.stage import CUT_OFF, HUB
from console.cli.demo_agents import Agents, SiteAgent
from state.model.errors import DistctlError

STAYS_DOWN: Final = 1.0  # seconds
WITHIN: Final = 30.0
"""Seconds after which what should have happened has not."""


class DemoCast(Agents):
    """The demo's agents, and what happens to them."""

    @property
    def acts(self) -> Sequence[Act]:
        """All of it, in the order in which it is played."""
        return (
            Act(title="agent of dc-south killed", play=partial(kill, self.sites["dc-south"])),
            Act(title=f"line of {CUT_OFF} cut", play=cut_line),
            Act(title="ERP killed", play=kill_erp),
            Act(title="hub killed", play=partial(kill, self.hub)),
            Act(title="hub lost", play=partial(lose_hub, self)),
            Act(title="agent of web copied", play=partial(copy_agent, self)),
        )


def kill(agent: SiteAgent, play: Play) -> Played:
    """An agent dies at work and is started again a moment later."""
    to_come = play.at_work()
    agent.program.kill()
    play.wait(lambda: False, within=STAYS_DOWN)
    agent.start()
    name = f"the agent of {agent.site} was killed at work"
    return _played(_check(name, to_come > 0, f"{to_come} recommendations to come"))


def cut_line(play: Play) -> Played:
    """A site is cut off from its hub. What it counts meanwhile waits there, and everybody else goes on."""
    play.stage.line.kill()
    cut_at = time.time()
    play.publish()
    went_on = play.wait(lambda: not play.to_come(), within=WITHIN)
    counted, arrived = balances_since(play.ledgers, cut_at)
    play.stage.start_again(play.stage.line)
    return _played(
        _check(
            f"cut off, {CUT_OFF} keeps what it counts",
            counted > 0 and not arrived,
            f"{counted} balances waited" if not arrived else f"{arrived} of {counted} balances arrived all the same",
        ),
        _check(
            f"without {CUT_OFF} all others go on",
            went_on,
            "the others went on" if went_on else f"{play.to_come()} recommendations to come after {WITHIN:g} s",
        ),
    )


def lose_hub(agents: Agents, play: Play) -> Played:
    """The hub dies and is put back from a backup that is behind. Its sites give back what they had handed up since."""
    made = agents.hub.distctl("backup", str(play.stage.home / "backups"))
    play.publish()
    play.wait(lambda: _sites_in(_known(agents, made["last_event"])) >= agents.sites.keys(), within=WITHIN)
    known = _known(agents, made["last_event"])
    agents.hub.program.kill()
    play.publish()
    restored = agents.hub.distctl("restore", made["path"], "--replace", "--reason", "the demo lost its hub")
    started_at = time.time()
    agents.hub.start()
    gathered_at = agents.hub.last_audited("gathered")
    calls = count_calls(play.ledgers, since=started_at, until=gathered_at)
    gone = {event: site for event, site in known.items() if site != HUB}
    play.wait(lambda: not gone.keys() - _known(agents, made["last_event"]).keys(), within=WITHIN)
    back = gone.keys() & _known(agents, made["last_event"]).keys()
    waited = gathered_at > started_at and not calls
    return Played(
        told=f"{len(back)} of {len(gone)} events that its backup lacked came back, epoch {restored['epoch']}",
        checks=[
            _check("the hub was put back from a backup that was behind", bool(gone), f"it lacked {len(gone)} events"),
            _check(
                "its sites gave back what the backup lacked",
                len(back) == len(gone) and _sites_in(known) >= agents.sites.keys(),
                f"{len(back)} of {len(gone)} came back from {', '.join(sorted(_sites_in(gone)))}",
            ),
            _check(
                "the hub called nobody before its sites had answered",
                waited,
                "it waited for them"
                if waited
                else f"{calls} calls, gathered at {gathered_at:.0f}, up at {started_at:.0f}",
            ),
            _check("the hub goes on in its next epoch", restored["epoch"] == 2, f"epoch {restored['epoch']}"),
        ],
        resupplied=len(back),
    )


def copy_agent(agents: Agents, play: Play) -> Played:
    """A second agent starts on a copy of a site's data. It is found, nobody of that site is heard, and a person decides."""
    original, copy = agents.sites["web"], agents.copy
    original.program.stop()
    shutil.copytree(original.data.parent, copy.data.parent)
    original.start()
    play.publish()
    play.wait(lambda: _is_in_step(agents, original.site), within=WITHIN)
    copy.program.start()
    found = play.wait(lambda: agents.hub.peer(original.site).state == "fenced", within=WITHIN)
    seen = agents.hub.peer(original.site)
    for one in (copy, original):
        one.program.stop()
    play.publish()
    adopted = _adopt(agents, original.site) if found else "it was not fenced"
    original.start()
    is_open = play.wait(lambda: agents.hub.peer(original.site).state == "open", within=WITHIN)
    after = agents.hub.peer(original.site)
    return Played(
        told=f"{'fenced' if found else 'not found'}, {adopted or f'adopted, epoch {after.epoch}'}",
        checks=[
            _check(
                "the copy of an agent is fenced",
                found,
                seen.reason if found else f"after {WITHIN:g} s it is {seen.state}",
            ),
            _check(
                "a person decides which of the two goes on",
                not adopted and is_open and after.epoch == seen.epoch + 1,
                adopted or f"adopted, it is {after.state} in epoch {after.epoch}",
            ),
        ],
        fenced={original.site: seen.reason} if found else {},
    )


def _adopt(agents: Agents, site: str) -> str:
    """Decide for the original; answers why that was not possible."""
    try:
        agents.hub.distctl("agents", "adopt", site, "--reason", "the copy was a mistake")
    except DistctlError as error:
        return str(error)
    return ""


def _is_in_step(agents: Agents, site: str) -> bool:
    """Whether site and hub have each handed on all that they have."""
    return not agents.sites[site].owes() and not agents.hub.peer(site).waiting


def _known(agents: Agents, last_event: int) -> Mapping[str, str]:
    """The events behind that number at the hub, by id, with the site at which each arose."""
    return {event.id: event.source.partition("/")[0] for event in agents.hub.events_after(last_event)}


def _sites_in(events: Mapping[str, str]) -> set[str]:
    return set(events.values())


def _check(name: str, ok: bool, detail: str) -> Check:
    return Check(name=name, ok=ok, detail=detail)


def _played(*checks: Check) -> Played:
    return Played(told="; ".join(check.detail for check in checks), checks=checks)
