"""What the agent says about itself: JSON logs, Prometheus metrics and the service manager's notifications.

Metric names follow https://prometheus.io/docs/practices/naming/. The counters here count what this process did; the store's
figures are `agent.control.gauges`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from prometheus_client import CollectorRegistry, Counter, generate_latest

from state.model.visible import visible

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever the call added."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with text from outside made visible."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": visible(record.getMessage()),
        }
        entry.update({name: value for name, value in record.__dict__.items() if name not in _OWN})
        if record.exc_info:
            entry["traceback"] = _visible_lines(self.formatException(record.exc_info))
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """For people at a terminal: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with text from outside made visible."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        text = f"{moment} {record.levelname.lower():<7} {visible(record.getMessage())}"
        return f"{text}\n{_visible_lines(self.formatException(record.exc_info))}" if record.exc_info else text


def _visible_lines(text: str) -> str:
    """A traceback repeats texts from outside; its line ends are ours."""
    return "\n".join(map(visible, text.split("\n")))


def start_logging(form: Literal["json", "text"], *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send our log to `stream`, standard error by default. Libraries speak up from WARNING."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("distctl").setLevel(level)


class Telemetry:
    """The metrics of one agent."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.records = self._counter("distctl_records", "Records read from sources", "flow", "result")
        self.settled = self._counter("distctl_deliveries_settled", "Deliveries that their target has", "target")
        self.parked = self._counter("distctl_deliveries_parked", "Deliveries set aside as dead letters", "target")
        self.let_go = self._counter("distctl_events_let_go", "Events that the rule of retention let go")
        self.reloads = self._counter("distctl_estate_reloads", "Edits of the estate", "result")

    def expose(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)


def notify_service_manager(state: str) -> bool:
    """Tell systemd how the service stands (`READY=1`, `STOPPING=1`, `WATCHDOG=1`). Answers whether anybody listens.

    Source: sd_notify(3). A socket name that begins with @ is abstract.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        try:
            line.connect(path)
            line.sendall(state.encode())
        except OSError:
            return False
    return True


def watchdog_seconds() -> float | None:
    """How often systemd expects `WATCHDOG=1`: half of WATCHDOG_USEC; None where it does not watch this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
