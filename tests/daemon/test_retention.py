"""Retention at work: told by the hub, done by each agent, passed over by who needed more, and killed wherever it writes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.crash_points import OF_RETENTION, VARIABLE, from_environment, ignore
from agent.fleet import Fleet
from agent.raw_archive import RawArchive
from agent.retention import Retention
from connectors.base import RawDocument
from state import backup, gaps, inbox, life, peers, retention
from state.gaps import Gap
from state.inbox import Arrival
from state.model.clock import to_millis
from state.model.ids import sha256
from state.testing import temporary_database
from tests.daemon.link_rig import CLOCK, HUB, AgentAt, Estatewide, estatewide, holds, until


async def grow(whole: Estatewide, *revisions: int) -> None:
    north = whole.agents["north"]
    await north.arises(*[north.event("R-1", revision) for revision in revisions])


def story(*revisions: int) -> list[tuple[str, int]]:
    return [("R-1", revision) for revision in revisions]


async def back_up(agent: AgentAt) -> None:
    """What `distctl backup` notes of a copy that was verified."""
    await asyncio.sleep(0.01)  # what was recorded in this very moment is not older than the backup
    await agent.database.write(_note_backup)


def _note_backup(connection: sqlite3.Connection) -> None:
    now = CLOCK.now()
    held = backup.contents(connection)
    backup.note(connection, held, name="b", folder="/b", manifest_sha256="ab" * 32, taken_at=now, now=now)


def retention_of(agent: AgentAt, *, is_backing_up: bool = False) -> Retention:
    """The retention of an agent that keeps nothing longer than it must."""
    return Retention(
        agent.database,
        RawArchive(agent.database.path.parent / "raw"),
        CLOCK,
        hub=lambda: HUB,
        settled=lambda: timedelta(0),
        is_backing_up=lambda: is_backing_up,
        on_let_go=lambda _: None,
        crash=ignore,
    )


async def let_go(agent: AgentAt) -> int:
    return await retention_of(agent).sweep(asyncio.Event())


async def be_told(whole: Estatewide, site: str) -> None:
    """The site hears what the hub's last backup holds."""
    [(last,)] = await whole.agents[HUB].rows("SELECT max(taken_at) FROM backups")
    whole.hub.wake([site])
    await until(lambda: _is_told(whole.agents[site], last))


async def _is_told(agent: AgentAt, moment: int) -> bool:
    [(told,)] = await agent.rows("SELECT json_extract(backed_up, '$.taken_at') FROM peers WHERE site = ?", HUB)
    return bool(told == moment)


async def gaps_of(agent: AgentAt, site: str) -> list[tuple[int, int, int, bool]]:
    """(tier, first, last, whether of a stream of its own) of what is known there to be beyond retention."""

    def found(connection: sqlite3.Connection) -> list[Gap]:
        [(peer,)] = connection.execute("SELECT id FROM peers WHERE site = ?", (site,)).fetchall()
        return gaps.list_all(connection, peer)

    return [(gap.tier, gap.first, gap.last, gap.is_ours) for gap in await agent.database.read(found)]


async def noted(agent: AgentAt) -> int:
    """How many gaps the audit tells of."""
    [(count,)] = await agent.rows("SELECT count(*) FROM audit WHERE action = 'note gap'")
    return int(count)


def begin_again(connection: sqlite3.Connection) -> None:
    """What `distctl restore` does."""
    life.begin_epoch(connection, now=to_millis(CLOCK.now()))


async def put_back(whole: Estatewide, name: str, copy: str) -> AgentAt:
    site = whole.agents[name].site
    await whole.close(name)
    restored = whole.agents[name] = await whole.open(copy, site=site)
    await restored.database.write(begin_again)
    return restored


# --- gaps, both ways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost_replies", [0, 1, 2])
async def test_a_hub_put_back_from_an_old_backup_goes_on_behind_what_its_sites_let_go(
    tmp_path: Path, lost_replies: int
) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1, 2)
        await whole.in_step()
        await whole.copy(HUB, "old")
        await grow(whole, 3, 4, 5)
        await whole.in_step()
        await back_up(whole.agents[HUB])
        await be_told(whole, "north")
        await grow(whole, 6)
        await whole.in_step()
        north = whole.agents["north"]
        assert await let_go(north) == 5
        restored = await put_back(whole, HUB, "old")
        whole.wires["north"].lost_replies = lost_replies
        await grow(whole, 7)
        await until(lambda: holds(restored.owes("hq/erp"), story(1, 2, 6, 7)))
        await until(lambda: holds(gaps_of(north, HUB), [(1, 3, 5, True)]))
        assert await gaps_of(restored, "north") == [(1, 3, 5, False)]
        assert (await noted(restored), await noted(north)) == (1, 1)
        assert await whole.fence_of("north") == ("open", "")
        await whole.in_step()


