"""One run of the demo: who starts when, who is killed when, and when it is over.

The ERP starts, the estate that names it is written, the agent starts, planning and warehouse publish; in the middle the agent is
killed, then the ERP, and both start again. The run is over when everything published arrived, nothing is owed and the ledgers
have been quiet for longer than a late call takes to land; or when nothing has moved for a long while although something is owed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from connectors.simulators.judge import (
    Check,
    Parked,
    Tally,
    count_published_files,
    is_published,
    judge,
    spoiled_records,
    tally_all,
)
from connectors.simulators.program import Program
from connectors.simulators.stage import Stage

PAUSE: Final = 1.5  # seconds between two planning runs
KILL_AGENT_AFTER: Final = 4  # files of planning
KILL_ERP_AFTER: Final = 9
AGENT_STAYS_DOWN: Final = 1.0  # seconds
ERP_STAYS_DOWN: Final = 1.5
QUIET_FOR: Final = 3.5
STALLED_AFTER: Final = 25.0
LOOK_EVERY: Final = 0.25
READY_WITHIN: Final = 30.0


class Agent(Protocol):
    """The agent as far as the demo needs it. `owes` and `parked` raise `DistctlError` while it cannot be asked."""

    program: Program

    def is_ready(self) -> bool:
        """Whether it answers and works."""
        ...

    def owes(self) -> bool:
        """Whether something is still to be delivered."""
        ...

    def parked(self) -> Sequence[Parked]:
        """Everything that it set aside."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where a run stands."""

    phase: str
    elapsed_s: float
    tallies: Sequence[Tally]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to. Planned to parked count recommendations; lost, doubled and inversions are sums over all flows."""

    planned: int
    injected_bad: int
    delivered: int
    parked: int
    lost: int
    doubled: int
    order_inversions: int
    checks: Sequence[Check]
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The stable shape of `distctl demo -o json`."""
        figures = ("planned", "injected_bad", "delivered", "parked", "lost", "doubled", "order_inversions")
        return {
            **{name: getattr(self, name) for name in figures},
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in self.checks],
            "elapsed_s": round(self.elapsed_s, 1),
        }


@contextmanager
def performed(
    home: Path, *, seed: int, employ: Callable[[Stage], Agent], show: Callable[[Scene], None], pause: float = PAUSE
) -> Iterator[Report]:
    """One whole run; inside the `with` everything still runs, after it nothing does, whatever happened.

    `employ` makes the agent of a stage, `show` is told several times a second. Raises `DistctlError` if a program does not start.
    """
    stage = Stage(home, seed=seed, pause=pause)
    agent = employ(stage)
    with ExitStack() as programs:
        for program in (*stage.programs, agent.program):
            programs.callback(program.stop)
        yield _Play(stage, agent, show).run()


class _Play:
    def __init__(self, stage: Stage, agent: Agent, show: Callable[[Scene], None]) -> None:
        self._stage = stage
        self._agent = agent
        self._show = show
        self._began = time.monotonic()
        self._kills: list[Check] = []

    def run(self) -> Report:
        self._look("starting")
        self._stage.open()
        self._start_agent()
        self._stage.begin()
        self._until("publishing", lambda: self._is_at_work(KILL_AGENT_AFTER))
        self._kill(self._agent.program, "agent", AGENT_STAYS_DOWN)
        self._start_agent()
        self._until("publishing", lambda: self._is_at_work(KILL_ERP_AFTER))
        self._kill(self._stage.erp, "ERP", ERP_STAYS_DOWN)
        self._stage.start_erp_again()
        self._until("publishing", lambda: is_published(self._stage.ledgers))
        self._settle()
        return self._report()

    def _start_agent(self) -> None:
        self._agent.program.start()
        self._agent.program.wait_until(self._agent.is_ready, within=READY_WITHIN)

    def _is_at_work(self, files: int) -> bool:
        """Whether planning published so many files and the ERP has not got all that is in them."""
        is_busy = bool(tally_all(self._stage.ledgers)[0].lost) or is_published(self._stage.ledgers)
        return is_busy and count_published_files(self._stage.ledgers) >= files

    def _kill(self, program: Program, name: str, stays_down: float) -> None:
        to_come = len(tally_all(self._stage.ledgers)[0].lost)
        program.kill()
        self._look(f"{name} killed")
        time.sleep(stays_down)
        self._kills.append(
            Check(name=f"the {name} was killed at work", ok=to_come > 0, detail=f"{to_come} recommendations to come")
        )

    def _settle(self) -> None:
        """Until all arrived and it stays so, or nothing moves any more."""
        before, changed_at = self._look("settling"), time.monotonic()
        while time.monotonic() - changed_at < (QUIET_FOR if self._is_complete(before) else STALLED_AFTER):
            time.sleep(LOOK_EVERY)
            scene = self._look("settling")
            if scene.tallies != before.tallies:
                before, changed_at = scene, time.monotonic()

    def _is_complete(self, scene: Scene) -> bool:
        """Whether nothing more is to come; the agent is only asked once the ledgers say so."""
        if any(tally.lost for tally in scene.tallies):
            return False
        return not self._agent.owes() and len(self._agent.parked()) >= len(spoiled_records(self._stage.ledgers))

    def _until(self, phase: str, holds: Callable[[], bool]) -> None:
        while not holds():
            for program in (*self._stage.programs, self._agent.program):
                if not program.is_running:
                    raise program.failure("ended by itself")
            time.sleep(LOOK_EVERY)
            self._look(phase)

    def _look(self, phase: str) -> Scene:
        has_begun = all(path.exists() for path in (self._stage.ledgers.planning, self._stage.ledgers.wms))
        tallies = tally_all(self._stage.ledgers) if has_begun else ()
        scene = Scene(phase=phase, elapsed_s=time.monotonic() - self._began, tallies=tallies)
        self._show(scene)
        return scene

    def _report(self) -> Report:
        verdict = judge(self._stage.ledgers, self._agent.parked())
        recommendations = verdict.tallies[0]
        return Report(
            planned=recommendations.planned,
            injected_bad=recommendations.injected_bad,
            delivered=recommendations.delivered,
            parked=verdict.parked,
            lost=sum(len(tally.lost) for tally in verdict.tallies),
            doubled=sum(len(tally.doubled) for tally in verdict.tallies),
            order_inversions=sum(len(tally.order_inversions) for tally in verdict.tallies),
            checks=(*verdict.checks, *self._kills),
            elapsed_s=time.monotonic() - self._began,
        )
