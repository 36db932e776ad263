import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from agent.control.client import ControlClient, gather
from agent.control.schema import AuditVerdict, Condition, EventRow, FlowRow, Health, Status
from agent.control.server import ControlServer
from agent.control.testing import NOW, WrittenDesk, open_gate, served
from state.model.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    DistctlError,
    InDoubtError,
    NotConnectedError,
    NotFoundError,
    StoreError,
)


@pytest.fixture
def desk() -> WrittenDesk:
    return WrittenDesk(
        flow_rows=[FlowRow(flow="stock", tier=2, targets=["dc/erp"], in_force=True)],
        event_rows=[
            EventRow(
                seq=number,
                id=f"{number:032x}",
                time=NOW,
                recorded_at=NOW,
                flow="stock",
                contract="inventory-balance/1",
                op="snapshot",
                subject=f"SKU-{number}",
                source="dc/wms",
            )
            for number in range(25, 0, -1)
        ],
    )


@pytest.fixture
def path(desk: WrittenDesk, tmp_path: Path) -> Iterator[Path]:
    with served(desk, tmp_path / "control" / "agent.sock") as path:
        yield path


@pytest.fixture
def client(path: Path) -> ControlClient:
    return ControlClient(path)


def test_every_answer_says_how_fresh_it_is_and_whose(client: ControlClient) -> None:
    answer = client.status()
    assert (answer.as_of, answer.site, answer.environment) == (NOW, "dc-north", "test")


def test_the_kernel_says_who_is_asking(client: ControlClient) -> None:
    caller = client.caller()
    assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.geteuid(), os.getegid())


def test_a_header_cannot_change_who_is_asking(path: Path) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as http:
        answer = http.get("/v1/caller", headers={"x-user": "nobody", "x-forwarded-user": "nobody"})
    assert answer.json()["uid"] == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_account_is_refused_by_the_folder(desk: WrittenDesk) -> None:
    connect = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    become_nobody = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with served(desk, Path(folder) / "control" / "agent.sock") as path:
            own, other = (
                subprocess.run([sys.executable, "-c", code, path], check=False, capture_output=True, text=True)
                for code in (
                    f"import os, socket, sys; {connect}",
                    f"import os, socket, sys; {become_nobody}; {connect}",
                )
            )
    assert own.returncode == 0
    assert "PermissionError" in other.stderr


def test_the_change_is_made_in_the_callers_name(client: ControlClient, desk: WrittenDesk) -> None:
    client.reload()
    client.resume(reason="the disk was replaced")
    assert desk.reloaded_by == [client.caller().user]
    assert desk.resumed_by == [(client.caller().user, "the disk was replaced")]


def test_the_agent_of_another_site_is_not_told_to_change_anything(path: Path, desk: WrittenDesk) -> None:
    with pytest.raises(ConfigError, match="that of site dc-north, not of berlin"):
        ControlClient(path, site="berlin").reload()
    with pytest.raises(ConfigError, match="that of site dc-north, not of berlin"):
        ControlClient(path, site="berlin").resume(reason="the wrong one")
    assert (desk.reloaded_by, desk.resumed_by) == ([], [])


