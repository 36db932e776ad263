"""Judges what a power cut left: every store opens as an agent opens it, and holds all that was acknowledged.

The three stores of an image are opened by the product's own path, looked at whole, compared with what was acknowledged, and then
linked by the product's own exchange until they are in step. Only the transport is replaced; `restart.py` starts real processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.backup_folder import published, verify
from agent.clock import SystemClock
from agent.estate.check import load_checked
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.identity.authority import Authority
from agent.identity.hub import HubIdentity
from agent.identity.site import SiteIdentity
from agent.raw_archive import RawArchive
from agent.start_count import StartCount
from state import backup
from state.database import Database
from state.model.errors import DistctlError
from tests.acceptance.test_estatewide import SITES
from tests.daemon.link_rig import Estatewide
from tests.powercut.facts import Facts, Row
from tests.powercut.recorded_run import HUB

_CLOCK: Final = SystemClock()
_SITES: Final = tuple(site for site in SITES if site != HUB)
_IN_STEP_WITHIN: Final = 60.0
_READ_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Whole:
    """What is the same for all images of a recording."""

    compiled: CompiledEstate
    authority: str  # the fingerprint of the hub's

    @classmethod
    def of(cls, folder: Path) -> Whole:
        """That of a recording in `folder`, which lies there as its agents left it."""
        compiled = compile_estate(load_checked(folder / "estates" / HUB).raise_first())
        known = Authority.open(_data(folder / "disks", HUB) / "ca", estate="acme", known=None, now=_CLOCK.now())
        return cls(compiled, known.fingerprint)


@dataclass(slots=True)
class Verdict:
    """What was found in one image."""

    opened: int = 0  # stores
    lost: list[str] = field(default_factory=list)  # what was acknowledged and is not there
    wrong: list[str] = field(default_factory=list)  # anything else that must not be

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost and nothing is wrong."""
        return not self.lost and not self.wrong


async def judge(image: Path, facts: Facts, whole: Whole) -> Verdict:
    """Open the image, which is changed by that, and say what is lost or wrong in it."""
    verdict = Verdict()
    estate = Estatewide(image, whole.compiled)
    judges: dict[str, _Machine] = {}
    try:
        for site in SITES:
            try:
                StartCount(_data(image, site) / "starts").begin()
                agent = await estate.open(f"{site}/data", site=site)
            except DistctlError as error:
                verdict.wrong.append(f"{site} does not open: {error}")
                continue
            verdict.opened += 1
            judges[site] = _Machine(site, image, agent.database, facts, whole, verdict)
            await judges[site].judge()
        if len(judges) == len(SITES) and not verdict.wrong:
            await _link(estate, judges, verdict)
    finally:
        await estate.end()
    _judge_backups(image, facts, verdict)
    return verdict


def _data(folder: Path, site: str) -> Path:
    """Where the agent of a site has its data, below the folder of all disks."""
    data = folder / site / "data"
    data.mkdir(parents=True, exist_ok=True)
    return data


def _judge_backups(image: Path, facts: Facts, verdict: Verdict) -> None:
    folder = image / HUB / "backups"
    there = published(folder) if folder.is_dir() else []
    if len(there) < facts.backups:
        verdict.lost.append(f"{facts.backups - len(there)} backups")
    for one in there:
        if one.problem:
            verdict.wrong.append(f"backup {one.name}: {one.problem}")
        else:
            verdict.wrong += [f"backup {one.name}: {finding}" for finding in verify(Path(one.path)).findings]


# --- one machine --------------------------------------------------------------------------------------------------


