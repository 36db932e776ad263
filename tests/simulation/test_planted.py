"""Planted bugs: each is planted where it says, the page lists them all, and what the page says finds one finds it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.simulation.planted import BUGS, Bug, hunt, planted_source

_PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
_QUICK = ("key-of-the-attempt", "strict-order-not-kept", "outcome-untold")
"""Found by almost any seed, so that finding them is no luck after a change."""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_changes_what_it_says_and_the_source_still_compiles(bug: Bug) -> None:
    spec = find_spec(bug.module)
    assert spec is not None
    assert spec.origin is not None
    compile(planted_source(bug, Path(spec.origin).read_text("utf-8")), spec.origin, "exec")


def test_the_page_lists_each_planted_bug_and_the_seed_that_finds_it() -> None:
    rows = re.findall(r"^\| ([a-z-]+) \| (.+?) \| (\d+) \| (\d+) \|", _PAGE.read_text("utf-8"), re.MULTILINE)
    assert [(name, breaks) for name, breaks, _, _ in rows] == [(bug.name, bug.breaks) for bug in BUGS]
    assert all(int(tried) <= 1000 for _, _, _, tried in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", _QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    assert hunt(name, most=20).seed
