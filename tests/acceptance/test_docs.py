"""The pages say what is there: links lead somewhere, commands exist, and settings, states and metrics are described."""

from __future__ import annotations

import ast
import io
import re
import shlex
import typing
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from prometheus_client import Counter
from pydantic import BaseModel

from agent.control import conditions, gauges
from agent.control.schema import AgentRow, AuditFinding, Condition, DrainView, LaneRow, Status
from agent.crash_points import VARIABLE
from agent.estate.yaml_document import read_yaml
from agent.record_reader import RecordReader
from agent.telemetry import Telemetry
from connectors import registry
from connectors.files.settings import SourceSettings
from connectors.formats.codec import decode
from connectors.formats.records import Record
from console.cli.app import app
from console.cli.status import CONDITIONS
from state.model import estate
from state.model.delivery import DeliveryState
from state.model.ids import EstateHash
from state.unapplied import Strange

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "connectors/*/README.md", "connectors/simulators/*/README.md")
    for page in ROOT.glob(pattern)
)
OPERATING: Final = (ROOT / "docs" / "operating.md").read_text()

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<to>[^)\s]+)\)")
_MENTION = re.compile(r"(?:^|[\s`($!/])distctl(?P<words> [^`\n|&>#;)]*)", re.MULTILINE)
_SPAN = re.compile(r"`[^`]*`|^    .*$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.finditer(prose(page)):
        path, _, anchor = link["to"].partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link["to"]
        assert target.is_relative_to(ROOT), f"{link['to']} leads out of the repository"
        assert not anchor or anchor in anchors(target), link["to"]


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / link["to"].partition("#")[0]).resolve()
            for link in _LINK.finditer(prose(page))
            if "://" not in link["to"] and link["to"].partition("#")[0]
        ]
    assert [name_of(page) for page in PAGES if page not in reached and "simulators" not in page.parts] == []


# --- commands -----------------------------------------------------------------------------------------------------