async def test_a_site_with_a_new_disk_gets_what_the_hub_still_holds_and_knows_the_rest(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1, 2, 3)
        hub, south = whole.agents[HUB], whole.agents["south"]
        await until(lambda: holds(south.owes("south/wms"), story(1, 2, 3)))
        await hub.delivers("hq/erp")
        await whole.in_step()
        await back_up(hub)
        await grow(whole, 4)
        await whole.in_step()
        assert await let_go(hub) > 0
        await whole.close("south")
        fresh = whole.agents["south"] = await whole.open("new", site="south")
        whole.links["south"] = whole.links["new"]
        whole.runners["south"] = whole.runners["new"]
        whole.start("south")
        await until(lambda: _is_fenced(whole, "south"))
        assert await gaps_of(fresh, HUB) == []
        await whole.stop("south")
        await whole.adopt("south")
        whole.start("south")
        await until(lambda: holds(fresh.owes("south/wms"), story(4)))
        await until(lambda: holds(gaps_of(fresh, HUB), [(1, 1, 3, False)]))
        await whole.stop("south")  # its next hello tells the hub
        whole.start("south")
        await until(lambda: holds(gaps_of(hub, "south"), [(1, 1, 3, True)]))
        await grow(whole, 5)
        await until(lambda: holds(fresh.owes("south/wms"), story(4, 5)))


async def test_a_site_with_a_new_disk_knows_what_it_lacks_of_every_life_of_its_hub(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        south = whole.agents["south"]
        whole.start("north", "south")
        await grow(whole, 1)
        await until(lambda: holds(south.owes("south/wms"), story(1)))
        await whole.in_step()
        for site in ("north", "south"):
            await whole.stop(site)
        hub = await put_back(whole, HUB, HUB)
        await hub.database.write(lambda connection: connection.execute("UPDATE life SET gathering = 0"))
        whole.start("north", "south")
        await grow(whole, 2, 3)
        await until(lambda: holds(south.owes("south/wms"), story(1, 2, 3)))
        await hub.delivers("hq/erp")
        await whole.in_step()
        await back_up(hub)
        await grow(whole, 4)
        await whole.in_step()
        assert await let_go(hub) > 0
        await whole.close("south")
        fresh = whole.agents["south"] = await whole.open("new", site="south")
        whole.links["south"] = whole.links["new"]
        whole.runners["south"] = whole.runners["new"]
        whole.start("south")
        await until(lambda: _is_fenced(whole, "south"))
        await whole.stop("south")
        await whole.adopt("south")
        whole.start("south")
        await until(lambda: holds(fresh.owes("south/wms"), story(4)))
        assert await gaps_of(fresh, HUB) == [(1, 1, 1, False), (1, 1, 2, False)]
        await grow(whole, 5)
        await until(lambda: holds(fresh.owes("south/wms"), story(4, 5)))


async def _is_fenced(whole: Estatewide, site: str) -> bool:
    return (await whole.fence_of(site))[0] == "fenced"


async def test_what_ended_lives_let_go_is_a_gap_too(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy(HUB, "old")
        await grow(whole, 2, 3)
        await whole.in_step()
        await back_up(whole.agents[HUB])
        await be_told(whole, "north")
        await grow(whole, 4)
        await whole.in_step()
        north = whole.agents["north"]
        await let_go(north)
        await whole.stop("north")
        await north.database.write(begin_again)
        whole.start("north")
        await grow(whole, 5)
        await whole.in_step()
        await whole.stop("north")
        restored = await put_back(whole, HUB, "old")
        whole.start("north")
        await until(lambda: holds(restored.owes("hq/erp"), story(1, 4, 5)))
        assert await gaps_of(restored, "north") == [(1, 2, 3, False)]
        assert await whole.fence_of("north") == ("open", "")


async def test_what_a_restored_site_does_not_get_back_is_listed_at_both_ends(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        whole.start("north", "south")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy("north", "old")
        await grow(whole, 2, 3, 4)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story(1, 2, 3, 4)))
        await delivers_all(hub)
        await whole.in_step()
        await back_up(hub)
        await grow(whole, 5)
        await whole.in_step()
        assert await let_go(hub) > 0
        restored = await _restored_site(whole)
        await until(lambda: holds(_keys(restored), [1, 5]))
        await until(lambda: holds(given_back_in_part(restored), [(1, 2, 4, True)]))
        assert await given_back_in_part(hub) == [(1, 2, 4, False)]
        for agent, other in ((hub, "north"), (restored, HUB)):
            [shown] = [gap for gap in (await fleet_of(agent).agent(other)).gaps if gap.sender == "north"]
            assert shown.text.startswith("of events 2 to 4 of tier 1 of north (")
            assert "which north has lost, hq gave back those that were not beyond retention there" in shown.text
            assert "look into a later backup of north or an older one of hq" in shown.text
        await whole.stop("old")
        whole.start("old")
        await grow_at(restored, 6)
        await until(lambda: holds(_last_of(hub), 6))
        assert len(await given_back_in_part(hub)) == 1


async def test_a_restored_site_that_gets_back_all_it_lost_has_no_gap(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        whole.start("north", "south")
        await grow(whole, 1, 2, 3)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story(1, 2, 3)))
        await delivers_all(hub)
        await whole.in_step()
        await whole.copy("north", "old")
        await back_up(hub)
        await grow(whole, 4, 5)
        await whole.in_step()
        assert await let_go(hub) > 0
        restored = await _restored_site(whole)
        await until(lambda: holds(_keys(restored), [1, 2, 3, 4, 5]))
        await whole.in_step("old")
        assert (await given_back_in_part(restored), await given_back_in_part(hub)) == ([], [])


