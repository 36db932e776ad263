"""One agent on a machine that fails it: full and failing disks, locks, damage, no descriptors, stops and poison.

Faults are numbered in comments as in the reference page of faults. What the store does by itself is tried under tests/stores.
"""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from agent.control.endpoint import connect, socket_in
from agent.intake import LOW_WATER
from connectors.hostile import Behaviour, Connection, accepts_then_says_nothing, refuses, response
from tests.acceptance.agent_process import (
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    counted,
    left,
    open_partner,
    taken,
    to_erp,
    to_folder,
    until,
)

pytestmark = pytest.mark.slow

REMEMBERS = {"key_lifetime": "1h"}
IOFAULT = Path(__file__).parents[1] / "stores" / "iofault.c"


@pytest.fixture
def erp() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.fixture
def estate(tmp_path: Path, erp: Partner) -> EstateFolder:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", erp.url, memory=REMEMBERS)
    estate.add_flow("reco", to_erp("erp", probe=False))
    estate.write()
    return estate


@pytest.fixture
def agent(tmp_path: Path, estate: EstateFolder) -> Iterator[AgentProcess]:
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        yield agent


@pytest.fixture
def planner(estate: EstateFolder) -> Planner:
    return Planner(estate.folder / "planning")


def settled(agent: AgentProcess, erp: Partner, planner: Planner) -> None:
    """Everything arrives once and in order, nothing is set aside, and the store agrees with itself."""
    until(lambda: taken(erp) == planner.published, "everything is delivered once and in order")
    agent.settle()
    assert agent.status().open_dead_letters == 0
    assert counted(agent) == []


def owes(agent: AgentProcess, count: int) -> None:
    """Return when that many deliveries wait."""
    until(lambda: agent.status().totals.backlog == count, f"{count} deliveries wait")


async def answer_late(connection: Connection) -> None:
    """The honest answer, half a second late."""
    await connection.wait(0.5)
    await connection.send(response(201, {"id": "PO-1"}))


# --- the disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the agent's data, a little larger than the low-water mark."""
    folder = tmp_path / "data"
    folder.mkdir()
    size = f"size={LOW_WATER + (16 << 20)}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def ballast(folder: Path, *, leaving: int, reserve: bool = True) -> Iterator[None]:
    """Something else fills the disk, and what the agent's reserve held unless that is left, and leaves that many bytes free."""
    if not reserve:
        (folder / "reserve").unlink()
    path = folder / "ballast"
    with path.open("wb") as file:
        while (room := shutil.disk_usage(folder).free - leaving) > 0:
            file.write(bytes(min(room, 1 << 20)))
            file.flush()
    yield
    path.unlink()


