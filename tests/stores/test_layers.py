"""The import contracts of pyproject.toml: they hold only for what they name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
STORE = {f"state.{path.stem}" for path in (HOME / "state").glob("[!_]*.py")}


@pytest.mark.parametrize("source", ["connectors", "state.model", "console"])
def test_a_contract_that_forbids_the_store_names_every_module_of_it(source: str) -> None:
    [contract] = [one for one in CONTRACTS if one.get("source_modules") == [source]]
    assert {name for name in contract["forbidden_modules"] if name.startswith("state.")} == STORE