async def test_what_a_restored_hub_does_not_get_back_is_listed_at_both_ends(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub, north = whole.agents[HUB], whole.agents["north"]
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy(HUB, "old")
        hub = whole.agents[HUB]
        await grow(whole, 2)
        await whole.in_step()
        await delivers_all(hub)
        await until(lambda: _counts(north, "SELECT count(*) FROM events", 4))
        await whole.in_step()
        await back_up(hub)
        await be_told(whole, "north")
        await back_up(north)
        assert await let_go(north) > 0
        restored = await put_back(whole, HUB, "old")
        await grow(whole, 3)
        await until(lambda: holds(given_back_in_part(north), [(1, 1, 2, False)]))
        await whole.stop("north")
        whole.start("north")
        await until(lambda: holds(given_back_in_part(restored), [(1, 1, 2, True)]))


async def delivers_all(hub: AgentAt) -> None:
    """One after the other, since it is one key."""
    while await hub.rows("SELECT 1 FROM deliveries WHERE settled_at IS NULL"):
        await hub.delivers("hq/erp")


async def given_back_in_part(agent: AgentAt) -> list[tuple[int, int, int, bool]]:
    """(tier, first, last, whether of a stream of its own) of what came back in part."""
    rows = await agent.rows("SELECT tier, first_seq, last_seq, is_ours FROM gaps WHERE of_give_back = 1")
    return [(tier, first, last, bool(is_ours)) for tier, first, last, is_ours in rows]


async def _restored_site(whole: Estatewide) -> AgentAt:
    """The north from its old copy, running."""
    restored = await put_back(whole, "north", "old")
    whole.start("old")
    return restored


async def _keys(agent: AgentAt) -> list[int]:
    rows = await agent.rows(
        "SELECT json_extract(CAST(e.data AS TEXT), '$.revision') FROM events e JOIN origins o ON o.id = e.origin_id"
        " WHERE o.op <> 'ack' ORDER BY 1"
    )
    return [revision for (revision,) in rows]


async def _last_of(agent: AgentAt) -> int:
    return max(await _keys(agent))


async def grow_at(agent: AgentAt, revision: int) -> None:
    await agent.arises(agent.event("R-1", revision))


async def _counts(agent: AgentAt, query: str, number: int) -> bool:
    return await agent.rows(query) == [(number,)]


async def test_both_agents_say_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        hub, north = whole.agents[HUB], whole.agents["north"]
        since, until_ = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 8, tzinfo=UTC)
        gap = Gap(epoch=1, tier=2, first=1_204, last=3_377, since=since, until=until_)
        for agent, site, is_ours in ((hub, "north", False), (north, HUB, True)):
            await agent.database.write(partial(_add_gap, gap, site, is_ours))
            [shown] = (await fleet_of(agent).agent(site)).gaps
            assert (shown.sender, shown.receiver, shown.first, shown.last) == ("north", HUB, 1_204, 3_377)
            assert shown.text.startswith(
                "events 1,204 to 3,377 of tier 2 of north (2026-10-01 to 2026-10-08, epoch 1) are beyond retention and are"
                " not at hq; "
            )