class _Machine:
    """One disk of an image, and the store on it."""

    def __init__(
        self, site: str, image: Path, database: Database, facts: Facts, whole: Whole, verdict: Verdict
    ) -> None:
        self.site = site
        self.database = database
        self._image = image
        self._data = _data(image, site)
        self._facts = facts
        self._whole = whole
        self._verdict = verdict

    async def judge(self) -> None:
        """Everything that this machine alone can be asked."""
        self._verdict.wrong += [
            f"{self.site}: {finding}" for finding in await self.database.read(_findings, deadline=_READ_WITHIN)
        ]
        await self._judge_identity()
        await self._judge_said()
        await self._judge_documents()
        if self.site == "north":
            self.miss("north", self._facts.archived, await self.rows_held())
        if self.site == HUB:
            await self._judge_calls()
        if self.site == "south":
            await self._judge_files()

    def miss(self, where: str, acknowledged: Collection[Row], held: Collection[Row]) -> None:
        """What was acknowledged and is not held is lost."""
        missing = sorted(set(acknowledged) - set(held))
        self._verdict.lost += [f"{where} lacks {reference} revision {revision}" for reference, revision in missing]

    async def rows_held(self) -> set[Row]:
        """The recommendations in the store."""
        found = await self.rows(_RECOMMENDATIONS)
        return {_row(data) for (data,) in found}

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the store says."""
        return await self.database.read(
            lambda connection: connection.execute(query, parameters).fetchall(), deadline=_READ_WITHIN
        )

    async def _judge_identity(self) -> None:
        """No enrolled agent has to enrol again, and the hub has the authority that they know."""
        try:
            if self.site == HUB:
                estate = self._whole.compiled.estate
                hub = await HubIdentity.open(self._data, self.database, estate=lambda: estate, clock=_CLOCK)
                if self._facts.enrolled and hub.authority.fingerprint != self._whole.authority:
                    self._verdict.lost.append("the hub's authority")
            elif self.site in self._facts.enrolled:
                SiteIdentity.open(self._data, clock=_CLOCK)
        except DistctlError as error:
            self._verdict.lost.append(f"the identity of {self.site}: {error}")

    async def _judge_said(self) -> None:
        """Nobody said more than what the own disk holds."""
        for name, said, query in (("has", self._facts.received, _RECEIVED), ("sent", self._facts.sent, _SENT)):
            for (by, to, tier), (seq, chain) in said.items():
                if by != self.site:
                    continue
                found = dict(await self.rows(query, to, tier))
                if max(found, default=0) < seq:
                    self._verdict.lost.append(
                        f"{by} said that it {name} {seq} of {to}, and knows of {max(found, default=0)}"
                    )
                elif found.get(seq, bytes.fromhex(chain)) != bytes.fromhex(chain):
                    self._verdict.wrong.append(f"{by} {name} {seq} of {to}, and it is another event")
        for (by, to), count in self._facts.nonces.items():
            if by == self.site:
                [known] = await self.rows(_NONCE, to) or [("0.",)]
                if int((known[0] or "0.").partition(".")[0]) < count:
                    self._verdict.lost.append(f"the nonce {count} between {by} and {to}")

    async def _judge_documents(self) -> None:
        """Raw documents that are kept beside the store are there, byte for byte."""
        archive = RawArchive(self._data / "raw")
        for (name,) in await self.rows(_ARCHIVED):
            path = archive.path_of(name.hex())
            if not path.exists():
                self._verdict.lost.append(f"the raw document {name.hex()[:12]} of {self.site}")
            elif hashlib.sha256(path.read_bytes()).digest() != name:
                self._verdict.wrong.append(f"the raw document {name.hex()[:12]} of {self.site} is another")

    async def _judge_calls(self) -> None:
        """The ERP has what the hub settled, and the hub knows of each call that came there."""
        known = {key.hex(): (state, attempts) for key, state, attempts in await self.rows(_CALLS)}
        for key, body in self._facts.landed.items():
            if key not in known:
                self._verdict.lost.append(f"that {body['reference']} revision {body['revision']} was sent to the ERP")
        settled = {key for key, (state, _) in known.items() if state == "delivered"}
        self._verdict.wrong += [f"{key} is settled and never landed" for key in settled - self._facts.landed.keys()]

    async def _judge_files(self) -> None:
        """What the south settled lies in the warehouse's folder, and whatever lies there is whole."""
        left = set()
        for path in (self._image / "south" / "wms").glob("*.json"):
            try:
                order = json.loads(path.read_bytes())
                left.add((order["reference"], order["revision"]))
            except ValueError:
                self._verdict.wrong.append(f"{path.name} is not whole")
        self.miss("the warehouse", {_row(data) for (data,) in await self.rows(_SETTLED, "south/wms")}, left)


