"""The cure that is shown with each fence opens the link; a store whose epoch has ended is told of, and can be adopted."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from agent.control.schema import AgentRow
from agent.fleet import SILENT_AFTER, Fleet
from agent.sync.fencing import LinkFencedError, put_up
from agent.sync.needs import Fence, Reason
from state import audit, life, peers
from state.model.errors import ConflictError
from tests.daemon.link_rig import CLOCK, FROM_HQ, FROM_SOUTH, HUB, Estatewide, HastyClock, estatewide, holds, until
from tests.daemon.test_gathering import begin_again, put_back
from tests.daemon.test_sync import grow, refused, story

NORTH: Final = "north"
A_WHILE: Final = SILENT_AFTER + timedelta(seconds=1)


class LaterClock(HastyClock):
    """So much later than it is."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


def fleet_at(whole: Estatewide, name: str = HUB, *, later: timedelta = timedelta()) -> Fleet:
    """What people at that agent ask and tell, so much later."""
    standings = SimpleNamespace(standings=list) if whole.agents[name].site == HUB else None
    return Fleet(
        whole.agents[name].database,
        site=whole.agents[name].site,
        estate=lambda: whole.compiled.estate,
        identity=cast("Any", lambda: standings),
        clock=LaterClock(later),
        on_life=lambda: None,
    )


async def row_of(whole: Estatewide, *, later: timedelta = timedelta()) -> AgentRow:
    """How the north stands, as the hub shows it so much later."""
    return await fleet_at(whole, later=later).agent(NORTH)


# --- what is shown -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A fence: who found it, whose store is at fault, and the command that is shown as its cure."""

    finder: str
    culprit: str
    reason: Reason
    cures: tuple[str, ...]


_ADOPT, _RESTORE = f"distctl agents adopt {NORTH}", "distctl restore"
CASES = [
    *(Case(HUB, NORTH, reason, (_ADOPT,)) for reason in (Reason.REWOUND, Reason.FORKED, Reason.CLONED, Reason.ENDED)),
    Case(HUB, NORTH, Reason.UNPROVEN, (_RESTORE, _ADOPT)),
    *(Case(NORTH, NORTH, reason, (_ADOPT,)) for reason in (Reason.REWOUND, Reason.FORKED)),
    *(Case(HUB, HUB, reason, (_RESTORE,)) for reason in (Reason.REWOUND, Reason.FORKED, Reason.ENDED)),
    *(Case(NORTH, HUB, reason, (_RESTORE,)) for reason in (Reason.REWOUND, Reason.FORKED, Reason.ENDED)),
]


def test_the_table_has_every_reason_for_which_a_link_is_closed() -> None:
    assert {case.reason for case in CASES} == set(Reason) - {Reason.GAP}, (
        "a gap closes nothing: the site says hello again"
    )


@pytest.mark.parametrize(
    ("case", "number"),
    [
        pytest.param(case, number, id=f"{case.finder}-of-{case.culprit}-{case.reason}-{number}")
        for case in CASES
        for number in range(len(case.cures))
    ],
)
async def test_the_cure_that_is_shown_opens_the_link(tmp_path: Path, case: Case, number: int) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start(NORTH)
        await grow(whole, 1)
        await whole.in_step()
        await whole.stop(NORTH)
        shown = await _fenced(whole, case)
        assert tuple(re.findall(r"`(distctl (?:agents adopt \w+|restore))", shown)) == case.cures, shown
        await _cure(whole, case.cures[number])
        whole.start(NORTH)
        await grow(whole, 2)
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), story("R-1", 1, 2)))
        assert await whole.fence_of(NORTH) == ("open", "")
        for site in (HUB, NORTH):
            assert (await whole.agents[site].database.read(life.get)).fenced == ""
            assert await whole.agents[site].rows("SELECT state, detail FROM peers WHERE epoch > 0") == [("open", "")]


