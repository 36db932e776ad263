"""What goes wrong: each fault is one function of the world, drawn by the seed, and counted once it has taken effect.

What a fault may strike follows what its victim can bear by what it declares, as `docs/simulation.md` tells: a machine that is
put back to an older state without anybody knowing sends again what it sent before, so the systems beside it remember keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from tests.simulation.estate import HUB, SITES, SYSTEMS
from tests.simulation.machine import Machine
from tests.simulation.restoring import restored
from tests.simulation.world import World

REMEMBERING: Final = ("north", "east")
"""Sites whose systems know a key for as long as a seed lasts."""

BLIND_AT: Final = "east"
"""The site of the system that cannot be asked: where its clock goes back, what is in doubt there is a person's to decide."""

_CRASH_POINTS: Final = (
    "",
    "before_commit",
    "after_commit",
    "relay.after_send",
    "relay.before_send",
    "intake.before_settle",
    "sync.push.after_commit",
    "sync.pull.after_commit",
    "sync.pull.before_commit",
    "sync.take_in.before_commit",
    "sync.take_in.after_commit",
    "sync.greeted.after_commit",
    "sync.acknowledged.before_commit",
    "relay.turn.before_commit",
    "relay.turn.after_commit",
    "intake.take_in.after_commit",
)
_WIRE: Final = (
    "request lost",
    "reply lost",
    "reset",
    "request twice",
    "request late",
    "reply late",
)
_TARGET: Final = ("error", "timeout", "timeout, landed", "timeout, lands late", "hangs", "answers later")


