"""Mistakes in the people of an estate are named at their line and column, with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.estate.check import check
from agent.estate.findings import Finding, Severity
from tests.daemon.test_estate_check import ESTATE, FILES

ADA = "  ada: {name: Ada Byron, uids: {dc-north: 1001}, roles: [{role: operator, sites: [dc-north]}]}\n"


def findings(folder: Path, people: str) -> list[Finding]:
    """What `check` says of the estate with these lines below `people:`."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "estate.yaml").write_text(f"{ESTATE}people:\n{people}")
    return check(folder)


def test_people_who_are_right_are_no_finding(tmp_path: Path) -> None:
    assert findings(tmp_path, ADA + "  bo: {name: Bo, roles: [{role: viewer}]}\n") == []


@pytest.mark.parametrize(
    ("people", "code", "hint"),
    [  # § stands before the mistake
        ("  ada: {name: A, uids: {§dc-nort: 1}, roles: [{role: viewer}]}\n", "unknown-site", "dc-north?"),
        ("  ada: {name: A, roles: [{role: viewer, sites: [§dc-sout]}]}\n", "unknown-site", "dc-north"),
        ("  ada: {name: A, roles: [{role: §operatr}]}\n", "unknown-word", "did you mean operator?"),
        ("  ada: {name: A, roles: [{§rolle: admin, role: admin}]}\n", "unknown-key", "did you mean role?"),
        (ADA + "  bo: {name: B, uids: {dc-north: §1001}, roles: [{role: viewer}]}\n", "shared-account", "their own"),
        ("  ada: {name: A, uids: {dc-north: §0}, roles: [{role: viewer}]}\n", "bad-value", ""),
        ("  ada: {name: A, uids: {dc-north: §65534}, roles: [{role: viewer}]}\n", "nobodys-account", "own"),
        ("  §root: {name: A, roles: [{role: viewer}]}\n", "reserved-name", "another name"),
        ("  §Ada: {name: A, roles: [{role: viewer}]}\n", "bad-name", "lower-case"),
        ("  ada: {name: A, roles: §[]}\n", "bad-value", ""),
        ("  ada: {name: A, roles: [{role: viewer, sites: §[]}]}\n", "bad-value", ""),
    ],
)
def test_a_mistake_is_named_at_its_place(tmp_path: Path, people: str, code: str, hint: str) -> None:
    [found] = findings(tmp_path, people.replace("§", ""))
    *above, line = people.partition("§")[0].split("\n")
    first = ESTATE.count("\n") + 2
    assert (found.line, found.column, found.code) == (first + len(above), len(line) + 1, code)
    assert hint in found.hint


def test_a_hub_at_which_nobody_has_an_account_is_warned_of(tmp_path: Path) -> None:
    hub = "hub: {site: dc-north, url: 'https://hub.example:7443'}\n"
    assert findings(tmp_path, f"{ADA}{hub}") == []
    [found] = findings(tmp_path, f"  bo: {{name: Bo, roles: [{{role: operator}}]}}\n{hub}")
    assert (found.code, found.severity, found.line) == ("nobody-at-the-hub", Severity.WARNING, ESTATE.count("\n") + 1)
    assert "uids: {dc-north: UID}" in found.hint


def test_an_account_is_shared_only_at_one_site(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "dc-south.yaml").write_text("site: dc-south\nsystems: {wms: {connector: files}}\n")
    assert findings(tmp_path, f"{ADA}  bo: {{name: B, uids: {{dc-south: 1001}}, roles: [{{role: viewer}}]}}\n") == []


def test_a_site_whose_file_cannot_be_read_is_not_called_unknown(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "dc-south.yaml").write_text("site: dc-south\nsystms: {}\n")
    codes = {one.code for one in findings(tmp_path, "  ada: {name: A, roles: [{role: viewer, sites: [dc-south]}]}\n")}
    assert "unknown-site" not in codes


def test_what_a_site_forbids_is_a_known_word(tmp_path: Path) -> None:
    assert findings(tmp_path, ADA) == []
    path = tmp_path / "sites" / "dc-north.yaml"
    path.write_text(path.read_text() + "forbids: [read-payload]\n")
    [found] = check(tmp_path)
    assert (found.code, found.hint) == ("unknown-word", "did you mean read-payloads?")
