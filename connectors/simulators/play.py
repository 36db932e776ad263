"""One run of the demo: what happens when, and when it is over.

The ERP starts, the estate that names it is written, the agents start. Planning, warehouse and shop then publish week by week,
each week on its cue, and in each act something goes wrong while they are at work. The run is over when everything published
arrived, nothing is owed and the ledgers have been quiet for longer than a late call takes to land; or when nothing has moved for
a long while although something is owed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from connectors.simulators.history import WEEKS
from connectors.simulators.judge import (
    Check,
    Ledgers,
    Parked,
    Tally,
    count_weeks,
    is_published,
    judge,
    spoiled_records,
    tally_all,
)
from connectors.simulators.program import Program
from connectors.simulators.stage import Stage

PAUSE: Final = 1.0  # seconds between two weeks, at least
ERP_STAYS_DOWN: Final = 1.5
QUIET_FOR: Final = 3.5
STALLED_AFTER: Final = 30.0
LOOK_EVERY: Final = 0.1
SHOW_EVERY: Final = 0.25
AT_WORK_WITHIN: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What an act came to: `told` in a few words, what it shows, and what is counted in the report."""

    told: str
    checks: Sequence[Check]
    fenced: Mapping[str, str] = field(default_factory=dict)  # site: why its agent was kept out
    resupplied: int = 0  # events


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that goes wrong while everybody is at work."""

    title: str
    play: Callable[[Play], Played]


class Cast(Protocol):
    """The agents, as far as the demo needs them. `owes` and `parked` raise `DistctlError` while one cannot be asked."""

    @property
    def programs(self) -> Sequence[Program]:
        """Every process of theirs that there may be."""
        ...

    @property
    def acts(self) -> Sequence[Act]:
        """What happens to them, in order."""
        ...

    def start(self) -> None:
        """Start all of them and return when they work. Raises `DistctlError` where one does not."""
        ...

    def owes(self) -> bool:
        """Whether something is still to be delivered or handed on."""
        ...

    def parked(self) -> Sequence[Parked]:
        """Everything that they set aside."""
        ...

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """How each of them stands, for the report: its `site` and more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where a run stands; `told` has a line for each act that is over."""

    phase: str
    elapsed_s: float
    tallies: Sequence[Tally]
    told: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to. Planned to parked count recommendations; lost, doubled and inversions are sums over all flows.

    `fenced` counts agents that were kept out, `resupplied` events that a restored hub got back from its sites.
    """

    planned: int
    injected_bad: int
    delivered: int
    parked: int
    lost: int
    doubled: int
    order_inversions: int
    fenced: int
    resupplied: int
    agents: Sequence[Mapping[str, Any]]
    checks: Sequence[Check]
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def figures(self) -> Mapping[str, int]:
        """The counts by name."""
        names = ("planned", "injected_bad", "delivered", "parked", "lost", "doubled", "order_inversions")
        return {name: getattr(self, name) for name in (*names, "fenced", "resupplied")}

    def to_json(self) -> dict[str, Any]:
        """The stable shape of `distctl demo -o json`."""
        return {
            **self.figures,
            "agents": [dict(row) for row in self.agents],
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in self.checks],
            "elapsed_s": round(self.elapsed_s, 1),
        }


@contextmanager
def performed(
    home: Path, *, seed: int, employ: Callable[[Stage], Cast], show: Callable[[Scene], None], pause: float = PAUSE
) -> Iterator[Report]:
    """One whole run; inside the `with` everything still runs, after it nothing does, whatever happened.

    `employ` makes the agents of a stage, `show` is told several times a second. Raises `DistctlError` if a program does not
    start or ends by itself.
    """
    stage = Stage(home, seed=seed, pause=pause)
    cast = employ(stage)
    with ExitStack() as programs:
        for program in (*stage.programs, *cast.programs):
            programs.callback(program.stop)
        yield Play(stage, cast, show).run()


