"""Bugs that are planted to prove that the simulation can fail: small changes of the real code, made while it is imported.

A bug is text of one module and what stands in its place. The text has to be there exactly once, so a line that has moved or
changed is noticed. What is planted is planted for the life of a process, before anything of the product is imported; nothing is
written. A seed counts as the finder of a bug only where it finds nothing without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Final

MOST_SEEDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug: in `module`, each text is replaced by another."""

    name: str
    breaks: str
    module: str
    changes: tuple[tuple[str, str], ...]


BUGS: Final = (
    Bug(
        "acknowledged-before-commit",
        "the hub tells a site what it has before that is on disk",
        "agent.sync.hub",
        (
            (
                'reply, taken = await self._answer(site, partial(self._take_in, site, push, frame), name="sync.push")',
                "from agent.sync.collecting import reached\n"
                "        from agent.sync.incoming import TakenIn as Nothing\n"
                "        async def later() -> None:\n"
                "            await asyncio.sleep(0.5)\n"
                '            await self._answer(site, partial(self._take_in, site, push, frame), name="sync.push")\n'
                "        self._late = asyncio.create_task(later())\n"
                "        received = {segment.tier: reached(segment) for segment in frame.segments}\n"
                "        taken = Nothing()\n"
                "        reply = PushReply(version=VERSION, epoch=push.peer_epoch, peer_epoch=push.epoch, received=received)",
            ),
        ),
    ),
    Bug(
        "checkpoint-before-events",
        "a source's checkpoint is written in a transaction of its own, before the events",
        "agent.intake",
        (
            (
                'sent_to = await self._database.write(partial(self._store, batch, harvest), name="intake.take_in")',
                "await self._database.write(lambda connection: checkpoints.advance(connection, self.name,"
                " checkpoint=batch.checkpoint, remember=batch.remember, records=0, unreadable=0, now=0),"
                ' name="intake.take_in")\n'
                '        sent_to = await self._database.write(partial(self._store, batch, harvest), name="intake.take_in")',
            ),
        ),
    ),
    Bug(
        "tail-not-renumbered",
        "an adoption leaves behind what nobody had acknowledged",
        "state.life",
        (("    streams.renumber(connection, ended=ended.epoch, epoch=epoch)\n", ""),),
    ),
    Bug(
        "fence-ignored",
        "a fence is put up and nobody heeds it",
        "agent.sync.fencing",
        (("if peer.state is PeerState.FENCED:", "if peer.state is None:"),),
    ),
    Bug(
        "nonce-unchecked",
        "a nonce that was used before passes, and with it a clone",
        "agent.sync.admission",
        (
            (
                "        case Presented.FOREIGN:\n            return Fence(",
                "        case Presented.FOREIGN:\n            return None\n            return Fence(",
            ),
        ),
    ),
    Bug(
        "attempt-forgotten",
        "a pull whose reply was lost is asked for again as if by another store",
        "agent.sync.needs",
        (("if given == before and attempt == attempt_before:", "if given == before and attempt != attempt_before:"),),
    ),
    Bug(
        "resupply-by-acknowledgement",
        "what a restored store lost is not sent again, since it had been acknowledged",
        "agent.sync.needs",
        (
            (
                "after = {tier: _has(mine, theirs, tier) for tier in mine.sent}",
                "after = {tier: mine.acknowledged.get(tier, BEGINNING) for tier in mine.sent}",
            ),
        ),
    ),
    Bug(
        "key-of-the-attempt",
        "a call that is sent again has another idempotency key",
        "state.outbox",
        (
            (
                "idempotency_key(event=event.id, target=lane.target, version=version)",
                "idempotency_key(event=event.id, target=lane.target, version=version + attempts)",
            ),
        ),
    ),
    Bug(
        "lost-call-sent-again",
        "what was in flight when its agent ended is owed as if it had never been sent",
        "state.outbox",
        (
            (
                "state = DeliveryState.DELAYED if outcome == OutcomeKind.DELAYED else DeliveryState.IN_DOUBT",
                "state = DeliveryState.DELAYED if outcome == OutcomeKind.DELAYED else DeliveryState.PENDING",
            ),
        ),
    ),
    Bug(
        "probe-too-early",
        "`not landed` counts before a late call can have landed",
        "state.model.delivery",
        (
            ("settled_at = doubt.last_sent_at + memory.lands_within\n", "settled_at = doubt.last_sent_at\n"),
            ("settled_at = doubt.last_denied_at + max(memory.lands_within, timedelta(seconds=1))", "settled_at = now"),
            ("return asked_at >= doubt.last_sent_at + memory.lands_within", "return True"),
        ),
    ),
    Bug(
        "doubt-taken-for-failure",
        "a call without an answer is tried again as one that failed",
        "agent.answers",
        (
            (
                "            return _doubted(claim, answer, around)\n        case TransientError():",
                '            return _failed(claim, TransientError("no answer"), around, retry_after=None)\n'
                "        case TransientError():",
            ),
        ),
    ),
    Bug(
        "outage-taken-for-poison",
        "what a target that is down did not take is set aside",
        "agent.answers",
        (
            (
                "    return Release(state=DeliveryState.PENDING, due_at=around.now, code=error.code, detail=error.message)",
                '    return RejectedError(error.message, code="down")',
            ),
        ),
    ),
    Bug(
        "strict-order-not-kept",
        "newer events of a strict key do not wait",
        "state.key_queues",
        (
            (
                "return self._modes[lane] is OrderMode.ANY",
                "return self._modes[lane] is not OrderMode.LATEST",
            ),
        ),
    ),
    Bug(
        "leases-outlive-their-agent",
        "what an ended agent held is held for ever",
        "agent.leases",
        (('self._expiries.get(fence, float("-inf"))', 'self._expiries.get(fence, float("inf"))'),),
    ),
    Bug(
        "outcome-untold",
        "the site where an event arose does not hear what became of it",
        "agent.relay",
        (
            (
                "Departure(one, lane.tier, {str(one.event.extensions[ANSWERED_SITE])}) for one in admitted",
                "Departure(one, lane.tier, set()) for one in admitted",
            ),
        ),
    ),
    Bug(
        "gathering-for-ever",
        "a store that begins again does not notice that everybody has answered",
        "agent.sync.hub",
        (("        if taken.is_answer:\n            self._on_life()\n", ""),),
    ),
)
"""All of them. `docs/simulation.md` says which seed found each."""


