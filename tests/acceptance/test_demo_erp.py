"""The ERP as a real process: it remembers keys, records what came twice, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from connectors.simulators import erp as erp_module
from connectors.simulators.erp import Erp
from connectors.simulators.erp_faults import FIRST_CALL, HOW_OFTEN, LAST_CALL, Fault, schedule
from connectors.simulators.erp_ledger import ErpLedger
from connectors.simulators.leash import leashed
from connectors.simulators.ledger import rows
from connectors.simulators.web import serve

ORDER = {
    "reference": "RECO-X-ALLOY",
    "revision": 1,
    "sku": "X",
    "supplier": "SUP-ALLOY",
    "quantity": "6",
    "unit": "C62",
    "order_date": "2011-04-04",
    "need_date": "2011-04-25",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An ERP in this process whose n-th write call meets `faults[n]`."""

    client: httpx.AsyncClient
    ledger: Path
    erp: Erp

    async def post(self, key: str, path: str = "/purchase-orders", **changes: object) -> httpx.Response:
        document = json.dumps({**ORDER, **changes})
        return await self.client.post(path, content=document, headers={"Idempotency-Key": key})

    def applied(self) -> list[tuple[object, ...]]:
        return rows(self.ledger, "SELECT reference, number, idempotency_key FROM applied ORDER BY seq")


@asynccontextmanager
async def an_erp(
    tmp_path: Path, faults: dict[int, Fault] | None = None, *, key_lifetime: timedelta = timedelta(minutes=1)
) -> AsyncIterator[Running]:
    path = tmp_path / "erp.db"
    with pytest.MonkeyPatch.context() as patch, ErpLedger(path, key_lifetime=key_lifetime) as ledger:
        patch.setattr(erp_module, "schedule", lambda seed: faults or {})
        erp = Erp(ledger, seed=1, deadline=0.2)
        server = await serve(erp.answer, port=0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, httpx.AsyncClient(base_url=address, timeout=0.6) as client:
            yield Running(client=client, ledger=path, erp=erp)
            await client.aclose()


async def test_the_same_key_is_applied_once_and_answered_alike(tmp_path: Path) -> None:
    async with an_erp(tmp_path) as erp:
        first, again = await erp.post("k1"), await erp.post("k1")
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == {**first.json(), "duplicate": True}
        assert len(erp.applied()) == 1


async def test_the_same_order_under_another_key_is_applied_twice(tmp_path: Path) -> None:
    async with an_erp(tmp_path) as erp:
        await erp.post("k1")
        await erp.post("k2")
        assert erp.applied() == [("RECO-X-ALLOY", 1, "k1"), ("RECO-X-ALLOY", 1, "k2")]


async def test_a_key_is_forgotten_after_its_lifetime(tmp_path: Path) -> None:
    async with an_erp(tmp_path, key_lifetime=timedelta(seconds=0.1)) as erp:
        await erp.post("k1")
        await asyncio.sleep(0.15)
        await erp.post("k1")
        assert len(erp.applied()) == 2


async def test_a_call_without_a_key_is_refused(tmp_path: Path) -> None:
    async with an_erp(tmp_path) as erp:
        assert (await erp.client.post("/stock", content=b"{}")).status_code == 400
        assert erp.applied() == []


async def test_a_reset_connection_has_left_its_order(tmp_path: Path) -> None:
    async with an_erp(tmp_path, {1: Fault.RESET}) as erp:
        with pytest.raises(httpx.TransportError):
            await erp.post("k1")
        assert len(erp.applied()) == 1
        assert (await erp.client.get("/by-key/k1")).json()["po_no"] == "PO-X-ALLOY"


async def test_a_silent_call_has_left_its_order_before_its_caller_gives_up(tmp_path: Path) -> None:
    async with an_erp(tmp_path, {1: Fault.SILENT}) as erp:
        with pytest.raises(httpx.TimeoutException):
            await erp.post("k1")
        assert len(erp.applied()) == 1


async def test_a_late_call_lands_after_its_caller_gave_up_and_asked(tmp_path: Path) -> None:
    async with an_erp(tmp_path, {1: Fault.LATE}) as erp:
        with pytest.raises(httpx.TimeoutException):
            await erp.post("k1")
        assert (await erp.client.get("/by-key/k1")).status_code == 404
        await asyncio.sleep(0.8)
        assert (await erp.client.get("/by-key/k1")).status_code == 200


async def test_a_late_call_after_a_resend_of_its_key_does_nothing(tmp_path: Path) -> None:
    async with an_erp(tmp_path, {1: Fault.LATE}) as erp:
        with pytest.raises(httpx.TimeoutException):
            await erp.post("k1")
        await erp.post("k1")
        await asyncio.sleep(0.8)
        assert len(erp.applied()) == 1


@pytest.mark.parametrize(("fault", "status"), [(Fault.TOO_MANY, 429), (Fault.UNAVAILABLE, 503)])
async def test_a_closed_erp_is_closed_for_everybody_and_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, status: int
) -> None:
    monkeypatch.setattr(erp_module, "CLOSED_FOR", 0.1)
    async with an_erp(tmp_path, {1: fault}) as erp:
        assert (await erp.post("k1")).status_code == status
        assert (await erp.client.get("/confirmations")).status_code == status
        await asyncio.sleep(0.15)
        assert (await erp.post("k1")).status_code == 201


