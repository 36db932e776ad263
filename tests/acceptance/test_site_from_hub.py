"""A site asked from its hub: what people there see and do, what the site forbids, and what they hear when it dies meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from console.exit_codes import ExitCode
from tests.acceptance.agent_process import COLUMNS, AgentProcess, open_partner, until
from tests.acceptance.test_estatewide import SITES, Whole
from tests.acceptance.test_roles import AS_ROOT, DISTCTL, python

pytestmark = pytest.mark.slow

ADA, BO = 47_111, 47_112
PEOPLE = {
    "ada": {
        "name": "Ada",
        "uids": {"hq": ADA},
        "roles": [{"role": "operator", "sites": ["hq", "south"]}, {"role": "viewer"}],
    },
    "bo": {"name": "Bo", "uids": {"hq": BO}, "roles": [{"role": "operator"}, {"role": "viewer"}]},
}


class Asked(Whole):
    """The estate of three agents, asked at the hub."""

    def at_hub(self, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """A command against the hub, by this account or by a token."""
        return self.distctl(*words, data="hq", DISTCTL_TOKEN=token)

    def begin_at_hub(self, *words: str) -> subprocess.Popen[str]:
        """A command against the hub that goes on while the test does something else."""
        return subprocess.Popen(
            [sys.executable, "-m", "console.cli.app", "--data", str(self.folder / "data" / "hq"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def of(self, site: str, *words: str) -> Any:
        """What the hub says of a site, as data."""
        answer = self.at_hub("--site", site, *words, "-o", "json")
        assert answer.returncode == ExitCode.DONE, answer.stderr
        return json.loads(answer.stdout)

    def there(self, site: str, *words: str) -> Any:
        """The same, asked at the site itself."""
        return json.loads(self.distctl(*words, "-o", "json", data=site).stdout)

    def audit_of(self, site: str, action: str) -> list[tuple[str, str]]:
        """(actor, reason) of the entries of one kind in a site's own audit, oldest first."""
        rows = self.agents[site].rows(f"SELECT actor, reason FROM audit WHERE action = '{action}' ORDER BY seq")
        return [(actor, reason) for actor, reason in rows]

    def is_there(self, site: str) -> bool:
        """Whether the hub reaches the site."""
        return self.at_hub("--site", site, "status").returncode == ExitCode.DONE

    def declare(self, people: object) -> None:
        """Write these people into the estate of every agent."""
        for site in SITES:
            path = self.folder / "estates" / site / "estate.yaml"
            path.write_text(json.dumps({**json.loads(path.read_text()), "people": people}))


@contextmanager
def running(folder: Path, people: object = None) -> Iterator[Asked]:
    """All three agents, linked."""
    for name in ("planning", "wms", "data"):
        (folder / name).mkdir()
    with open_partner() as erp, ExitStack() as stack:
        whole = Asked(folder, erp)
        if people:
            whole.declare(people)
        for site in SITES:
            stack.enter_context(whole.agent(site))
        whole.agents["hq"].run()
        for site in ("north", "south"):
            whole.enrol(site)
            whole.agents[site].run()
        for site in ("north", "south"):
            until(lambda site=site: whole.at_hub("--site", site, "agents", "list").returncode in {0, 4}, "it pulls")  # type: ignore[misc]
        yield whole


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Asked]:
    with running(tmp_path) as made:
        yield made


def restarted(agent: AgentProcess, **options: Any) -> AgentProcess:
    agent.stop()
    return agent.run(**options)


