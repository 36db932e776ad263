"""Who may do what with a real agent: accounts and tokens, at the command line, with exit codes and the audit as evidence."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from console.exit_codes import ExitCode
from tests.acceptance.agent_process import AgentProcess, EstateFolder, to_folder, until
from tests.acceptance.test_cli import Answer, distctl

GROUP, ADA, STRANGER = 47_110, 47_111, 47_112
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
SETTINGS = {"name": "acme", "environment": "test", "currency": "EUR"}
# Another account to whoever asks the kernel (SO_PEERCRED), and still able to read a Python in root's home (setfsuid(2)).
AS_ACCOUNT = "import ctypes, os, sys; os.setegid({gid}); os.seteuid({uid}); ctypes.CDLL(None).setfsuid(0);"
DISTCTL = "from console.cli.app import main; main(sys.argv[1:])"
HEALTH = """
from pathlib import Path
from agent.control.client import ControlClient
print(ControlClient(Path(sys.argv[1])).health().ok)
"""
ADAS_ROLES = [{"role": "operator", "sites": ["north"]}, {"role": "admin"}]
PEOPLE: dict[str, dict[str, object]] = {
    "ada": {"name": "Ada Byron", "uids": {"north": ADA}, "roles": ADAS_ROLES},
    "bo": {"name": "Bo", "roles": [{"role": "viewer"}]},
}


def python(code: str, *arguments: str, uid: int, environment: Mapping[str, str] = os.environ) -> Answer:
    """Run `code` as another account."""
    command = [sys.executable, "-c", AS_ACCOUNT.format(uid=uid, gid=GROUP) + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return Answer(done.returncode, done.stdout, done.stderr)


class Site:
    """A running agent of an estate with people, whose socket the members of a group may open."""

    def __init__(self, folder: Path) -> None:
        self.estate = EstateFolder(folder / "estate")
        self.estate.add_folder("erp")
        self.estate.add_flow("reco", to_folder("erp"))
        self.estate.write()
        self.declare(PEOPLE)
        self.agent = AgentProcess(folder / "estate", folder / "data")
        control = folder / "data" / "control"
        control.mkdir(parents=True, mode=0o750)
        if os.geteuid() == 0:
            for path in (folder / "data", control):
                os.chown(path, -1, GROUP)
                path.chmod(0o750)

    def declare(self, people: object) -> None:
        """Write these people into the estate."""
        self.estate.put("estate.yaml", json.dumps({**SETTINGS, "people": people}))

    def distctl(self, *arguments: str, uid: int | None = None, token: str = "") -> Answer:
        """Run a command by a token, or as another account: then as a process of its own."""
        arguments = ("--data", str(self.agent.data), *arguments)
        if uid is not None:
            return python(DISTCTL, *arguments, uid=uid, environment={**os.environ, "DISTCTL_TOKEN": token})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISTCTL_TOKEN", token)
            return distctl(*arguments)

    def make_token(self, name: str, *roles: str, person: str = "ada", expires: str = "90d") -> str:
        wanted = [word for role in roles for word in ("--role", role)]
        answer = self.distctl("token", "create", name, "--person", person, "--expires", expires, *wanted)
        assert answer.returncode == ExitCode.DONE, answer.stderr
        return answer.stdout.strip()

    def audit(self) -> list[tuple[str, str, str]]:
        """(actor, action, target) of every entry, oldest first."""
        rows = json.loads(self.distctl("audit", "list", "-o", "json").stdout)
        return [(row["actor"], row["action"], row["target"]) for row in reversed(rows)]


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # that of pytest is closed to other accounts
        made = Site(folder)
        with made.agent:
            made.agent.run()
            yield made
            assert made.agent.stop() == 0
        assert "Traceback" not in made.agent.log()


def test_a_token_asks_as_its_person_until_it_is_revoked(site: Site) -> None:
    token = site.make_token("ci", "operator")
    assert site.distctl("status", token=token).returncode == ExitCode.DONE
    denied = site.distctl("token", "list", token=token)
    assert (denied.returncode, denied.stdout) == (ExitCode.DENIED, "")
    assert denied.stderr == (
        "distctl: ada by the token ci (operator) may not administer at north. "
        "it takes the role admin at north, which ada has and this token has not: make one that has it\n"
    )
    assert site.distctl("agent", "resume", "--reason", "x", token=token).returncode == ExitCode.CONFLICT
    assert site.distctl("token", "revoke", "ci", "--reason", "it leaked").returncode == ExitCode.DONE
    revoked = site.distctl("status", token=token)
    assert revoked.returncode == ExitCode.DENIED
    assert "the token ci was revoked at 20" in revoked.stderr
    assert "leaked" not in revoked.stderr
    assert site.audit()[1:] == [
        ("root" if os.geteuid() == 0 else site.audit()[1][0], "create", "token ci"),
        ("ada/ci", "refuse", "GET /v1/tokens"),
        (site.audit()[1][0], "revoke", "token ci"),
        ("ada/ci", "refuse", "GET /v1/status"),
    ]


def test_a_token_is_shown_once_and_is_in_no_file_of_the_agent(site: Site) -> None:
    token = site.make_token("ci", "operator", "admin")
    assert token.startswith("distctl_")
    listed = site.distctl("token", "list", "-o", "json")
    [row] = json.loads(listed.stdout)
    assert (row["name"], row["person"], row["roles"], row["sites"]) == ("ci", "ada", ["admin", "operator"], ["north"])
    assert site.distctl("token", "list", token=token).stdout.splitlines()[1].startswith("ci    ada     valid")
    said = site.distctl("token", "list", "--all").stdout + site.distctl("audit", "list", "-o", "json").stdout
    assert token not in said + site.agent.log()
    assert all(token.encode() not in path.read_bytes() for path in site.agent.data.glob("distctl.db*"))


def test_a_token_loses_what_its_person_loses_at_the_next_edit(site: Site) -> None:
    token = site.make_token("ci", "operator")
    site.declare({**PEOPLE, "ada": {"name": "Ada", "roles": [{"role": "viewer"}]}})
    until(lambda: site.distctl("status", token=token).returncode == ExitCode.DENIED, "the role is lost")
    assert (
        "ada by the token ci (without a role at north) may not read at north"
        in site.distctl("status", token=token).stderr
    )
    site.declare({"bo": PEOPLE["bo"]})
    until(lambda: "no longer names" in site.distctl("status", token=token).stderr, "the person is gone")


def test_a_token_file_and_the_environment_are_both_taken_and_the_file_first(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(site.make_token("ci", "operator") + "\n")
    assert site.distctl("status", "--token-file", str(path), token="nonsense").returncode == ExitCode.DONE
    assert site.distctl("status", token="nonsense").returncode == ExitCode.DENIED
    path.write_bytes(b"\xff\x00binary")
    assert "what was given is no token" in site.distctl("--token-file", str(path), "status").stderr
    path.write_text("\n")
    empty = site.distctl("--token-file", str(path), "status")
    assert (empty.returncode, f"{path} is empty" in empty.stderr) == (ExitCode.USAGE, True)
    missing = site.distctl("status", "--token-file", str(tmp_path / "none"))
    assert missing.returncode == ExitCode.USAGE
    assert "none cannot be read: No such file" in missing.stderr


def test_a_token_that_ran_out_says_until_when_it_held(site: Site) -> None:
    token = site.make_token("ci", "operator", expires="1m")
    assert site.agent.stop() == 0
    with sqlite3.connect(site.agent.store) as store:
        store.execute("UPDATE tokens SET created_at = created_at - 120000, expires_at = expires_at - 120000")
    store.close()
    site.agent.run()
    for _ in range(3):
        denied = site.distctl("status", token=token)
        assert denied.returncode == ExitCode.DENIED
        assert "the token ci held until 20" in denied.stderr
    assert [entry for entry in site.audit() if entry[1] == "refuse"] == [("ada/ci", "refuse", "GET /v1/status")]


def test_a_guess_is_refused_as_one_entry_however_often_it_is_made(site: Site) -> None:
    for number in range(5):
        denied = site.distctl("status", token=f"distctl_{str(number) * 43}")
        assert denied.returncode == ExitCode.DENIED
        assert "knows no such token" in denied.stderr
    assert len([entry for entry in site.audit() if entry[1] == "refuse"]) == 1


@AS_ROOT
def test_an_account_is_the_person_that_the_estate_says(site: Site) -> None:
    assert (
        site.distctl(
            "token", "create", "ci", "--person", "bo", "--role", "viewer", "--expires", "1d", uid=ADA
        ).returncode
        == 0
    )
    denied = site.distctl("events", "1", uid=ADA)
    assert denied.returncode == ExitCode.NOT_FOUND  # an operator reads payloads
    assert ("ada", "create", "token ci") in site.audit()


@AS_ROOT
def test_a_stranger_sees_the_health_and_nothing_else(site: Site) -> None:
    for command in (["status"], ["flows"], ["audit", "list"], ["events", "1"], ["token", "list"], ["dlq", "list"]):
        denied = site.distctl(*command, uid=STRANGER)
        assert (denied.returncode, denied.stdout) == (ExitCode.DENIED, ""), command
        assert f"uid {STRANGER} is nobody whom the estate names, and may not" in denied.stderr
    health = python(HEALTH, str(site.agent.client.path), uid=STRANGER)
    assert (health.stdout, health.stderr) == ("True\n", "")
    refused = [entry for entry in site.audit() if entry[1] == "refuse"]
    assert {actor for actor, _, _ in refused} == {f"uid {STRANGER}"}
    assert len(refused) == 3  # read, read payloads, administer: the same refusal of the same caller is one entry


@AS_ROOT
def test_a_stranger_with_a_token_is_its_person(site: Site) -> None:
    token = site.make_token("laptop", "viewer", person="bo")
    assert site.distctl("status", uid=STRANGER, token=token).returncode == ExitCode.DONE
    denied = site.distctl("events", "1", uid=STRANGER, token=token)
    assert denied.returncode == ExitCode.DENIED
    assert "bo by the token laptop (viewer) may not read payloads at north" in denied.stderr


@AS_ROOT
def test_root_makes_no_token_that_approves_and_a_token_makes_none(site: Site) -> None:
    roles = [*ADAS_ROLES, {"role": "approver"}]
    site.declare({**PEOPLE, "ada": {**PEOPLE["ada"], "roles": roles}})
    wish = ("token", "create", "a", "--person", "ada", "--role", "approver", "--expires", "1d")
    until(lambda: site.distctl(*wish).returncode == ExitCode.DENIED, "the estate is in force")
    assert "root approves nothing, and makes no token that does" in site.distctl(*wish).stderr
    assert site.distctl(*wish, uid=ADA).returncode == ExitCode.DONE
    admin = site.make_token("b", "admin")
    by_token = site.distctl(
        "token", "create", "c", "--person", "ada", "--role", "viewer", "--expires", "1d", token=admin
    )
    assert (by_token.returncode, "the token b makes no other tokens" in by_token.stderr) == (ExitCode.DENIED, True)
    assert site.distctl("token", "revoke", "a", "--reason", "test", token=admin).returncode == ExitCode.DONE
