"""Three agents as processes hold each other's audits: one that was cut back shows, and a restored hub hears what was decided."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agent_process import open_partner, until
from tests.acceptance.test_estatewide import SITES, Whole

pytestmark = pytest.mark.slow


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    for name in ("planning", "wms", "data", "backups"):
        (tmp_path / name).mkdir()
    with open_partner() as erp, ExitStack() as stack:
        whole = Whole(tmp_path, erp)
        for site in SITES:
            name_second(tmp_path / "estates" / site / "estate.yaml", "south")
            stack.enter_context(whole.agent(site))
        whole.agents["hq"].run()
        for site in ("north", "south"):
            whole.enrol(site)
            whole.agents[site].run()
        yield whole


def name_second(settings: Path, second: str) -> None:
    """Name the hub's second agent."""
    written = json.loads(settings.read_text())
    written["hub"]["second"] = second
    settings.write_text(json.dumps(written))


def asked(whole: Whole, *words: str, data: str) -> Any:
    """What a command answers that has to succeed."""
    answer = whole.distctl(*words, "-o", "json", data=data)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def has_copied(whole: Whole, keeper: str, site: str) -> Callable[[], bool]:
    """Whether one agent has a copy of all that is in the audit of another."""

    def claim() -> bool:
        copy = whole.distctl("audit", "verify", "--of", site, "-o", "json", data=keeper)
        own = asked(whole, "audit", "verify", data=site)
        return copy.returncode == 0 and json.loads(copy.stdout)["head"] == own["head"]

    return claim


def says_of_audits(whole: Whole, site: str) -> list[str]:
    """What the status of an agent says of audits."""
    return [one["text"] for one in asked(whole, "status", data=site)["audits"]]


def in_the_store(store: Path, script: str) -> None:
    """What somebody does who has the file and a shell."""
    subprocess.run(["sqlite3", str(store), script], check=True, capture_output=True)


def test_an_audit_that_was_cut_back_shows_at_the_next_exchange_at_both_ends(whole: Whole) -> None:
    for _ in range(2):
        asked(whole, "backup", str(whole.folder / "backups"), data="north")
    until(has_copied(whole, "hq", "north"), "the hub has a copy")
    entries = asked(whole, "audit", "verify", data="north")["entries"]
    north = whole.agents["north"]
    north.stop()
    [triggers] = north.rows(
        "SELECT group_concat(sql, ';'||char(10)) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'"
    )
    in_the_store(
        north.store,
        f"""DROP TRIGGER audit_refuses_delete; DROP TRIGGER audit_refuses_update; DROP TRIGGER audit_continues_the_chain;
        DELETE FROM audit WHERE seq > {entries - 2}; UPDATE sqlite_sequence SET seq = {entries - 2} WHERE name = 'audit';
        {triggers[0]};""",
    )
    north.run()
    told = f"the audit of north was cut back: it ended at entry {entries}, now at {entries - 2}"
    until(lambda: says_of_audits(whole, "hq") == [told], "the hub says so")
    until(lambda: any("this audit was cut back" in one for one in says_of_audits(whole, "north")), "and the site")
    row = whole.row("north")
    assert (row["state"], row["reason"]) == ("open", told)
    assert "distctl audit list --lost --of north" in row["to_do"]
    assert "distctl_audit_findings 1.0" in whole.agents["hq"].client.metrics()
    assert whole.distctl("status", "--fail-on", "audit", data="hq").returncode == 9
    assert whole.distctl("audit", "verify", data="north").returncode == 9
    lost = asked(whole, "audit", "list", "--lost", "--of", "north", data="hq")
    assert [one["seq"] for one in lost] == [entries, entries - 1]
    whole.publish("R-1")
    until(whole.arrived, "events go on")
    for site in ("hq", "north"):
        done = whole.distctl("audit", "acknowledge", "north", "--reason", "it was a drill", data=site)
        assert done.returncode == 0, done.stderr
        assert says_of_audits(whole, site) == []
    assert whole.distctl("audit", "verify", data="north").returncode == 0
    assert whole.row("north")["reason"] == ""


def test_a_restored_hub_hears_from_its_second_agent_what_people_decided_and_whom_they_keep_out(whole: Whole) -> None:
    made = asked(whole, "backup", str(whole.folder / "backups"), data="hq")
    denied = whole.distctl("agents", "deny", "north", "--reason", "stolen", data="hq")
    assert denied.returncode == 0, denied.stderr
    asked(whole, "agents", "invite", "south", data="hq")
    until(has_copied(whole, "south", "hq"), "the second agent has a copy")
    hub = whole.agents["hq"]
    hub.kill()
    restored = whole.distctl("restore", made["path"], "--replace", "--reason", "the disk died", data="hq")
    assert restored.returncode == 0, restored.stderr
    hub.start()
    until(lambda: whole.distctl("status", data="hq").returncode == 0, "the hub answers")
    until(lambda: whole.row("north")["state"] == "denied", "the denial is in force again", seconds=120)
    assert whole.row("north")["reason"] == "stolen"
    until(
        lambda: says_of_audits(whole, "hq") == ["2 decisions of people are not in this store"],
        "and what was decided is said",
    )
    lost = asked(whole, "audit", "list", "--lost", data="hq")
    assert {("invite", "agent south"), ("deny", "agent north")} <= {(one["action"], one["target"]) for one in lost}
    [again] = [one for one in asked(whole, "audit", "list", data="hq") if one["action"] == "deny"]
    assert (again["actor"], again["target"]) == ("agent", "agent north")
    assert "stolen" in again["reason"]
    assert asked(whole, "audit", "verify", data="hq")["ok"]
    done = whole.distctl("audit", "acknowledge", "hq", "--reason", "invited anew", data="hq")
    assert done.returncode == 0, done.stderr
    assert says_of_audits(whole, "hq") == []
    north = whole.agents["north"]
    until(lambda: any("stolen" in one for one in north.client.health().troubles), "the site is kept out", seconds=120)
