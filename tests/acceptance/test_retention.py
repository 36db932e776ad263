"""Retention as people meet it: an agent that is backed up lets old things go, and reads none of them again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.agent_process import (
    AgentProcess,
    EstateFolder,
    Partner,
    Planner,
    open_partner,
    taken,
    to_erp,
    until,
)

_SIXTY_DAYS = 60 * 86_400_000


@pytest.fixture
def partner() -> Iterator[Partner]:
    with open_partner() as partner:
        yield partner


@pytest.mark.slow
def test_what_is_old_and_backed_up_goes_and_is_not_delivered_again(tmp_path: Path, partner: Partner) -> None:
    estate = EstateFolder(tmp_path / "estate")
    estate.add_erp("erp", partner.url, memory={"key_lifetime": "1h"})
    estate.add_flow("reco", to_erp("erp", probe=False))
    estate.write()
    planner = Planner(estate.folder / "planning")
    with AgentProcess(estate.folder, tmp_path / "data") as agent:
        agent.run()
        planner.publish("R-1", "R-2")
        planner.publish("R-1", "R-1", "R-2")
        until(lambda: agent.client.status().events == 10, "everything is delivered, and the outcomes are noted")
        assert agent.client.status().let_go == 0
        agent.stop()
        _make_older(agent.store)
        agent.run()
        agent.client.back_up(tmp_path / "backups")
        agent.stop()
        files = _forget_the_ledger(agent.store)
        agent.run()
        until(lambda: agent.client.status().let_go == 6, "it lets go")
        [entry] = [one for one in agent.client.audit().items if one.action == "let go"]
        assert entry.reason.endswith("the rule of retention")
        _put_in_again(estate.folder / "planning")
        until(lambda: _ledger(agent) == files, "the files are read again")
        agent.settle()
        assert agent.client.status().events == 10
        assert taken(partner) == planner.published
        assert agent.client.audit_verdict().ok
        assert agent.stop() == 0


def _make_older(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE events SET recorded_at = recorded_at - ?", (_SIXTY_DAYS,))
        connection.execute("UPDATE deliveries SET settled_at = settled_at - ?", (_SIXTY_DAYS,))


def _forget_the_ledger(store: Path) -> int:
    """As if the source had lost its memory, so that only the ids tell."""
    with closing(sqlite3.connect(store)) as connection, connection:
        return connection.execute("DELETE FROM source_memory").rowcount


def _ledger(agent: AgentProcess) -> int:
    return int(agent.rows("SELECT count(*) FROM source_memory")[0][0])


def _put_in_again(folder: Path) -> None:
    for file in list((folder / "archive").rglob("*.csv")):
        back = file.rename(folder / file.name)
        back.with_name(f"{back.name}.done").touch()