class Faults:
    """Makes trouble in a world, and mends it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        self.images: dict[str, list[tuple[datetime, int, bytes]]] = {
            site: [] for site in SITES
        }  # older states: when, and of which epoch
        self.is_over = False
        self.over_at = 0.0
        """Until then the power is out, and nothing happens."""
        self._version = 1
        self._loop = asyncio.get_running_loop()
        self._kinds: Mapping[Callable[[], None], int] = {
            self.bad_line: 20,
            self.cut: 8,
            self.half_open: 5,
            self.crash: 24,
            self.kill: 6,
            self.bad_target: 20,
            self.target_down: 6,
            self.wrong_clock: 4,
            self.new_estate: 4,
            self.long_night: 2,
            self.rewind_site: 3,
            self.rewind_hub: 2,
            self.restore_hub: 2,
            self.restore_site: 2,
            self.clone: 3,
            self.replace_disk: 2,
        }
        for machine in world.machines.values():
            machine.on_crash = self._crashed

    def strike(self) -> None:
        """Something goes wrong."""
        [fault] = self.dice.choices(list(self._kinds), list(self._kinds.values()))
        self.world.trace.note("fault", fault.__name__)
        fault()

    def remember(self) -> None:
        """Somebody makes an image of a machine's disk: of one with events on it, which says when it was taken."""
        site = self.dice.choice(SITES)
        machine = self.world.machines[site]
        if machine.agent is not None and machine.has_taken_in:
            self.images[site].append((machine.now(), machine.epoch, machine.disk.image()))

    def mend(self) -> None:
        """No trouble any more, as far as machines and lines go: what is fenced a person has to cure."""
        self.is_over = True
        for line in self.world.network.lines.values():
            line.is_cut = line.is_half_open = False
            line.bad.clear()
        for target in self.world.counterparts.targets.values():
            target.is_down = False
            target.mood.clear()
        for machine in self.world.machines.values():
            machine.crash_in(0)
            if machine.skew < timedelta(minutes=45):
                machine.set_clock(timedelta(0))
            for one in (machine, machine.twin):
                if one is not None:
                    one.adopt(self._version)
                    one.start()

    @property
    def count(self) -> int:
        """How many have taken effect."""
        return sum(self.world.counts.values())

    # --- lines ----------------------------------------------------------------------------------------------------

    def bad_line(self) -> None:
        """A line loses, delays and doubles for a while."""
        line = self.world.network.line(self._site())
        for kind in self.dice.sample(_WIRE, 2):
            line.bad[kind] = self.dice.uniform(0.1, 0.4)
        self._later(self.dice.uniform(5, 30), line.bad.clear)

    def cut(self) -> None:
        """A line is cut for a while."""
        site = self._site()
        line = self.world.network.line(site)
        line.is_cut = True
        self._later(self.dice.choice((3, 15, 45)), lambda: setattr(line, "is_cut", False))

    def half_open(self) -> None:
        """A line looks as if it were up, and carries nothing."""
        line = self.world.network.line(self._site())
        line.is_half_open = True
        self._later(self.dice.uniform(3, 40), lambda: setattr(line, "is_half_open", False))

    # --- processes ------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """An agent ends at a crash point to come."""
        machine = self._machine()
        point = self.dice.choice(_CRASH_POINTS)
        machine.crash_in(self.dice.randint(1, 3 if "." in point else 30), point)

    def kill(self) -> None:
        """An agent ends here and now."""
        machine = self._machine()
        if machine.is_running:
            self._count("process killed")
            machine.kill()
            self._start_later(machine)

    def long_night(self) -> None:
        """The power is out everywhere, for minutes or hours."""
        self._count("power out everywhere")
        night = self.dice.choice((90, 1200, 6 * 3600))
        for machine in self.world.machines.values():
            for one in (machine, machine.twin):
                if one is not None:
                    one.kill()
                    self._later(night + self.dice.uniform(0.1, 5), partial(self._start, one))
        self.over_at = self._loop.time() + night

    def _crashed(self, name: str, point: str) -> None:
        kind = "crash before a commit" if "before_commit" in point else "crash after a commit"
        self._count(kind if "commit" in point else "crash elsewhere")
        self._start_later(self.world.machines[name])

    def _start_later(self, machine: Machine) -> None:
        night = max(self.over_at - self._loop.time(), 0.0)
        self._later(night + self.dice.choice((0.1, 2.0, 12.0)), partial(self._start, machine))

    def _start(self, machine: Machine) -> None:
        """Start it, unless the power has gone out since, which is over one day."""
        if self._loop.time() >= self.over_at:
            machine.start()

    # --- counterparts ---------------------------------------------------------------------------------------------

    def bad_target(self) -> None:
        """A target fails, hangs, or loses its answers for a while."""
        target = self.world.counterparts.targets[self.dice.choice(list(SYSTEMS))]
        target.mood.update({kind: self.dice.uniform(0.1, 0.4) for kind in self.dice.sample(_TARGET, 2)})
        self._later(self.dice.uniform(5, 30), target.mood.clear)

    def target_down(self) -> None:
        """A target cannot be reached for a while."""
        target = self.world.counterparts.targets[self.dice.choice(list(SYSTEMS))]
        target.is_down = True
        self._later(self.dice.uniform(3, 60), lambda: setattr(target, "is_down", False))

    # --- clocks and estates ---------------------------------------------------------------------------------------

    def wrong_clock(self) -> None:
        """The wall clock of a site is set wrong, and right again later. Back only where targets can be asked."""
        site = self.dice.choice(SITES)
        machine = self.world.machines[site]
        if machine.skew:
            return
        self._count("clock set wrong")
        if site != BLIND_AT and self.dice.random() < 0.6:
            machine.set_clock(timedelta(minutes=self.dice.choice((-120, -7, 3))))
            self._later(self.dice.uniform(5, 40), partial(machine.set_clock, timedelta(0)))
        else:
            machine.set_clock(timedelta(minutes=45))  # and so it stays

    def new_estate(self) -> None:
        """The estate changes at the hub, and the sites follow, each in its time."""
        self._version += 1
        self._count("estates differ")
        for site, machine in self.world.machines.items():
            self._later(0.0 if site == HUB else self.dice.uniform(0, 30), partial(machine.adopt, self._version))

    # --- stores ---------------------------------------------------------------------------------------------------

    def rewind_site(self) -> None:
        """A machine is put back to an older state, and nobody tells its agent."""
        self._rewind(self.dice.choice(REMEMBERING))

    def rewind_hub(self) -> None:
        """The same with the hub's."""
        self._rewind(HUB)

    def _rewind(self, site: str) -> None:
        if (image := self._image(site)) is not None:
            self._count("hub rewound" if site == HUB else "site rewound")
            self._put_in(self.world.machines[site], image[2])

    def restore_hub(self) -> None:
        """The hub's store is lost, and put back from a backup in the way that is meant."""
        self._restore(HUB)

    def restore_site(self) -> None:
        """The same with a site's."""
        self._restore(self.dice.choice(REMEMBERING))

    def _restore(self, site: str) -> None:
        machine = self.world.machines[site]
        if (image := self._image(site)) is not None:
            self._count("hub restored" if site == HUB else "site restored")
            self._put_in(machine, restored(machine, image[2], taken_at=image[0]))
            self.forget(site)

    def clone(self) -> None:
        """A machine is copied, and both run."""
        site = self.dice.choice(REMEMBERING)
        machine = self.world.machines[site]
        if machine.twin is not None or machine.disk.connection.in_transaction or not machine.has_begun:
            return
        self._count("site cloned")
        twin = self.world.machine(f"{site} twin", site, machine.disk.image())
        twin.adopt(machine.version)
        machine.twin = twin
        if self.dice.random() < 0.4:
            machine.kill()  # an idle clone: the one that was copied is off, until somebody finds it
            self._start_later(machine)
        self._start_later(twin)

    def replace_disk(self) -> None:
        """A disk is lost, and an empty one takes its place."""
        machine = self.world.machines[self.dice.choice(REMEMBERING)]
        if machine.epoch == 1:  # a second new disk would begin in an epoch that has ended
            self._count("disk replaced")
            self._put_in(machine, None)

    def _image(self, site: str) -> tuple[datetime, int, bytes] | None:
        """An older state of the life that the store is in: one of a life that ended nobody can put back in silence."""
        machine = self.world.machines[site]
        images = [image for image in self.images[site] if image[1] == machine.epoch]
        return self.dice.choice(images) if images and machine.twin is None else None

    def forget(self, site: str) -> None:
        """A new life of the site's store has begun, so nobody puts back an image of an earlier one."""
        self.images[site].clear()

    def _put_in(self, machine: Machine, image: bytes | None) -> None:
        machine.replace_disk(self.world.disk(image))
        self._start_later(machine)

    # --- of all ---------------------------------------------------------------------------------------------------

    def _site(self) -> str:
        return self.dice.choice(SITES[1:])

    def _machine(self) -> Machine:
        return self.world.machines[self.dice.choice(SITES)]

    def _count(self, kind: str) -> None:
        self.world.counts[kind] += 1

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        self._loop.call_later(seconds, what)