async def test_an_error_inside_200_has_done_nothing(tmp_path: Path) -> None:
    async with an_erp(tmp_path, {1: Fault.LOCKED}) as erp:
        answer = await erp.post("k1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, "LOCKED")
        assert erp.applied() == []


async def test_confirmations_come_in_pages_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erp_module, "PAGE", 2)
    monkeypatch.setattr(erp_module, "_SLOW", 0.0)
    async with an_erp(tmp_path) as erp:
        for revision in range(1, 6):
            await erp.post(f"k{revision}", revision=revision)
        read: list[int] = []
        page: str | None = ""
        while page is not None:
            answer = (await erp.client.get("/confirmations", params={"after": 1, "page": page})).json()
            read += [item["revision"] for item in answer["items"]]
            page = answer["next"]
        assert read == [2, 3, 4, 5]


async def test_a_walk_through_the_pages_is_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erp_module, "PAGE", 1)
    monkeypatch.setattr(erp_module, "_SLOW", 0.0)
    async with an_erp(tmp_path) as erp:
        await erp.post("k1", revision=1)
        first = (await erp.client.get("/confirmations")).json()
        await erp.post("k2", revision=2)
        assert (await erp.client.get("/confirmations", params={"page": first["next"]})).json()["items"] == []
        assert len((await erp.client.get("/confirmations", params={"after": 1})).json()["items"]) == 1


def test_a_confirmation_is_never_visible_before_an_older_one_of_its_order(tmp_path: Path) -> None:
    with ErpLedger(tmp_path / "erp.db", key_lifetime=timedelta(minutes=1)) as ledger:
        ledger.apply_order({**ORDER, "revision": 1}, "k1", slow_by=60)
        ledger.apply_order({**ORDER, "revision": 2}, "k2", slow_by=0)
        ledger.apply_order({**ORDER, "reference": "RECO-Y-ALLOY"}, "k3", slow_by=0)
        assert [item["po_no"] for item in ledger.confirmations(after=0, as_of=time.time(), limit=9)] == ["PO-Y-ALLOY"]


def test_the_schedule_is_fixed_by_the_seed_and_holds_every_fault() -> None:
    assert schedule(3) == schedule(3) != schedule(4)
    assert {fault: list(schedule(3).values()).count(fault) for fault in HOW_OFTEN} == dict(HOW_OFTEN)
    assert all(FIRST_CALL <= call < LAST_CALL for call in schedule(3))
    assert set(HOW_OFTEN) == set(Fault) - {Fault.NONE}


def start(home: Path, *, port: int = 0) -> tuple[subprocess.Popen[bytes], str]:
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "connectors.simulators.erp", "--ledger", str(home / "erp.db")]
    process = subprocess.Popen(leashed([*command, "--ready", str(ready), "--port", str(port)]))
    wait_until(ready.exists)
    return process, f"http://127.0.0.1:{json.loads(ready.read_bytes())['port']}"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_erp_remembers_its_keys_and_counts_on(tmp_path: Path) -> None:
    process, address = start(tmp_path)
    headers = {"Idempotency-Key": "k1"}
    assert httpx.post(f"{address}/purchase-orders", json=ORDER, headers=headers).status_code == 201
    process.kill()
    process.wait()
    process, again = start(tmp_path, port=int(address.rpartition(":")[2]))
    assert again == address
    assert httpx.post(f"{address}/purchase-orders", json=ORDER, headers=headers).json()["duplicate"] is True
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert rows(tmp_path / "erp.db", "SELECT count(*) FROM calls") == [(2,)]


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is prctl, which only Linux has")
def test_a_leashed_process_ends_when_its_starter_is_killed() -> None:
    code = (
        "import subprocess, sys, time; from connectors.simulators.leash import leashed;"
        "command = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'];"
        "child = subprocess.Popen(leashed(command), stdout=subprocess.PIPE); child.stdout.readline();"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        assert is_running(child)
        starter.kill()
    wait_until(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