def mentions(page: Path) -> Iterator[str]:
    """What follows `distctl` in code: in spans, in indented lines, and in blocks that a shell reads."""
    text = page.read_text()
    shell = [block["text"] for block in _FENCE.finditer(text) if block["language"] in {"", "sh", "ini"}]
    for code in (*shell, *_SPAN.findall(_FENCE.sub("", text))):
        for mention in _MENTION.finditer(code.strip("`")):
            yield mention["words"].strip()


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` begin with, and the rest. Raises KeyError for one that there is not."""
    root = typer.main.get_command(app)
    command: Any = root
    valued = {name for option in root.params for name in option.opts if not getattr(option, "is_flag", False)}
    while words and getattr(command, "commands", None) is not None:
        if words[0].startswith("-"):
            words = words[2:] if words[0] in valued else words[1:]
            continue
        found = command.get_command(None, words[0])
        if found is None:
            raise KeyError(words[0])
        command, words = found, words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    known = (*command.params, *typer.main.get_command(app).params)
    return {name for option in known for name in option.opts} | {"--help", "-h"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    for mention in mentions(page):
        command, rest = command_of(shlex.split(re.sub(r"[\[\]]", "", mention)))
        unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options_of(command)]
        assert unknown == [], f"distctl {mention}"


def test_a_command_that_does_not_exist_is_seen() -> None:
    with pytest.raises(KeyError):
        command_of(["dlq", "explode"])
    command, rest = command_of(["--data", "x", "status", "--fail-on", "parked"])
    assert (command.name, rest) == ("status", ["--fail-on", "parked"])
    assert "--explode" not in options_of(command)


# What a person does with a dead letter, and the command that would do it.
_DECISIONS: Final = ("replay", "discard", "amend")


def said_in(module: Path) -> Iterator[str]:
    """The texts of a module that somebody reads: those of more than one word, without what its docstrings say."""
    tree = ast.parse(module.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in told
            and " " in node.value
        ):
            yield node.value


def advised(texts: Iterable[str]) -> list[str]:
    """Those of `texts` that advise a decision for which `distctl dlq` has no command."""
    missing = [word for word in _DECISIONS if not is_command("dlq", word)]
    return [text for text in texts if missing and re.search(rf"\b({'|'.join(missing)})\b", text)]


def is_command(*words: str) -> bool:
    try:
        command_of(list(words))
    except KeyError:
        return False
    return True


def test_no_hint_advises_a_command_that_does_not_exist() -> None:
    modules = [
        module for package in ("agent", "connectors", "console", "state") for module in (ROOT / package).rglob("*.py")
    ]
    assert advised(text for module in modules for text in said_in(module)) == []


def whole_texts(module: Path) -> Iterator[str]:
    """The texts of a module, docstrings left out, those made of parts with X for what is filled in."""
    tree = ast.parse(module.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (told | parts):
            yield node.value


def incomplete(text: str) -> list[str]:
    """The commands that a text says are to be typed, and that would be refused for want of an option."""
    found = []
    for words in re.findall(r"`distctl ([^`]+)`", text):
        try:
            command, rest = command_of(words.split())
        except KeyError:
            continue  # its name is filled in
        required = [one.opts[0] for one in command.params if one.required and one.opts[0].startswith("--")]
        found += [words] if set(required) - set(rest) else []
    return found


def test_every_command_that_a_message_advises_has_what_it_requires() -> None:
    modules = [module for package in ("agent", "console", "state") for module in (ROOT / package).rglob("*.py")]
    advised = {(name_of(one), words) for one in modules for text in whole_texts(one) for words in incomplete(text)}
    assert advised == set()
    assert incomplete("then `distctl agents adopt north` at the hub") == ["agents adopt north"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_example_advises_a_command_that_does_not_exist(page: Path) -> None:
    assert advised(block["text"] for block in _FENCE.finditer(page.read_text())) == []


# --- settings -----------------------------------------------------------------------------------------------------


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of, with those of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for part in typing.get_args(annotation):
        yield from models_in(part)


def describes_itself(annotation: Any) -> bool:
    """Whether all that may stand there is ours and says what it is."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None) and not isinstance(part, str)]
    if isinstance(annotation, type):
        return issubclass(annotation, BaseModel | Enum) and bool(annotation.__doc__)
    return any(describes_itself(part) for part in parts)


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_every_setting_of_a_connector_says_what_it_is(name: str) -> None:
    connector = registry.find(name)
    silent = {
        f"{model.__name__}.{setting}"
        for settings in (connector.source_settings, connector.sink_settings)
        for model in models_in(settings)
        for setting, field in model.model_fields.items()
        if setting != "kind" and not field.description and not describes_itself(field.annotation)
    }
    assert silent == set()
    assert all(model.__doc__ for model in models_in(connector.source_settings))


def test_every_key_of_the_estate_is_on_its_page() -> None:
    page = (ROOT / "docs" / "estate.md").read_text()
    keys = {
        f"{model.__name__}.{key}"
        for model in (estate.EstateSettings, estate.SiteSpec, estate.FlowSpec)
        for inner in models_in(model)
        for key in inner.model_fields
    }
    for key in keys:
        assert re.search(rf"(`|\b){key.partition('.')[2]}\b", page), f"docs/estate.md does not tell of {key}"


def test_the_german_export_of_the_files_page_is_read_as_declared() -> None:
    page = (ROOT / "connectors" / "files" / "README.md").read_text()
    told = re.search(
        r"A German export, with `(?P<row>[^`]+)` in it:\n\n```yaml\n(?P<text>.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    assert told is not None
    document, findings = read_yaml("README.md", told["text"].encode())
    assert document is not None
    assert findings == []
    source = document.value["source"]
    form = SourceSettings.model_validate({"folder": "drop", **source["settings"]}).format
    row = f"{';'.join(source['fields'])}\n{told['row']}\n".encode("cp1252")
    (record,) = decode(io.BytesIO(row), form)
    assert isinstance(record, Record)
    reader = RecordReader({name: estate.FieldSpec.model_validate(spec) for name, spec in source["fields"].items()})
    assert reader.read(record.fields) == {"supplier": "Müller", "qty": Decimal("1200.5"), "needed": "2026-03-16"}


# --- what an operator reads ---------------------------------------------------------------------------------------


def test_every_state_of_a_delivery_is_explained() -> None:
    for state in DeliveryState:
        assert f"\n| `{state}` | " in OPERATING


def test_every_condition_is_explained() -> None:
    for name in CONDITIONS:
        assert re.search(rf"^\| .*`{name}`.* \| ", OPERATING, re.MULTILINE), name


def test_every_metric_is_explained_with_its_labels() -> None:
    explained = dict(re.findall(r"^\| `(distctl_\w+)` \|(.*?)\| ", OPERATING, re.MULTILINE))
    shown = {**metrics_of(a_status()), **counters()}
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in explained.items()} == shown


def metrics_of(status: Status) -> dict[str, set[str]]:
    """Each metric with its labels, as the text exposition shows them."""
    lines = [line for line in gauges.expose(status).decode().splitlines() if not line.startswith("#")]
    found: dict[str, set[str]] = {}
    for line in lines:
        name = re.split(r"[{ ]", line, maxsplit=1)[0]
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', line))
    return found


def counters() -> dict[str, set[str]]:
    """The counters of an agent's process with their labels; the exposition shows none before it has counted."""
    found = [counter for counter in vars(Telemetry()).values() if isinstance(counter, Counter)]
    assert found
    return {f"{counter._name}_total": set(counter._labelnames) for counter in found}


def a_status() -> Status:
    lane = LaneRow(flow="f", target="s/t", tier=1, order="strict", state="open", breaker="closed")
    return Status(
        as_of="2026-03-02T09:00:00Z",
        site="s",
        environment="test",
        version="0",
        started_at="2026-03-02T08:00:00Z",
        estate="acme",
        estate_hash="0" * 32,
        events=0,
        open_dead_letters=0,
        totals=lane,
        conditions=[],
        lanes=[lane],
    )


def test_what_the_agent_reads_from_the_environment_is_told() -> None:
    assert VARIABLE in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_conditions_of_the_pages_are_those_of_the_agent() -> None:
    lane = LaneRow(flow="f", target="s/t", tier=1, order="strict", state="held", breaker="open", pending=2, in_doubt=1)
    lane = lane.model_copy(update={"waiting_behind": 1})
    frozen = lane.model_copy(update={"state": "frozen"})
    audit = AuditFinding(audit_of="s", kind="cut", text="x", to_do="y", noticed_at="2026-03-02T09:00:00Z")
    found: list[Condition] = conditions.conditions_of(
        [lane, frozen],
        open_dead_letters=1,
        troubles=["x"],
        audits=[audit],
        drain=DrainView(state="draining", since="2026-03-02T09:00:00Z"),
        strange=[Strange(site="s", estate=EstateHash("ab" * 16), count=1)],
        agents=[AgentRow(agent="s", state="fenced")],
    )
    assert {one.name for one in found} == set(CONDITIONS)


# --- the repository stands alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_refers_to_a_place_on_somebodys_machine(page: Path) -> None:
    assert re.findall(r"(?:/home/|/Users/|/root/|C:\\)\S*", page.read_text()) == []