async def _fenced(whole: Estatewide, case: Case) -> str:
    """Put the fence up as its finder does; what is shown of it where it was found."""
    if case.finder == HUB and case.culprit == NORTH and case.reason is Reason.ENDED:
        await whole.agents[HUB].database.write(_know_a_later_epoch)
    else:
        await whole.agents[case.finder].database.write(partial(_put_up, case=case))
    if case.finder == NORTH and case.culprit == HUB:
        return (await fleet_at(whole, NORTH).agent(HUB)).to_do
    with pytest.raises(LinkFencedError) as caught:
        await whole.links[NORTH].greet()
    shown = (await row_of(whole)).to_do
    assert shown == caught.value.hint, "both sides show the same"
    return shown


def _put_up(connection: sqlite3.Connection, *, case: Case) -> None:
    other = HUB if case.finder == NORTH else NORTH
    put_up(connection, peers.ensure(connection, other), Fence(case.culprit, case.reason, "found"), now=CLOCK.now())


def _know_a_later_epoch(connection: sqlite3.Connection) -> None:
    peers.know_epoch(connection, peers.ensure(connection, NORTH), 2)


async def _cure(whole: Estatewide, command: str) -> None:
    """Do what is shown, a minute after everything that runs was stopped."""
    if command == _ADOPT:
        await fleet_at(whole, later=A_WHILE).adopt(NORTH, by="ada", reason="looked")
    else:
        await whole.close(HUB)
        restored = await whole.open(HUB)
        await restored.database.write(begin_again)


async def test_a_site_that_finds_its_own_store_forked_tells_the_hub_and_is_adopted(tmp_path: Path) -> None:
    """A hub sees of a hello only where streams end: that an event before the end is another only its site can see."""
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        whole.start(NORTH)
        await grow(whole, 1)
        await whole.in_step()
        await whole.close(NORTH)
        for name in ("first", "second"):
            shutil.copytree(tmp_path / NORTH, tmp_path / name)
            await whole.open(name, site=NORTH)
        whole.wires["first"].pull = _never  # type: ignore[method-assign, assignment]
        await grow(whole, 1, key="R-2", name="first")
        whole.start("first")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1), ("R-2", 1)]))
        await whole.stop("first")
        await grow(whole, 1, 2, key="R-3", name="second")
        stopped: list[str] = []
        whole.links["second"]._on_life = lambda: stopped.append("works")
        assert await refused(whole, "second") == (NORTH, Reason.FORKED)
        assert stopped, "a store that may not go on works no more, as after its next start"
        assert await whole.fence_of(NORTH) == ("fenced", Reason.FORKED), "the hub knows at once"
        row = await row_of(whole)
        assert "event 2 of its tier 1" in row.reason
        assert "distctl agents adopt north" in row.to_do
        await fleet_at(whole).adopt(NORTH, by="ada", reason="looked")
        whole.start("second")
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1), ("R-2", 1), ("R-3", 1), ("R-3", 2)]))
        assert (await whole.agents["second"].database.read(life.get)).fenced == ""
        assert await whole.fence_of(NORTH) == ("open", "")


async def _never(_: object) -> bytes:
    """A call that is not answered."""
    await asyncio.Event().wait()
    return b""


async def test_a_store_that_fenced_itself_in_a_life_that_ended_fences_nobody(tmp_path: Path) -> None:
    async with whose_epoch_ended(tmp_path) as whole:
        await whole.agents["old"].database.write(lambda connection: life.fence(connection, "forked"))
        assert await refused(whole, "old") == (NORTH, Reason.ENDED)
        assert await whole.fence_of(NORTH) == ("open", "")


# --- a store whose epoch has ended --------------------------------------------------------------------------------


@asynccontextmanager
async def whose_epoch_ended(folder: Path, **options: Any) -> AsyncIterator[Estatewide]:
    """The store `old` of the north has event 3 for itself, and `new`, a copy of it that was adopted, has brought event 2."""
    async with estatewide(folder, **options) as whole:
        whole.start(NORTH, "south")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy(NORTH, "new")
        await whole.close(NORTH)
        await whole.open("new", site=NORTH)
        await whole.agents[HUB].database.write(partial(_put_up, case=Case(HUB, NORTH, Reason.CLONED, ())))
        await fleet_at(whole).adopt(NORTH, by="ada", reason="the wrong one")
        whole.start("new")
        await grow(whole, 2, name="new")
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), story("R-1", 1, 2)))
        await whole.in_step("new", "south")
        shutil.copytree(folder / NORTH, folder / "old")
        await whole.open("old", site=NORTH)
        await grow(whole, 3, name="old")
        yield whole