def test_a_site_is_looked_at_from_the_hub_as_it_is_at_the_site(whole: Asked) -> None:
    whole.publish("R-1")
    bad = f"{','.join(COLUMNS)}\nB-1,1,SKU-1,many,EA,2026-12-01,2026-11-23\n"
    (whole.folder / "planning" / "reco-bad.csv").write_text(bad)
    (whole.folder / "planning" / "reco-bad.csv.done").touch()
    until(whole.arrived, "both targets have it")
    until(lambda: whole.there("north", "dlq", "list"), "the bad record is set aside")
    status = whole.of("north", "status")
    assert (status["site"], status["open_dead_letters"]) == ("north", 1)
    assert set(status) == set(whole.there("north", "status"))
    for words in (
        ("dlq", "list"),
        ("dlq", "show", "1"),
        ("events",),
        ("audit", "list"),
        ("flows",),
        ("agents", "list"),
    ):
        asked, own = whole.of("north", *words), whole.there("north", *words)
        for one in (asked, own):
            one.pop("as_of", None) if isinstance(one, dict) else None
        if words != ("agents", "list"):  # which has when the hub was heard
            assert asked == own, words
    assert [step["source"] for step in whole.of("south", "trace", "R-1")["steps"]]
    assert whole.of("north", "audit", "verify")["ok"]
    missing = whole.at_hub("--site", "north", "trace", "nothing")
    assert (missing.returncode, missing.stdout) == (ExitCode.NOT_FOUND, "")
    nowhere = whole.at_hub("--site", "nort", "status")
    assert nowhere.returncode == ExitCode.NOT_FOUND
    assert "north" in nowhere.stderr
    elsewhere = whole.distctl("--site", "south", "status", data="north")
    assert elsewhere.returncode == ExitCode.USAGE
    assert "is that of site north, not of south" in elsewhere.stderr
    kept = whole.at_hub("--site", "north", "agent", "resume", "--reason", "x")
    assert kept.returncode == ExitCode.USAGE
    assert "safe mode has no link" in kept.stderr


@AS_ROOT
def test_who_operates_one_site_only_looks_at_another_and_root_is_nobody_elsewhere() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # that of pytest is closed to other accounts
        with running(folder, PEOPLE) as whole:
            data = ("--data", str(folder / "data" / "hq"))

            def ask(*words: str, uid: int = ADA) -> Any:
                return python(DISTCTL, *data, *words, uid=uid)

            assert ask("--site", "north", "status").returncode == ExitCode.DONE
            denied = ask("agents", "drain", "north", "--reason", "move")
            assert denied.returncode == ExitCode.DENIED
            assert "ada (viewer) may not operate at north" in denied.stderr
            assert ask("agents", "drain", "south", "--reason", "move").returncode == ExitCode.DONE
            assert whole.audit_of("south", "drain") == [("ada via hq", "move")]
            assert whole.audit_of("north", "drain") == []
            assert [row["actor"] for row in whole.there("south", "audit", "list", "--actor", "ada")] == ["ada via hq"]
            root = whole.at_hub("--site", "north", "status")
            assert root.returncode == ExitCode.DENIED
            assert "root is nobody whom the estate names, and may not read at north" in root.stderr
            made = whole.at_hub(
                *("token", "create", "ci", "--person", "bo", "--role", "viewer", "--expires", "1d", "--everywhere")
            )
            assert made.returncode == ExitCode.DONE, made.stderr
            token = made.stdout.strip()
            assert whole.at_hub("--site", "north", "status", token=token).returncode == ExitCode.DONE
            narrowed = whole.at_hub("agents", "drain", "north", "--reason", "move", token=token)
            assert narrowed.returncode == ExitCode.DENIED
            assert "bo by the token ci (viewer)" in narrowed.stderr
            assert ask("agents", "drain", "north", "--reason", "go", uid=BO).returncode == ExitCode.DONE
            assert whole.audit_of("north", "drain") == [("bo via hq", "go")]


def test_a_site_forbids_its_hub_to_change_and_to_read_what_events_say(whole: Asked) -> None:
    whole.publish("R-1")
    until(whole.arrived, "both targets have it")
    event = whole.of("north", "events")[0]["id"]
    assert whole.of("north", "events", event)["id"] == event
    allowed = whole.agents["north"].data / "allow.yaml"
    allowed.write_text("hub_may: {commands: false, payloads: false}\n")
    for words in (("agents", "drain", "north", "--reason", "x"), ("--site", "north", "events", event)):
        refused = whole.at_hub(*words)
        assert (refused.returncode, refused.stdout) == (ExitCode.DENIED, ""), words
        assert "north refuses: this site lets nobody at the hub" in refused.stderr
        assert str(allowed) in refused.stderr
    assert whole.of("north", "status")["site"] == "north"
    actor = whole.audit_of("north", "refuse")[0][0]
    assert actor.endswith(" via hq")
    assert whole.distctl("agents", "drain", "north", "--reason", "x", data="north").returncode == ExitCode.DONE