@dataclass(slots=True)
class Play:
    """A run under way, and what acts may do in it."""

    stage: Stage
    cast: Cast
    show: Callable[[Scene], None]
    began: float = field(default_factory=time.monotonic)
    _phase: str = "starting"
    _weeks: int = 0
    _shown_at: float = 0.0
    _told: list[str] = field(default_factory=list)
    _played: list[Played] = field(default_factory=list)

    @property
    def ledgers(self) -> Ledgers:
        """What the counterparts say happened."""
        return self.stage.ledgers

    def run(self) -> Report:
        """All of it."""
        self._look()
        self.stage.open()
        self.cast.start()
        self._tell(f"{len(self.cast.rows())} agents work")
        self.stage.begin()
        for act in self.cast.acts:
            self._phase = act.title
            played = act.play(self)
            self._played.append(played)
            failed = [f"FAILED: {check.name}: {check.detail}" for check in played.checks if not check.ok]
            self._tell(f"{act.title}: {'; '.join(failed) or played.told}")
        self._phase = "settling"
        self.stage.give_cue(WEEKS)
        self._settle()
        return self._report()

    # What acts do.

    def publish(self) -> None:
        """The next week, by everybody. Returns once it is published."""
        self._weeks += 1
        self.stage.give_cue(self._weeks)
        self.wait(lambda: count_weeks(self.ledgers) >= self._weeks, within=AT_WORK_WITHIN)

    def to_come(self) -> int:
        """Recommendations that the ERP does not have yet."""
        return len(tally_all(self.ledgers)[0].lost)

    def at_work(self) -> int:
        """Publish a week and return in the middle of its delivery: how many recommendations are still to come."""
        before = tally_all(self.ledgers)[0].delivered
        self.publish()
        self.wait(lambda: tally_all(self.ledgers)[0].delivered > before, within=AT_WORK_WITHIN)
        return self.to_come()

    def wait(self, holds: Callable[[], bool], *, within: float) -> bool:
        """Whether `holds` came true within so many seconds. Raises `DistctlError` if a program ends by itself meanwhile."""
        give_up = time.monotonic() + within
        while not holds():
            for program in (*self.stage.programs, *self.cast.programs):
                if program.has_ended_by_itself:
                    raise program.failure("ended by itself")
            if time.monotonic() > give_up:
                return False
            time.sleep(LOOK_EVERY)
            self._look()
        return True

    # The end.

    def _settle(self) -> None:
        """Until all arrived and it stays so, or nothing moves any more."""
        self.wait(lambda: is_published(self.ledgers), within=STALLED_AFTER)
        before, changed_at = self._tallies(), time.monotonic()
        while time.monotonic() - changed_at < (QUIET_FOR if self._is_complete(before) else STALLED_AFTER):
            self.wait(lambda: False, within=SHOW_EVERY)
            tallies = self._tallies()
            if tallies != before:
                before, changed_at = tallies, time.monotonic()

    def _is_complete(self, tallies: Sequence[Tally]) -> bool:
        """Whether nothing more is to come; the agents are only asked once the ledgers say so."""
        if any(tally.lost for tally in tallies):
            return False
        return not self.cast.owes() and len(self.cast.parked()) >= len(spoiled_records(self.ledgers))

    def _report(self) -> Report:
        verdict = judge(self.ledgers, self.cast.parked())
        recommendations = verdict.tallies[0]
        fenced = {site: why for played in self._played for site, why in played.fenced.items()}
        return Report(
            planned=recommendations.planned,
            injected_bad=recommendations.injected_bad,
            delivered=recommendations.delivered,
            parked=verdict.parked,
            lost=sum(len(tally.lost) for tally in verdict.tallies),
            doubled=sum(len(tally.doubled) for tally in verdict.tallies),
            order_inversions=sum(len(tally.order_inversions) for tally in verdict.tallies),
            fenced=len(fenced),
            resupplied=sum(played.resupplied for played in self._played),
            agents=[{**row, "fenced": fenced.get(row["site"], "")} for row in self.cast.rows()],
            checks=(*verdict.checks, *(check for played in self._played for check in played.checks)),
            elapsed_s=time.monotonic() - self.began,
        )

    # What is shown.

    def _tell(self, line: str) -> None:
        self._told.append(f"{time.monotonic() - self.began:5.1f} s  {line}")
        self._shown_at = 0.0
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < SHOW_EVERY:
            return
        self._shown_at = now
        self.show(Scene(phase=self._phase, elapsed_s=now - self.began, tallies=self._tallies(), told=tuple(self._told)))

    def _tallies(self) -> Sequence[Tally]:
        has_begun = all(path.exists() for path in (self.ledgers.planning, self.ledgers.wms, self.ledgers.shop))
        return tally_all(self.ledgers) if has_begun else ()


def kill_erp(play: Play) -> Played:
    """The ERP dies at work and is started again a while later."""
    to_come = play.at_work()
    play.stage.erp.kill()
    play.wait(lambda: False, within=ERP_STAYS_DOWN)
    play.stage.start_again(play.stage.erp)
    check = Check(name="the ERP was killed at work", ok=to_come > 0, detail=f"{to_come} recommendations to come")
    return Played(told=check.detail, checks=[check])
