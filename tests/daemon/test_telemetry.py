"""What the agent says about itself, line by line and to the service manager."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from agent.telemetry import Telemetry, notify_service_manager, start_logging, watchdog_seconds


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("distctl")
    before = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


def logged(form: Literal["json", "text"]) -> str:
    stream = io.StringIO()
    start_logging(form, stream=stream)
    try:
        raise ValueError("inner\x1b[31m")
    except ValueError:
        logging.getLogger("distctl.relay").exception("lost \x1b[31m%s", "PO-1", extra={"code": "odd"})
    logging.getLogger("httpx").info("a library's chatter")
    return stream.getvalue()


def test_a_line_of_the_log_is_one_json_object_with_what_the_call_added() -> None:
    [line] = logged("json").splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["code"]) == ("error", "distctl.relay", "odd")
    assert entry["time"].endswith("+00:00")
    assert "ValueError: inner" in entry["traceback"]
    assert "\x1b" not in entry["message"] + entry["traceback"]


def test_people_get_text_without_the_escapes_of_others() -> None:
    text = logged("text")
    assert "PO-1" in text
    assert "\x1b" not in text


def test_counters_are_exposed_by_their_labels() -> None:
    telemetry = Telemetry()
    telemetry.settled.labels("dc/erp").inc(3)
    assert b'distctl_deliveries_settled_total{target="dc/erp"} 3.0' in telemetry.expose()


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_hears_how_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    name = f"@distctl-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify_service_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_nobody_listens_and_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_service_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify_service_manager("READY=1")


@pytest.mark.parametrize(
    ("usec", "whose", "seconds"),
    [
        ("30000000", "nobody's", 15.0),
        ("30000000", "ours", 15.0),
        ("30000000", "another's", None),
        ("", "nobody's", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, usec: str, whose: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", {"nobody's": "", "ours": str(os.getpid()), "another's": "1"}[whose])
    assert watchdog_seconds() == seconds