def bug(name: str) -> Bug:
    """The bug of that name."""
    return next(one for one in BUGS if one.name == name)


# --- planting -----------------------------------------------------------------------------------------------------


def plant(name: str) -> None:
    """Plant a bug in this process. Its module must not have been imported yet."""
    planted = bug(name)
    if planted.module in sys.modules:
        raise AssertionError(f"{planted.module} is imported already")
    sys.meta_path.insert(0, _Planter(planted))


def planted_source(one: Bug, source: str) -> str:
    """The source with the bug in it. Raises `AssertionError` where a text is not there exactly once."""
    for old, new in one.changes:
        if source.count(old) != 1:
            raise AssertionError(f"{one.name}: {one.module} has {source.count(old)} times: {old}")
        source = source.replace(old, new)
    return source


class _Planter(MetaPathFinder):
    """Finds one module, to load it changed."""

    def __init__(self, planted: Bug) -> None:
        self._planted = planted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._planted.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._planted)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module from its changed source, past what was compiled before."""

    def __init__(self, fullname: str, path: str, planted: Bug) -> None:
        super().__init__(fullname, path)
        self._planted = planted

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile(planted_source(self._planted, source), self.path, "exec", dont_inherit=True)


# --- finding ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """How a bug was found: by which seed, after how many."""

    bug: str
    seed: int  # 0: it was not
    tried: int
    finding: str


def hunt(name: str, *, most: int, first: int = 1) -> Found:
    """Find a bug in processes of their own, within `most` seeds from `first` on."""
    tried, seed = 0, first
    while tried < most:
        said = _python("--planted", name, "--until-found", str(most - tried), "--first", str(seed))
        answer: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
        tried += answer["tried"]
        if not answer["seed"]:
            break
        if _python("--seed", str(answer["seed"])).returncode == 0:
            return Found(name, answer["seed"], tried, answer["finding"])
        seed = answer["seed"] + 1
    return Found(name, 0, tried, "")


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


def look_for(name: str, *, most: int, first: int) -> str:
    """With the bug planted: run seeds until one finds something. As JSON."""
    from tests.simulation.report import report_of

    plant(name)
    for tried, seed in enumerate(range(first, first + most), 1):
        findings = report_of(seed).findings
        if findings:
            return json.dumps({"seed": seed, "tried": tried, "finding": findings[0]})
    return json.dumps({"seed": 0, "tried": most, "finding": ""})


def main(names: Sequence[str], *, most: int) -> int:
    """Find these bugs, or all; the table of `docs/simulation.md`. 0 where each was found."""
    asked = [one.name for one in BUGS if not names or one.name in names]
    missed = 0
    print("| bug | what it breaks | found by seed | seeds it took | what was found |\n|---|---|---|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for found in threads.map(lambda name: hunt(name, most=most), asked):
            missed += not found.seed
            seed = found.seed or "none"
            kind = found.finding.partition(":")[0]
            print(f"| {found.bug} | {bug(found.bug).breaks} | {seed} | {found.tried} | {kind} |", flush=True)
    print(f"{missed} of {len(asked)} were not found" if missed else f"all {len(asked)} were found")
    return 1 if missed else 0
