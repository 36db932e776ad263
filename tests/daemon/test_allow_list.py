"""What a site's own people let the hub do there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.allow_list import AllowList
from state.model.errors import DeniedError

REQUIRED: dict[str, Callable[[AllowList], None]] = {
    "estates": AllowList.require_estates,
    "connectors": lambda allowed: allowed.require_connectors(["files"]),
    "commands": AllowList.require_commands,
    "payloads": AllowList.require_payloads,
}


def denied(allowed: AllowList) -> set[str]:
    """What is not allowed."""
    found = set()
    for name, require in REQUIRED.items():
        try:
            require(allowed)
        except DeniedError:
            found.add(name)
    return found


def written(folder: Path, text: str) -> AllowList:
    (folder / "allow.yaml").write_text(text)
    return AllowList.read(folder)


def test_without_a_file_everything_is_allowed(tmp_path: Path) -> None:
    assert denied(AllowList.read(tmp_path)) == set()


@pytest.mark.parametrize("name", ["estates", "commands", "payloads"])
def test_what_the_file_denies_is_denied_and_nothing_else(tmp_path: Path, name: str) -> None:
    assert denied(written(tmp_path, f"hub_may:\n  {name}: false\n")) == {name}


def test_connectors_that_are_not_named_are_denied_by_name(tmp_path: Path) -> None:
    allowed = written(tmp_path, "hub_may:\n  connectors: [files]\n")
    allowed.require_connectors(["files", "files"])
    with pytest.raises(DeniedError, match=r"use http, sql here.*allow.yaml"):
        allowed.require_connectors(["sql", "files", "http"])


def test_an_edit_holds_when_it_is_read_next(tmp_path: Path) -> None:
    assert denied(written(tmp_path, "hub_may:\n  commands: false\n")) == {"commands"}
    assert denied(written(tmp_path, "hub_may:\n  commands: true\n")) == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hub_may:\n  comands: false\n", r"allow.yaml:2:3: 'comands' is not known here. did you mean commands\?"),
        ("hub_may:\n  estates: perhaps\n", r"allow.yaml:2:12: estates: .* boolean"),
        ("hub_may: {connectors: files}\n", "allow.yaml:1:23: connectors: "),
        ("hub_may: [\n", "allow.yaml:2"),
        ("hub: {}\n", "allow.yaml:1"),
        ("", "allow.yaml"),
    ],
    ids=["unknown key", "no boolean", "no list", "no YAML", "another file", "empty"],
)
def test_a_file_that_nobody_understands_allows_nothing_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    allowed = written(tmp_path, text)
    assert denied(allowed) == set(REQUIRED)
    with pytest.raises(DeniedError, match=said):
        allowed.require_commands()


def test_a_file_that_cannot_be_read_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "allow.yaml").mkdir()
    allowed = AllowList.read(tmp_path)
    assert denied(allowed) == set(REQUIRED)
    assert "cannot be read" in allowed.trouble
