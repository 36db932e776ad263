"""docs/identity.md says what there is: every code by which something is refused, and every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "identity.md").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "agent" / "identity").glob("*.py"))
NAMED = set(re.findall(r'"((?:hub|token|certificate)-[a-z-]+)"', SOURCES))
CODES = (NAMED | set(re.findall(r'code="([a-z-]+)"', SOURCES))) - {"internal"}


def described() -> set[str]:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_refusal_is_described(code: str) -> None:
    assert code in described()


def test_no_refusal_is_described_that_there_is_not() -> None:
    assert {name for name in described() if not name.startswith("DATA/")} - CODES == set()


def test_every_file_of_an_identity_is_described() -> None:
    names = set(re.findall(r'"([a-z]+\.(?:pem|json))"', SOURCES))
    assert {"agent.pem", "listener.pem", "hub.json", "key.pem"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE and f"/{name}`" not in PAGE] == []
