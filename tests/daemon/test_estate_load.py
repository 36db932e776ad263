"""No text in an estate folder can stop the reader: it always answers with findings or an estate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.estate.check import check, load_checked
from agent.estate.compiled import compile_estate
from agent.estate.findings import has_errors
from agent.estate.load import load
from agent.estate.yaml_document import read_yaml
from connectors import simulators
from state.model.errors import ConfigError
from state.model.estate import Estate

SETTINGS = "name: acme\nenvironment: test\ncurrency: EUR\ntier_weights: {1: 8, 2: 3, 3: 1}\n"
SITE = """\
site: dc
systems:
  planning: {connector: files, settings: {folder: out}}
  erp: {connector: http, settings: {base_url: "http://127.0.0.1:8071"}, memory: {key_lifetime: 24h}}
"""
FLOW = """\
flow: stock
owner: stock@acme.example
source:
  system: planning
  settings: {pattern: "*.csv", format: {kind: csv}}
  fields: {id: string, qty: {type: decimal, decimal_mark: ","}}
contract: replenishment-recommendation/1
mapping:
  fields:
    reco_id: record.id
    quantity: {value: "record.qty * 2", unit: "'EA'"}
targets:
  - {system: erp, settings: {path: /orders}, when: "record.quantity.value > 0"}
"""
TEXTS = (SETTINGS, SITE, FLOW)
FILES = ("estate.yaml", "sites/dc.yaml", "flows/stock.yaml")

MARKS = ("&a", "*a", "<<:", "!!binary", "---", "...", "? ", ": ", "- ", "[", "}", "|", ">", "'", '"', "~", ".inf", "\t")
ODDITIES = ("0x1F", "1e400", "9" * 40, "\x00", "\ud800", "\ufeff", "\u2028", "\r", "%YAML 1.1\n", "&a [*a]", "? [x]: y")
SNIPPETS = st.sampled_from(MARKS) | st.sampled_from(ODDITIES)


def write(folder: Path, texts: tuple[str, ...]) -> Path:
    for name, text in zip(FILES, texts, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return folder


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, ...]:
    texts = list(TEXTS)
    for _ in range(draw(st.integers(1, 3))):
        which = draw(st.integers(0, 2))
        text = texts[which]
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        texts[which] = text[:start] + draw(SNIPPETS | st.text(max_size=6)) + text[end:]
    return tuple(texts)


@settings(max_examples=120, deadline=None)
@given(mutated())
def test_no_edit_of_an_estate_makes_the_reader_raise(texts: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        findings = check(write(Path(folder), texts))
        loaded = load(Path(folder))
    assert all(one.file and one.message and one.code for one in findings)
    assert (loaded.estate is None) == has_errors(loaded.findings)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,?\n\t 01~", max_size=200).map(str.encode))
def test_no_bytes_make_the_yaml_reader_raise(raw: bytes) -> None:
    document, findings = read_yaml("x.yaml", raw)
    assert document is not None or findings


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    for raw in (
        b"[" * 20_000,
        b"{a: " * 20_000,
        b"- " * 20_000,
        b"a:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 400)),
    ):
        assert read_yaml("x.yaml", raw)[1], raw[:10]


def test_a_large_file_is_refused_before_it_is_parsed() -> None:
    findings = read_yaml("x.yaml", b"a: " + b"x" * 300_000)[1]
    assert [one.code for one in findings] == ["too-large"]


def test_an_estate_comes_back_equal_from_the_store_and_compiles_from_there(tmp_path: Path) -> None:
    estate = load(write(tmp_path, TEXTS)).raise_first()
    again = Estate.from_json(estate.to_json())
    assert (again, again.hash) == (estate, estate.hash)
    assert compile_estate(again).flows["stock"].source == "dc/planning"


def test_the_order_of_keys_and_comments_do_not_change_the_hash(tmp_path: Path) -> None:
    first = load(write(tmp_path, TEXTS)).raise_first().hash
    turned = "# edited\n" + "\n".join(reversed(SETTINGS.strip().split("\n"))) + "\n"
    assert load(write(tmp_path, (turned, SITE, FLOW))).raise_first().hash == first


def test_the_first_error_refuses_the_start_and_counts_the_others(tmp_path: Path) -> None:
    write(tmp_path, (SETTINGS.replace("name:", "nam:"), SITE.replace("site:", "sit:"), FLOW))
    with pytest.raises(ConfigError, match=r"^estate\.yaml:1:1: .*\(and 3 more: run distctl check\)") as caught:
        load(tmp_path).raise_first()
    assert caught.value.exit_code == 2


def test_an_estate_with_a_wrong_expression_does_not_compile(tmp_path: Path) -> None:
    estate = load(write(tmp_path, TEXTS)).raise_first()
    raw = orjson.dumps(orjson.loads(estate.to_json().replace(b"record.id", b"record.di")))
    with pytest.raises(ConfigError, match=r"stock\.mapping\.fields\.reco_id: record has no field 'di'"):
        compile_estate(Estate.from_json(raw))


def test_an_estate_that_is_handed_on_is_the_same_with_its_fields_in_their_order() -> None:
    estate = load_checked(Path(simulators.__file__).parent / "estate").raise_first()
    back = Estate.from_json(estate.to_json())
    assert (back, back.hash) == (estate, estate.hash)
    for name, flow in estate.flows.items():
        assert repr(back.flows[name].mapping) == repr(flow.mapping)
        there, here = ([target.mapping for target in one.targets] for one in (back.flows[name], flow))
        assert repr(there) == repr(here)