async def test_a_store_whose_epoch_has_ended_is_told_of_and_what_it_takes_to_go_on_with_it(tmp_path: Path) -> None:
    async with whose_epoch_ended(tmp_path) as whole:
        assert (await row_of(whole)).reason == ""
        for _ in range(2):
            assert await refused(whole, "old") == (NORTH, Reason.ENDED)
        row = await row_of(whole)
        assert (row.state, row.refused_at is not None) == ("open", True)
        assert "another store of it is refused" in row.reason
        assert "epoch 1" in row.reason
        assert "distctl agents adopt north" in row.to_do
        entries = await whole.agents[HUB].database.read(audit.entries)
        assert [one.target for one in entries if one.action == "refuse"] == ["agent north"], (
            "once, however often it comes"
        )
        with pytest.raises(ConflictError, match="is not refused was heard") as caught:
            await fleet_at(whole).adopt(NORTH, by="ada", reason="the right one")
        assert "stop it first" in caught.value.hint
        assert await whole.fence_of(NORTH) == ("open", "")


async def test_a_store_that_is_refused_is_told_of_as_long_as_it_comes_or_nobody_else_is_heard(tmp_path: Path) -> None:
    async with whose_epoch_ended(tmp_path) as whole:
        await refused(whole, "old")
        later = timedelta(minutes=4)
        assert (await row_of(whole, later=later)).refused_at is not None, "its site was not heard since"
        await whole.stop("new")
        await whole.links["new"].greet()
        assert (await row_of(whole)).refused_at is not None, "it was there a moment ago"
        row = await row_of(whole, later=later)
        assert (row.state, row.refused_at, "refused" in row.reason) == ("silent", None, False), "it was stopped"


@pytest.mark.parametrize("second", [None, NORTH])
@pytest.mark.parametrize("is_hub_restored", [False, True])
async def test_an_older_store_that_is_adopted_loses_and_doubles_nothing(
    tmp_path: Path, second: str | None, is_hub_restored: bool
) -> None:
    further = {**FROM_HQ, **FROM_SOUTH}
    async with whose_epoch_ended(tmp_path, second=second, further=further) as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        await hub.arises(*[hub.event("H-1", revision, flow="hq-reco") for revision in (1, 2)])
        await south.arises(south.event("S-1", 1, flow="south-bulk"))
        downwards = [("H-1", 1), ("H-1", 2), ("S-1", 1)]
        await until(lambda: _has(whole, "new", "north/planning", downwards))
        await whole.in_step("new", "south")
        await refused(whole, "old")
        await whole.close("new")  # its disk is lost
        if is_hub_restored:
            await whole.stop("south")
            await whole.copy(HUB, "backup")
            hub = await put_back(whole, HUB, "backup")
            whole.start("south")
            await refused(whole, "old")
        await fleet_at(whole, later=A_WHILE).adopt(NORTH, by="ada", reason="the disk is lost")
        whole.start("old")
        await until(lambda: _has(whole, HUB, "hq/erp", [*story("R-1", 1, 2, 3), ("S-1", 1)]))
        await until(lambda: _has(whole, "old", "north/planning", downwards))
        await until(lambda: _has(whole, "south", "south/wms", [*story("H-1", 1, 2), *story("R-1", 1, 2, 3)]))
        await grow(whole, 4, name="old")
        await until(lambda: _has(whole, HUB, "hq/erp", [*story("R-1", 1, 2, 3, 4), ("S-1", 1)]))
        await whole.in_step("old", "south")
        assert await whole.agents["old"].rows("SELECT epoch FROM life") == [(3,)]
        assert await _events(whole, "old", "R-1") == [1, 2, 3, 4]
        assert await whole.fence_of(NORTH) == ("open", "")
        await whole.stop("old")
        await whole.open("new", site=NORTH)
        assert await refused(whole, "new") == (NORTH, Reason.ENDED), "it was the other's turn"