@pytest.mark.parametrize(("moment", "effects"), [("before", 0), ("after", 1)])
def test_a_site_that_dies_under_a_change_leaves_it_in_doubt_and_did_it_once_at_most(
    whole: Asked, moment: str, effects: int
) -> None:
    north = restarted(whole.agents["north"], crash_at=f"runtime.drain.{moment}_commit")
    until(lambda: whole.is_there("north"), "it is there")
    asking = whole.begin_at_hub("agents", "drain", "north", "--reason", "move")
    assert north.wait() == -signal.SIGKILL
    north.start()
    _, said = asking.communicate(timeout=60)
    assert asking.returncode == ExitCode.IN_DOUBT, said
    assert "distctl --site north audit list" in said
    until(lambda: whole.is_there("north"), "it is there again", seconds=90)
    assert len(whole.audit_of("north", "drain")) == effects
    assert [row["action"] for row in whole.of("north", "audit", "list")].count("drain") == effects


def test_a_site_that_is_offline_is_told_at_once_and_since_when(whole: Asked) -> None:
    whole.agents["north"].kill()

    def is_told() -> bool:
        refused = whole.at_hub("agents", "drain", "north", "--reason", "move")
        assert refused.returncode == ExitCode.UNREACHABLE
        return "the agent of north is not connected, and was last heard 20" in refused.stderr

    until(is_told, "the hub knows that it is gone", seconds=10)
    assert whole.is_there("south")


def test_a_drained_site_takes_in_nothing_more_and_owes_nothing_until_a_person_ends_it(whole: Asked) -> None:
    whole.publish("R-1")
    until(whole.arrived, "both targets have it")
    dry = whole.at_hub("agents", "drain", "north", "--reason", "move", "--dry-run")
    assert dry.returncode == ExitCode.DONE, dry.stderr
    assert "stops 1 source of north; it owes nothing" in dry.stderr
    assert whole.audit_of("north", "drain") == []
    drained = whole.at_hub("agents", "drain", "north", "--reason", "move", "--wait", "--within", "1m", "-o", "json")
    assert drained.returncode == ExitCode.DONE, drained.stderr
    assert json.loads(drained.stdout)["drain"]["state"] == "drained"
    again = whole.at_hub("agents", "drain", "north", "--reason", "move")
    assert again.returncode == ExitCode.CONFLICT
    restarted(whole.agents["north"])
    whole.publish("R-2")
    until(lambda: whole.row("north")["said"].get("drain", {}).get("state") == "drained", "the hub is told")
    shown = whole.at_hub("agents", "show", "north")
    for fact in (
        "drain state",
        "its clock is ahead by seconds",
        "certificate until",
        "disk free bytes",
        "owes deliveries",
        "software",
    ):
        assert fact in shown.stdout, fact
    assert [one["name"] for one in whole.of("north", "status")["conditions"]] == ["draining"]
    assert len(whole.of("north", "events")) == len(whole.there("north", "events"))
    assert all(row["subject"] != "R-2" for row in whole.of("north", "events"))
    whole.agents["hq"].kill()
    ended = whole.distctl("agents", "undrain", "north", "--reason", "moved", data="north")
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert "1 source of north is read again" in ended.stderr
    until(lambda: any(row["subject"] == "R-2" for row in whole.there("north", "events")), "it takes in again")
    assert len(whole.audit_of("north", "undrain")) == 1
    whole.agents["hq"].run()
    until(whole.arrived, "everything arrives", seconds=120)


def test_only_one_person_ends_a_drain(whole: Asked) -> None:
    refused = whole.at_hub("agents", "undrain", "south", "--reason", "x", "--dry-run")
    assert refused.returncode == ExitCode.CONFLICT
    assert "it does not drain" in refused.stderr