def test_the_socket_is_closed_to_others(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_folder_that_is_too_open_is_closed(desk: WrittenDesk, tmp_path: Path) -> None:
    folder = tmp_path / "control"
    folder.mkdir()
    folder.chmod(0o2777)
    with served(desk, folder / "agent.sock"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give to any group")
def test_the_socket_belongs_to_the_folders_group(desk: WrittenDesk, tmp_path: Path) -> None:
    folder = tmp_path / "control"
    folder.mkdir(mode=0o750)
    os.chown(folder, -1, 12345)
    with served(desk, folder / "agent.sock") as path:
        assert path.stat().st_gid == 12345


def test_lists_go_on_where_the_page_before_ended(client: ControlClient) -> None:
    pages = list(gather(lambda size, cursor: client.events(limit=min(size, 10), cursor=cursor), limit=100))
    assert [len(page.items) for page in pages] == [10, 10, 5]
    assert [row.seq for page in pages for row in page.items] == list(range(25, 0, -1))


def test_filters_reach_the_desk_letter_by_letter(client: ControlClient, desk: WrittenDesk) -> None:
    strange = "a&b=c/ü ?\x1b[0m"
    desk.event_rows.append(desk.event_rows[0].model_copy(update={"subject": strange}))
    assert [row.subject for row in client.events(key=strange).items] == [strange]
    assert client.trace(strange).key == strange


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("there is no event 7", hint="see the list"),
        DeniedError("not yours", hint="ask", code="role"),
        ConflictError("decided first", hint="look", code="late"),
        StoreError("locked", hint="wait", code="store-locked"),
        InDoubtError("who knows", hint="look", code="doubt"),
        DistctlError("no", hint="", code="odd"),
    ],
)
def test_an_error_of_the_agent_is_the_same_error_at_the_client(
    client: ControlClient, desk: WrittenDesk, error: DistctlError
) -> None:
    desk.failure = error
    with pytest.raises(type(error)) as caught:
        client.status()
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint, caught.value.code) == (error.message, error.hint, error.code)


def test_a_configuration_error_keeps_its_place(client: ControlClient, desk: WrittenDesk) -> None:
    desk.failure = ConfigError("unknown key", file="flows/a.yaml", line=3, column=5)
    with pytest.raises(ConfigError, match=r"flows/a\.yaml:3:5"):
        client.reload()


def test_a_defect_of_the_agent_is_a_problem_without_its_traceback(
    client: ControlClient, desk: WrittenDesk, path: Path
) -> None:
    desk.failure = ZeroDivisionError("secret detail")
    with pytest.raises(DistctlError, match="ZeroDivisionError") as caught:
        client.status()
    assert "secret" not in str(caught.value)
    desk.failure = None
    assert client.status().site == "dc-north"


def test_errors_are_problem_documents(path: Path, desk: WrittenDesk) -> None:
    desk.failure = NotFoundError("there is no event 7", hint="see the list", code="no-event")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as http:
        answer = http.get("/v1/events/7")
        unknown = http.get("/v1/nothing")
        invalid = http.get("/v1/events", params={"limit": "0"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:distctl:problem:no-event",
        "title": "no-event",
        "status": 404,
        "detail": "there is no event 7",
        "code": "no-event",
        "hint": "see the list",
        "exit_code": 3,
        "place": "",
    }
    assert (unknown.status_code, unknown.json()["exit_code"]) == (404, 3)
    assert (invalid.status_code, invalid.json()["place"], invalid.json()["exit_code"]) == (422, "limit", 2)


def test_the_api_describes_itself(path: Path) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as http:
        described = http.get("/openapi.json").json()
    assert {"/v1/status", "/v1/events/{event}", "/v1/estate/reload", "/health", "/metrics"} <= set(described["paths"])


def test_an_unhealthy_agent_answers_503_with_its_troubles(path: Path, desk: WrittenDesk, client: ControlClient) -> None:
    desk.conditions = [Condition(name="trouble", count=1, text="the relay restarts again and again")]
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as http:
        assert http.get("/health").status_code == 503
    assert client.health().troubles == ["the relay restarts again and again"]
    assert "distctl_up 1.0" in client.metrics()


def test_no_agent_is_said_so_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConnectedError, match="Is the agent running") as caught:
        ControlClient(tmp_path / "agent.sock").status()
    assert caught.value.exit_code == 7


def test_a_socket_left_by_a_dead_agent_is_replaced(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / "control" / "agent.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NotConnectedError, match="no agent answers"):
        ControlClient(path).status()
    with served(desk, path):
        assert ControlClient(path).status().site == "dc-north"


def test_a_second_agent_does_not_take_the_socket_of_the_first(path: Path, desk: WrittenDesk) -> None:
    with pytest.raises(ConflictError, match="already answers"):
        ControlServer(desk, path, open_gate())
    assert ControlClient(path).status().site == "dc-north"


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="in the way"):
        ControlServer(desk, path, open_gate())
    assert path.read_text() == "mine"