def _findings(connection: sqlite3.Connection) -> Sequence[str]:
    return backup.findings(connection)


def _row(data: bytes) -> Row:
    entity = json.loads(data)
    return entity["reco_id"], entity["revision"]


# --- all of them --------------------------------------------------------------------------------------------------


async def _link(estate: Estatewide, judges: Mapping[str, _Machine], verdict: Verdict) -> None:
    """Let the stores exchange what they lack; then everything acknowledged is everywhere, owed once to each target."""
    sites = [f"{site}/data" for site in _SITES]
    estate.start(*sites)
    try:
        async with asyncio.timeout(_IN_STEP_WITHIN):
            while not verdict.wrong and not await _are_in_step(judges):
                verdict.wrong += [str(link.trouble) for link in estate.links.values() if link.trouble]
                await asyncio.sleep(0.005)
    except TimeoutError:
        verdict.wrong.append("the links never got in step")
    for site in sites:
        await estate.stop(site)
    if not verdict.wrong:
        await _judge_together(judges, verdict)


async def _judge_together(judges: Mapping[str, _Machine], verdict: Verdict) -> None:
    held = await judges["north"].rows_held()
    for site, target in ((HUB, "hq/erp"), ("south", "south/wms")):
        judges[site].miss(site, held, await judges[site].rows_held())
        owed = [_row(data) for (data,) in await judges[site].rows(_OWED, target)]
        judges[site].miss(f"what is owed to {target}", held, owed)
        verdict.wrong += [f"{row} is owed twice to {target}" for row in {row for row in owed if owed.count(row) > 1}]
        verdict.wrong += [f"{code} at {site}" for (code,) in await judges[site].rows(_SET_ASIDE)]


async def _are_in_step(judges: Mapping[str, _Machine]) -> bool:
    """Asked of the sites first: what the hub has of one, it owes to the other by then."""
    for site in (*_SITES, HUB):
        met, owed = (await judges[site].rows(_UNACKNOWLEDGED))[0]
        if met < (len(_SITES) if site == HUB else 1) or owed:
            return False
    return True


_RECOMMENDATIONS: Final = (
    "SELECT e.data FROM events e JOIN origins o ON o.id = e.origin_id WHERE o.flow = 'reco' AND o.op <> 'ack'"
)
_OF_TARGET: Final = (
    "SELECT e.data FROM deliveries d JOIN events e ON e.seq = d.event_seq JOIN lanes l ON l.id = d.lane_id"
    " JOIN targets t ON t.id = l.target_id WHERE t.name = ?"
)
_OWED: Final = _OF_TARGET
_SETTLED: Final = f"{_OF_TARGET} AND d.state = 'delivered'"
_CALLS: Final = "SELECT idempotency_key, state, attempts FROM deliveries WHERE idempotency_key IS NOT NULL"
_ARCHIVED: Final = "SELECT sha256 FROM raw_documents WHERE content IS NULL"
_RECEIVED: Final = (
    "SELECT s.seq, s.chain FROM streams_in s JOIN peers p ON p.id = s.peer_id WHERE p.site = ? AND s.tier = ?"
)
_SENT: Final = (
    "SELECT i.seq, i.chain FROM stream_items i JOIN streams_out s ON s.id = i.stream_id JOIN peers p ON p.id = s.peer_id"
    " WHERE p.site = ? AND s.tier = ?"
)
_NONCE: Final = "SELECT nonce FROM peers WHERE site = ?"
_UNACKNOWLEDGED: Final = (
    "SELECT (SELECT count(*) FROM peers WHERE epoch > 0),"
    " (SELECT count(*) FROM streams_out WHERE acked_seq < seq AND epoch = (SELECT epoch FROM life))"
)
_SET_ASIDE: Final = "SELECT code FROM dead_letters UNION ALL SELECT code FROM unapplied"