async def _has(whole: Estatewide, name: str, target: str, expected: list[tuple[str, int]]) -> bool:
    """Whether that agent owes these to a target, each once."""
    return sorted(await whole.agents[name].owes(target)) == sorted(expected)


async def _events(whole: Estatewide, name: str, key: str) -> list[int]:
    """Which revisions of a key are at an agent, one for each event."""
    rows = await whole.agents[name].rows(
        "SELECT json_extract(CAST(e.data AS TEXT), '$.revision') FROM events e JOIN origins o ON o.id = e.origin_id"
        " WHERE e.subject = ? AND o.op <> 'ack'",
        key,
    )
    return sorted(revision for (revision,) in rows)


async def test_an_empty_store_in_the_place_of_one_that_had_been_adopted_gets_back_what_the_hub_has(
    tmp_path: Path,
) -> None:
    async with whose_epoch_ended(tmp_path) as whole:
        await whole.close("old")
        await whole.close("new")
        await whole.open("empty", site=NORTH)
        assert await refused(whole, "empty") == (NORTH, Reason.ENDED)
        await fleet_at(whole, later=A_WHILE).adopt(NORTH, by="ada", reason="both disks are lost")
        whole.start("empty")
        await until(lambda: holds(_events(whole, "empty", "R-1"), [1, 2]))
        await grow(whole, 4, name="empty")
        await until(lambda: _has(whole, HUB, "hq/erp", story("R-1", 1, 2, 4)))
        assert await whole.fence_of(NORTH) == ("open", "")


async def test_of_two_stores_that_live_the_one_that_is_adopted_goes_on_and_the_other_is_refused_ever_after(
    tmp_path: Path,
) -> None:
    async with whose_epoch_ended(tmp_path) as whole:
        for living, waiting in (("new", "old"), ("old", "new"), ("new", "old")):
            await whole.stop(living)
            await refused(whole, waiting)
            await fleet_at(whole, later=A_WHILE).adopt(NORTH, by="ada", reason="the other one")
            whole.start(waiting)
            await until(lambda: holds(whole.fence_of(NORTH), ("open", "")))
            for _ in range(2):
                assert await refused(whole, living) == (NORTH, Reason.ENDED)
        await until(lambda: _has(whole, HUB, "hq/erp", story("R-1", 1, 2, 3)))


async def test_a_site_of_which_nothing_is_refused_cannot_be_adopted(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await whole.links[NORTH].greet()
        with pytest.raises(ConflictError, match="not fenced, and no other store of it was refused"):
            await fleet_at(whole, later=A_WHILE).adopt(NORTH, by="ada", reason="x")


# --- a site that is silent ----------------------------------------------------------------------------------------


async def test_a_site_is_silent_a_minute_after_it_was_heard_and_open_with_its_next_call(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await whole.links[NORTH].greet()
        assert (await row_of(whole)).state == "open"
        assert (await row_of(whole, later=SILENT_AFTER - timedelta(seconds=10))).state == "open"
        row = await row_of(whole, later=A_WHILE)
        assert row.heard_at is not None
        assert (row.state, row.reason) == ("silent", f"it was heard last at {row.heard_at:%Y-%m-%d %H:%M:%SZ}")
        assert (await fleet_at(whole, NORTH, later=A_WHILE).agent(HUB)).state == "silent", "a site says it of its hub"
        await whole.agents[HUB].database.write(_was_heard_long_ago)
        assert (await row_of(whole)).state == "silent"
        await whole.links[NORTH].greet()
        assert (await row_of(whole)).state == "open"


def _was_heard_long_ago(connection: sqlite3.Connection) -> None:
    peers.hear(connection, peers.ensure(connection, NORTH), now=0)