def test_a_path_longer_than_a_socket_may_have_works(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / ("long-" * 25) / "control" / "agent.sock"
    with served(desk, path):
        assert ControlClient(path).status().site == "dc-north"
    assert not path.exists()


def test_the_signals_stay_with_the_runtime(tmp_path: Path, desk: WrittenDesk) -> None:
    async def serve() -> object:
        stop = asyncio.Event()
        server = ControlServer(desk, tmp_path / "agent.sock", open_gate())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(stop))
            await asyncio.to_thread(ControlClient(tmp_path / "agent.sock").status)
            during = signal.getsignal(signal.SIGTERM)
            stop.set()
        return during

    before = signal.getsignal(signal.SIGTERM)
    assert asyncio.run(serve()) is before


def test_a_cancelled_server_lets_go_of_its_socket(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / "agent.sock"

    async def serve() -> None:
        serving = asyncio.create_task(ControlServer(desk, path, open_gate()).serve(asyncio.Event()))
        await asyncio.to_thread(ControlClient(path).status)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(serve())
    assert not path.exists()


def test_a_server_that_ended_can_be_run_again(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / "agent.sock"
    server = ControlServer(desk, path, open_gate())

    async def serve_and_ask() -> Status:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(stop))
            await asyncio.sleep(0)  # the second time the socket is made when the task begins
            answer = await asyncio.to_thread(ControlClient(path).status)
            stop.set()
        return answer

    assert asyncio.run(serve_and_ask()) == asyncio.run(serve_and_ask())


def test_callers_before_the_loop_runs_wait_and_are_answered(tmp_path: Path, desk: WrittenDesk) -> None:
    path = tmp_path / "agent.sock"
    server = ControlServer(desk, path, open_gate())
    answers: list[Status] = []
    asking = threading.Thread(target=lambda: answers.append(ControlClient(path).status()))
    asking.start()

    async def serve() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(server.serve(stop))
        await asyncio.to_thread(asking.join)
        stop.set()
        await serving

    asyncio.run(serve())
    assert answers[0].site == "dc-north"


def test_what_a_newer_agent_says_is_kept() -> None:
    newer = {"as_of": NOW.isoformat(), "site": "dc", "environment": "test", "ok": True, "troubles": [], "mood": "calm"}
    assert Health.model_validate(newer).model_dump(mode="json")["mood"] == "calm"


@contextmanager
def answering(path: Path, *pieces: bytes, every: float = 0.0) -> Iterator[Path]:
    """A socket at `path` that answers one caller with these pieces, so many seconds apart, whatever was asked."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(every)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n"


def test_an_agent_that_trickles_its_answer_meets_the_deadline_of_the_whole_call(tmp_path: Path) -> None:
    with answering(tmp_path / "slow.sock", HEAD, *[b" "] * 20, every=0.05) as path:
        started = time.monotonic()
        with pytest.raises(NotConnectedError, match="too long"):
            ControlClient(path, deadline=0.3).status()
        assert time.monotonic() - started < 0.8


def test_an_answer_that_breaks_off_is_no_answer(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "cut.sock", HEAD, b'{"as_of": ') as path,
        pytest.raises(NotConnectedError, match="did not answer"),
    ):
        ControlClient(path).status()


def test_a_change_without_an_answer_is_in_doubt_and_a_question_is_not(tmp_path: Path) -> None:
    with answering(tmp_path / "change.sock") as path, pytest.raises(InDoubtError, match="did not answer"):
        ControlClient(path).reload()
    with answering(tmp_path / "question.sock") as path, pytest.raises(NotConnectedError, match="did not answer"):
        ControlClient(path).status()
    with pytest.raises(NotConnectedError, match="no agent answers"):
        ControlClient(tmp_path / "nobody.sock").reload()


def test_the_audit_may_take_longer_to_verify_than_other_answers(tmp_path: Path) -> None:
    @dataclass(slots=True, kw_only=True)
    class SlowDesk(WrittenDesk):
        async def audit_verdict(self, *, of: str | None = None) -> AuditVerdict:
            await asyncio.sleep(0.4)
            return await WrittenDesk.audit_verdict(self, of=of)

    with served(SlowDesk(), tmp_path / "agent.sock") as path:
        assert ControlClient(path, deadline=0.2).audit_verdict().ok
