"""What all tests share: the tally of what was tried, told at the end of the run."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

_TALLY = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Counter()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts behind a & ignore it


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Counter[str]:
    """How many of each kind were tried, such as `bad-input files, csv`; add to it and the summary tells."""
    return pytestconfig.stash[_TALLY]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the suite hands its tally to the one that tells it."""
    tally: Counter[str] = session.config.stash[_TALLY]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(tally)


def pytest_testnodedown(node: Any) -> None:
    """`node` is a controller of pytest-xdist, which has no types."""
    tally: Counter[str] = node.config.stash[_TALLY]
    tally.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[_TALLY]
    if tally:
        terminalreporter.section("tried")
        for kind, count in sorted(tally.items()):
            terminalreporter.line(f"{count:>8,}  {kind}")