def test_a_disk_that_runs_low_takes_nothing_in_and_delivers_what_it_has(  # F11
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    erp.close_shop()
    planner.publish("R-1", "R-2", "R-1")
    owes(agent, 3)
    before = dict(planner.published)
    with ballast(small_disk, leaving=LOW_WATER // 2):
        planner.publish("R-3")
        until(lambda: "disk-low" in agent.log(), "the log says why nothing is taken in")
        erp.open_shop()
        until(lambda: agent.status().totals.backlog == 0, "deliveries go on")
        assert taken(erp) == {reference: before[reference] for reference in ("R-1", "R-2")}
        assert agent.is_running
    settled(agent, erp, planner)
    assert agent.stop() == 0


def test_on_a_full_disk_results_and_the_audit_are_written_in_the_reserve(  # F11
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    erp.close_shop()
    planner.publish(*[f"R-{number % 40}" for number in range(120)])
    owes(agent, 120)
    with ballast(small_disk, leaving=0):
        erp.open_shop()
        until(lambda: agent.status().totals.backlog == 0, "every result is written")
        assert "the reserve was given up" in agent.log()
        assert agent.client.health().troubles[0].startswith("the disk was full")
        assert agent.client.audit_verdict().ok
        agent.kill()
    agent.run()
    until(lambda: agent.client.health().ok and (small_disk / "reserve").exists(), "the reserve is filled again")
    settled(agent, erp, planner)
    assert agent.stop() == 0


def test_a_disk_without_a_byte_left_loses_no_result_and_goes_on_when_there_is_room(  # F11, F12
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    erp.close_shop()
    references = [f"R-{number % 40}" for number in range(120)]
    planner.publish(*references)
    owes(agent, len(references))
    with ballast(small_disk, leaving=0, reserve=False):
        erp.open_shop()
        until(lambda: "the store cannot take results now" in agent.log(), "the store is full")
        time.sleep(1.5)
        assert agent.is_running
        assert agent.log().count("cannot take results now") < 40, "it tries now and then, it does not storm"
    settled(agent, erp, planner)
    assert agent.stop() == 0


def test_an_agent_starts_on_a_full_disk(  # F11
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    erp.close_shop()
    planner.publish(*[f"R-{number % 40}" for number in range(120)])
    owes(agent, 120)
    agent.kill()
    with ballast(small_disk, leaving=0):
        erp.open_shop()
        agent.start()
        until(lambda: taken(erp) and agent.lane("erp").delivered == 120, "it delivers")
        assert "the reserve was given up" in agent.log()
    settled(agent, erp, planner)
    assert agent.stop() == 0


def test_an_agent_stops_when_told_to_though_its_disk_is_full(  # F11
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    erp.close_shop()
    planner.publish(*[f"R-{number % 40}" for number in range(120)])
    owes(agent, 120)
    with ballast(small_disk, leaving=0, reserve=False):
        erp.open_shop()
        until(lambda: "the store cannot take results now" in agent.log(), "the store is full")
        agent.stop()
    agent.run()
    settled(agent, erp, planner)


def test_a_disk_that_is_read_only_refuses_the_start_and_is_served_again_when_it_is_not(  # F13
    small_disk: Path, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    assert agent.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert agent.start().wait() == 7
    assert "Read-only" in agent.log()
    assert "Traceback" not in agent.log()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    agent.run()
    planner.publish("R-1")
    settled(agent, erp, planner)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls on the store's files fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler for the shim that makes a disk fail")
    library = tmp_path_factory.mktemp("iofault") / "iofault.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, IOFAULT, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_disk_that_fails_ends_the_agent_in_doubt_and_the_next_start_loses_nothing(  # F14
    shim: Path, tmp_path: Path, agent: AgentProcess, planner: Planner, erp: Partner, call: str
) -> None:
    armed = tmp_path / "armed"
    fault = {
        "LD_PRELOAD": str(shim),
        "IOFAULT_PATH": "distctl.db-wal",
        "IOFAULT_CALL": call,
        "IOFAULT_ERRNO": str(errno.EIO),
        "IOFAULT_ARMED": str(armed),
        "IOFAULT_LOG": str(tmp_path / "failed"),
    }
    agent.run(environment=fault)
    planner.publish("R-1", "R-2", "R-1")
    until(lambda: taken(erp) == planner.published, "the first ones are delivered")
    armed.touch()
    planner.publish("R-1", "R-3")
    assert agent.wait() == 10
    assert "Traceback" not in agent.log()
    assert (tmp_path / "failed").stat().st_size <= 2, "what failed is not tried again"
    armed.unlink()
    agent.run()
    settled(agent, erp, planner)
    assert agent.rows("PRAGMA integrity_check") == [("ok",)]


# --- the store's file ---------------------------------------------------------------------------------------------


def test_a_store_that_somebody_else_locks_for_a_while_costs_nothing_but_time(  # F15
    agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    planner.publish("R-1")
    until(lambda: taken(erp) == planner.published, "the first one is delivered")
    agent.settle()
    with closing(sqlite3.connect(agent.store, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        planner.publish("R-1", "R-2")
        until(lambda: "store-locked" in agent.log(), "the log names the lock")
        shell.execute("ROLLBACK")
    settled(agent, erp, planner)


def test_a_start_waits_for_a_store_that_is_locked_for_a_moment(  # F15
    agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run()
    assert agent.stop() == 0
    with closing(sqlite3.connect(agent.store, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        agent.start()
        time.sleep(1.5)
        assert agent.is_running
        shell.execute("ROLLBACK")
    agent.kill()
    agent.run()
    planner.publish("R-1")
    settled(agent, erp, planner)


@pytest.mark.parametrize("place", [0, 3 * 8192])
def test_a_damaged_store_is_named_and_left_as_it_is(agent: AgentProcess, planner: Planner, place: int) -> None:  # F17
    agent.run()
    planner.publish("R-1", "R-2")
    until(lambda: agent.status().totals.delivered == 2, "something is in it")
    assert agent.stop() == 0
    content = bytearray(agent.store.read_bytes())
    content[place : place + 512] = bytes(byte ^ 0xFF for byte in content[place : place + 512])
    agent.store.write_bytes(content)
    damaged = hashlib.sha256(content).digest()
    for _ in range(2):
        before = len(agent.log())
        assert agent.start().wait() == 1
        told = agent.log()[before:]
        assert str(agent.store) in told
        assert ".recover" in told
        assert "Traceback" not in told
        assert hashlib.sha256(agent.store.read_bytes()).digest() == damaged


def test_a_second_agent_on_the_same_data_is_refused_and_told_who_has_it(  # F42
    agent: AgentProcess, estate: EstateFolder, planner: Planner, erp: Partner
) -> None:
    agent.run()
    with AgentProcess(estate.folder, agent.data) as second:
        assert second.start().wait() == 6
    assert f"pid {agent.process.pid}" in agent.log()
    planner.publish("R-1")
    settled(agent, erp, planner)


# --- the process --------------------------------------------------------------------------------------------------


def test_an_agent_without_free_descriptors_keeps_delivering(  # F22
    agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    agent.run(before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    planner.publish("R-1", "R-2", "R-3", "R-4")
    until(lambda: taken(erp) == planner.published, "the first ones are delivered")
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(_held(socket_in(agent.data)))
            time.sleep(0.005)
        planner.publish("R-1", "R-2", "R-3", "R-4")
        until(lambda: taken(erp) == planner.published, "deliveries go on")
    assert "Too many open files" not in agent.log(), "callers never get all of them"
    until(agent.answers, "callers are served again")
    settled(agent, erp, planner)
    assert agent.stop() == 0


@contextmanager
def _held(path: Path) -> Iterator[socket.socket]:
    connection = connect(path, timeout=1)
    yield connection
    connection.close()


def test_an_agent_that_was_stopped_for_longer_than_its_lease_has_no_effect_twice(  # F25
    tmp_path: Path, planner: Planner, estate: EstateFolder, agent: AgentProcess
) -> None:
    with open_partner(remembers_keys=False) as erp:
        estate.add_erp("erp", erp.url, memory={"lands_within": "1s"})
        estate.add_flow("reco", to_erp("erp"))
        estate.write()
        erp.script("POST", *[accepts_then_says_nothing()] * 4)
        agent.run()
        planner.publish(*"ABCDEFGH", *"ABCD")
        until(lambda: len(erp.ledger) == 4, "calls are under way")
        agent.signal(signal.SIGSTOP)
        time.sleep(6)  # the lease of a call lasts its deadline of 0.4 s and 5 s more
        agent.signal(signal.SIGCONT)
        settled(agent, erp, planner)


def test_an_agent_that_is_told_to_stop_settles_the_call_that_is_under_way(
    estate: EstateFolder, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    estate.systems["erp"]["limits"]["deadline"] = "5s"
    estate.write()
    erp.script("POST", *[Behaviour(name="answers late", reply=answer_late)] * 2)
    agent.run()
    planner.publish("R-1", "R-2")
    until(lambda: len(erp.ledger) == 2, "two calls are under way")
    planner.publish("R-3")
    assert agent.stop() == 0
    assert agent.rows("SELECT state, attempts FROM deliveries ORDER BY id")[:2] == [("delivered", 1)] * 2
    agent.run()
    settled(agent, erp, planner)


# --- poison -------------------------------------------------------------------------------------------------------


def test_a_poisoned_key_is_set_aside_and_its_newer_events_wait_behind_it_alone(  # F46
    agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    erp.script("POST", refuses(422, {"detail": "unknown supplier"}))
    agent.run()
    planner.publish("POISON")
    until(lambda: agent.status().totals.parked == 1, "the poison is set aside")
    planner.publish("R-1", "POISON", "R-2")
    until(lambda: taken(erp) == {"R-1": [1], "R-2": [1]}, "other keys are unaffected")
    lane = agent.lane("erp")
    assert (lane.parked, lane.pending, lane.breaker) == (1, 1, "closed")
    [letter] = agent.client.dead_letters().items
    assert (letter.subject, letter.code) == ("POISON", "http-422")
    detail = agent.client.dead_letter(letter.id)
    assert json.loads(detail.raw.text or "")["reference"] == "POISON"
    assert detail.waiting_behind == 1
    assert letter.hint


def test_a_record_that_fails_by_its_own_fault_uses_up_its_attempts_and_an_outage_does_not(  # F46
    agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    async def choose(connection: Connection) -> None:
        is_poison = b"POISON" in connection.request.body
        await connection.send(response(423, {"detail": "locked"}) if is_poison else response(201, {"id": "PO-1"}))

    erp.script("POST", *[Behaviour(name="is picky", reply=choose)] * 200)
    agent.run()
    planner.publish("POISON", *[f"R-{number}" for number in range(5)])

    def parked() -> bool:
        planner.publish("R-0")  # the target works for others, which shows whose fault it is
        time.sleep(0.2)
        return agent.status().totals.parked == 1

    until(parked, "the poison is set aside")
    [letter] = agent.client.dead_letters().items
    assert letter.code == "attempts-spent"
    assert agent.rows("SELECT count(*) FROM attempts WHERE code <> 'attempts-spent'")[0][0] >= 7


def test_a_dead_letter_that_cannot_be_written_leaves_the_file_with_its_source(  # F47
    estate: EstateFolder, agent: AgentProcess, planner: Planner, erp: Partner
) -> None:
    folder = estate.add_folder("warehouse")
    estate.add_flow("stock", to_folder("warehouse"), pattern="stock-*.csv")
    estate.write()
    agent.run()
    assert agent.stop() == 0
    break_dead_letters(agent)
    planner.publish("R-1", spoiled=1)
    stock = Planner(planner.folder, prefix="stock")
    stock.publish("S-1")
    agent.run()
    until(lambda: "no room for dead letters" in agent.log(), "the dead letter cannot be written")
    until(lambda: left(folder) == stock.published, "other flows go on")
    assert agent.is_running
    assert taken(erp) == {}
    assert (planner.folder / "reco-000001.csv").exists(), "the source was not told that it is done"
    assert agent.stop() == 0
    assert agent.rows("SELECT coalesce(sum(records), 0) FROM sources WHERE name LIKE 'reco%'") == [(0,)]
    mend_dead_letters(agent)
    agent.run()
    until(lambda: taken(erp) == planner.published, "now it is taken in")
    assert agent.status().open_dead_letters == 1


def break_dead_letters(agent: AgentProcess) -> None:
    """Of a store at rest: from now on no dead letter can be written."""
    with closing(sqlite3.connect(agent.store)) as shell:
        shell.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(ABORT, 'no room for dead letters'); END"
        )


def mend_dead_letters(agent: AgentProcess) -> None:
    with closing(sqlite3.connect(agent.store)) as shell:
        shell.execute("DROP TRIGGER broken")
