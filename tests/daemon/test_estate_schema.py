"""The JSON Schemas for editors accept every estate that we ship, and see what `check` sees of misspelt keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent.estate.schema import schemas
from agent.estate.yaml_document import read_yaml

ROOT = Path(__file__).parents[2]
KINDS = {"estate.yaml": "estate", "sites/*.yaml": "site", "flows/*.yaml": "flow"}
SHIPPED = [
    (kind, path)
    for folder in ("console/cli/starter", "connectors/simulators/estate")
    for pattern, kind in KINDS.items()
    for path in sorted((ROOT / folder).glob(pattern))
]

FLOW = b"""\
flow: stock
owner: stock@acme.example
source:
  system: planning
  every: 5s
  fields: {id: string, qty: {type: decimal, decimal_mark: ","}}
contract: inventory-balance/1
mapping:
  group_by: [record.id]
  fields: {sku: record.id, rate: 1.5, parts: [record.id, {a: record.qty}]}
  lines: {quantity: {value: record.qty, unit: "'EA'"}}
order: {mode: latest}
targets:
  - {system: erp, retry: {first: 1s, attempts: 3}, when: "record.sku != ''"}
"""


def complaints(kind: str, raw: bytes) -> list[str]:
    document, findings = read_yaml("x.yaml", raw)
    assert document is not None
    assert findings == []
    return [
        error.message for error in Draft202012Validator(schemas()[f"{kind}.schema.json"]).iter_errors(document.value)
    ]


@pytest.mark.parametrize("name", sorted(schemas()))
def test_each_schema_is_one(name: str) -> None:
    schema: dict[str, Any] = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert not re.search(r"'P[T0-9]", str(_defaults(schema)))


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=[str(path.relative_to(ROOT)) for _, path in SHIPPED])
def test_every_estate_that_is_shipped_is_valid(kind: str, path: Path) -> None:
    assert complaints(kind, path.read_bytes()) == []


def test_the_short_form_of_fields_and_free_mappings_are_valid() -> None:
    assert complaints("flow", FLOW) == []


@pytest.mark.parametrize(
    ("kind", "raw", "word"),
    [
        ("flow", FLOW.replace(b"owner:", b"ownr:"), "ownr"),
        ("flow", FLOW.replace(b"id: string", b"id: strin"), "strin"),
        ("flow", FLOW.replace(b"latest", b"newest"), "newest"),
        ("estate", b"name: acme\nenvironment: tset\ncurrency: EUR\n", "tset"),
        ("site", b"site: dc\nsystems: {erp: {connector: htp}}\n", "htp"),
        ("site", b"site: dc\nsystems: {erp: {connector: http, settings: {base_ur: x}}}\n", "base_ur"),
        ("site", b"site: dc\nsystems: {erp: {connector: files, settings: {base_url: x}}}\n", "base_url"),
    ],
)
def test_a_misspelt_key_or_word_is_seen_by_the_editor(kind: str, raw: bytes, word: str) -> None:
    assert any(word in message for message in complaints(kind, raw))


def _defaults(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["default"]] if isinstance(node.get("default"), str) else []
        return own + [one for part in node.values() for one in _defaults(part)]
    return [one for part in node for one in _defaults(part)] if isinstance(node, list) else []