def _add_gap(gap: Gap, site: str, is_ours: bool, connection: sqlite3.Connection) -> None:
    gaps.add(connection, peers.ensure(connection, site).id, [gap], is_ours=is_ours, now=CLOCK.now())


def fleet_of(agent: AgentAt) -> Fleet:
    return Fleet(
        agent.database,
        site=agent.site,
        estate=lambda: agent.compiled.estate,
        identity=lambda: None,
        clock=CLOCK,
        on_life=lambda: None,
    )


# --- no way around a fence ----------------------------------------------------------------------------------------


async def test_a_rewound_hub_is_fenced_and_passes_over_nothing(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1, 2)
        await whole.in_step()
        await whole.copy(HUB, "old")
        await grow(whole, 3, 4)
        await whole.in_step()
        await back_up(whole.agents[HUB])
        await be_told(whole, "north")
        await let_go(whole.agents["north"])
        await whole.stop("north")
        await whole.close(HUB)
        rewound = whole.agents[HUB] = await whole.open("old", site=HUB)
        whole.start("north")
        await until(lambda: _says_rewound(rewound))
        assert await gaps_of(rewound, "north") == []
        assert await gaps_of(whole.agents["north"], HUB) == []


async def test_a_stream_that_is_said_to_begin_behind_its_end_is_refused(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.stop("north")
        north = whole.agents["north"]
        await north.database.write(_pretend_to_have_let_go)
        whole.start("north")
        await until(lambda: whole.links["north"].trouble)
        assert "begins behind its end" in str(whole.links["north"].trouble)
        assert await gaps_of(whole.agents[HUB], "north") == []


def _pretend_to_have_let_go(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE streams_out SET let_go_seq = 9, let_go_chain = zeroblob(32), let_go_at = 0")


async def _says_rewound(agent: AgentAt) -> bool:
    return bool((await agent.database.read(life.get)).fenced)


# --- the pass -----------------------------------------------------------------------------------------------------


async def test_a_pass_is_made_once_for_each_backup_and_audited(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        whole.start("north", "south")
        await grow(whole, 1, 2)
        await until(lambda: holds(whole.agents["south"].owes("south/wms"), story(1, 2)))
        await hub.delivers("hq/erp")
        await whole.in_step()
        passes = retention_of(hub)
        assert await passes.sweep(asyncio.Event()) == 0
        await back_up(hub)
        await hub.database.write(_hold_back)
        assert await passes.sweep(asyncio.Event()) == 0
        await hub.database.write(lambda connection: connection.execute("DELETE FROM unapplied"))
        assert await passes.sweep(asyncio.Event()) == 0, "it waits for the next backup"
        await back_up(hub)
        assert await passes.sweep(asyncio.Event()) > 0
        [(reason,)] = await hub.rows("SELECT reason FROM audit WHERE action = 'let go'")
        assert reason.endswith("in backup b: the rule of retention")
        assert await passes.sweep(asyncio.Event()) == 0


def _hold_back(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO unapplied (event_id, peer_id, tier, flow, partition_key, estate, attributes, data, code, detail,"
        " received_at) SELECT randomblob(16), p.id, 1, o.flow, e.partition_key, 'x', x'', x'', 'no-estate', '', 0"
        " FROM events e JOIN origins o ON o.id = e.origin_id, peers p GROUP BY o.flow, e.partition_key"
    )


async def test_an_archived_document_is_removed_after_its_row_and_not_while_somebody_may_want_it(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        hub = whole.agents[HUB]
        path, raw = archived(hub, b"large")
        await hub.database.write(lambda connection: _admit_from(connection, hub, raw))
        await back_up(hub)
        await retention_of(hub, is_backing_up=True).sweep(asyncio.Event())
        assert await hub.rows("SELECT count(*) FROM raw_documents") == [(0,)]
        assert path.exists()
        assert await hub.database.read(lambda connection: retention.files(connection, limit=9)) == [(path.name, False)]
        await let_go(hub)
        assert not path.exists()
        assert await hub.database.read(lambda connection: retention.files(connection, limit=9)) == []


def test_a_document_that_comes_again_while_it_is_to_be_removed_stays(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"large")
    document = RawDocument(name="in.csv", sha256=sha256(b"large"), size=5, content=None, path=source)
    archive = RawArchive(tmp_path / "raw")
    archive.keep(document)
    assert not archive.remove(document.sha256)
    assert archive.path_of(document.sha256).exists()
    assert RawArchive(tmp_path / "raw").remove(document.sha256)
    assert not archive.path_of(document.sha256).exists()
    assert RawArchive(tmp_path / "raw").remove(document.sha256)


def archived(agent: AgentAt, content: bytes) -> tuple[Path, str]:
    """A file in the archive folder of an agent, and its hash."""
    name = sha256(content)
    path = RawArchive(agent.database.path.parent / "raw").path_of(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path, name


def _admit_from(connection: sqlite3.Connection, agent: AgentAt, raw: str) -> None:
    millis = to_millis(CLOCK.now())
    number = inbox.keep_raw(connection, sha256=raw, name="in.csv", size=5, content=None, now=millis)
    inbox.admit(connection, [Arrival(agent.event("R-9", one)) for one in (1, 2)], raw_id=number)


# --- killed -------------------------------------------------------------------------------------------------------

_SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.daemon.test_retention import sweep_alone
asyncio.run(sweep_alone(Path(sys.argv[1])))
"""


async def sweep_alone(folder: Path) -> None:
    """What an agent does with the store in `folder`, with the crash points of the environment."""
    crash = from_environment(os.environ)
    async with temporary_database(folder, now=CLOCK.now(), crash=crash) as database:
        await Retention(
            database,
            RawArchive(folder / "raw"),
            CLOCK,
            hub=lambda: HUB,
            settled=lambda: timedelta(0),
            is_backing_up=lambda: False,
            on_let_go=lambda _: None,
            crash=crash,
        ).sweep(asyncio.Event())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hub that has something of everything to let go."""
    folder = tmp_path_factory.mktemp("grown")
    asyncio.run(_grow_store(folder))
    return folder / HUB


async def _grow_store(folder: Path) -> None:
    async with estatewide(folder) as whole:
        hub = whole.agents[HUB]
        whole.start("north", "south")
        for revision in range(1, 5):
            await grow(whole, revision)
            await whole.in_step()
        await hub.delivers("hq/erp")
        _, raw = archived(hub, b"large")
        await hub.database.write(lambda connection: _admit_from(connection, hub, raw))
        await hub.database.write(_set_aside_and_close)
        await whole.in_step()
        await back_up(hub)


def _set_aside_and_close(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO dead_letters (kind, record_id, site, system, flow, place, rule, code, message, hint, raw, state,"
        " parked_at, closed_at) VALUES ('record', randomblob(16), 'hq', 'erp', 'f', 'p', 'r', 'c', 'm', 'h', x'00',"
        " 'discarded', 0, 1)"
    )


def _left(folder: Path) -> list[Any]:
    """Everything that retention touches, but for when."""
    tables = (
        "SELECT seq, lower(hex(id)), raw_id FROM events ORDER BY 1",
        "SELECT lower(hex(id)) FROM let_go ORDER BY 1",
        "SELECT id, event_seq, state FROM deliveries ORDER BY 1",
        "SELECT * FROM trace ORDER BY 1, 2, 3, 4",
        "SELECT * FROM stream_items ORDER BY 1, 2",
        "SELECT id, seq, acked_seq, let_go_seq, lower(hex(let_go_chain)) FROM streams_out ORDER BY 1",
        "SELECT * FROM arrivals ORDER BY 1, 2, 3, 4",
        "SELECT id FROM dead_letters ORDER BY 1",
        "SELECT id FROM raw_documents ORDER BY 1",
        "SELECT * FROM files_let_go",
        "SELECT value FROM counters WHERE name = 'let_go'",
    )
    with closing(sqlite3.connect(folder / "distctl.db")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return [connection.execute(table).fetchall() for table in tables]


def _run(folder: Path, point: str = "") -> int:
    environment = {**os.environ, VARIABLE: point} if point else dict(os.environ)
    return subprocess.run([sys.executable, "-c", _SCRIPT, str(folder)], env=environment, check=False).returncode


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_end(grown: Path, tmp_path: Path) -> None:
    shutil.copytree(grown, tmp_path / "whole")
    assert _run(tmp_path / "whole") == 0
    expected = _left(tmp_path / "whole")
    assert not any((tmp_path / "whole" / "raw").rglob("*.*")), "the archived document is gone"
    for number, point in enumerate(OF_RETENTION):
        folder = tmp_path / str(number)
        shutil.copytree(grown, folder)
        assert _run(folder, point) == -signal.SIGKILL, point
        with closing(sqlite3.connect(folder / "distctl.db")) as connection:
            archived_now = connection.execute("SELECT count(*) FROM raw_documents WHERE content IS NULL").fetchone()[0]
        assert not archived_now or any(path.is_file() for path in (folder / "raw").rglob("*")), point
        assert _run(folder) == 0
        assert _left(folder) == expected, point
