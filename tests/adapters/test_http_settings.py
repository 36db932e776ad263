"""What the http connector refuses to be told, and where its secrets come from."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from connectors import http
from connectors.http.client import HttpClient
from connectors.http.pointer import ABSENT, find, find_text
from connectors.http.settings import ConnectionSettings, HttpSinkSettings, HttpSourceSettings
from connectors.secrets import resolve
from state.model.errors import ConfigError

BASE = {"base_url": "http://127.0.0.1:8071", "path": "/orders"}
SINKS: dict[str, tuple[dict[str, Any], str]] = {
    "another scheme": ({"base_url": "file:///etc"}, "http://"),
    "a socket": ({"base_url": "unix:/run/x"}, "http://"),
    "a password in the address": ({"base_url": "http://u:p@erp"}, "auth"),
    "a host hidden behind a user": ({"base_url": "http://erp@evil"}, "auth"),
    "no host": ({"base_url": "http:///x"}, "host"),
    "a query in the address": ({"base_url": "http://erp/?a=1"}, "prefix"),
    "a port that is none": ({"base_url": "http://erp:99999"}, "ort"),
    "a line end in the address": ({"base_url": "http://erp\r\nHost: evil"}, "blanks"),
    "a backslash": ({"base_url": "http://erp\\@evil"}, "blanks"),
    "a prefix that climbs": ({"base_url": "http://erp/a/../b"}, "step"),
    "a path without slash": ({"path": "orders"}, "begins with one /"),
    "a path to another host": ({"path": "//evil/orders"}, "begins with one /"),
    "a path that climbs": ({"path": "/a/../b"}, "step"),
    "a placeholder nobody fills": ({"path": "/orders/{sku}"}, "{key}"),
    "a placeholder that reaches inside": ({"path": "/orders/{key.__class__}"}, "{key}"),
    "a format in a placeholder": ({"path": "/orders/{key:>9999999}"}, "{key}"),
    "half a placeholder": ({"path": "/orders/{key"}, "expected '}'"),
    "a header that is ours": ({"headers": {"Authorization": "x"}}, "auth"),
    "a header that smuggles": ({"headers": {"X-A": "1\r\nX-B: 2"}}, "carry"),
    "a header name that is none": ({"headers": {"X A": "1"}}, "RFC 9110"),
    "a secret by value": ({"auth": {"kind": "bearer", "token": "hunter2"}}, "pattern"),
    "an unknown key": ({"pathh": "/x"}, "Extra inputs"),
    "a rule without a condition": ({"rules": [{"when": {}, "outcome": "rejected"}]}, "say when"),
    "a pointer that asks nothing": ({"rules": [{"when": {"pointer": "/a"}, "outcome": "rejected"}]}, "needs one of"),
    "a pointer that is none": ({"reference": "id"}, "pattern"),
    "an outcome that is none": ({"rules": [{"when": {"status": 200}, "outcome": "fine"}]}, "accepted"),
    "a probe that asks for nothing": ({"probe": {"path": "/orders"}}, "{key} or {subject}"),
    "a search that recognises nothing": ({"probe": {"path": "/orders?k={key}"}}, "needs match"),
    "a match without a value": ({"probe": {"path": "/o?k={key}", "match": {"/k": "x"}}}, "{key} or {subject}"),
}


@pytest.mark.parametrize("case", SINKS)
def test_a_sink_refuses(case: str) -> None:
    wrong, hint = SINKS[case]
    with pytest.raises(ValidationError) as raised:
        HttpSinkSettings.model_validate(BASE | wrong)
    assert hint in str(raised.value)


SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "a pointer into a page that is CSV": (
        {"format": {"kind": "csv"}, "pagination": {"kind": "next_link", "pointer": "/next"}},
        "format json",
    ),
    "a time zone that is none": (
        {"cursor": {"kind": "instant", "parameter": "a", "field": "/b", "timezone": "Europe/Berin"}},
        "IANA",
    ),
    "a duration without unit": (
        {"cursor": {"kind": "instant", "parameter": "a", "field": "/b", "overlap": 300}},
        "unit",
    ),
    "a placeholder in a source": ({"path": "/a b"}, "blanks"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_refuses(case: str) -> None:
    wrong, hint = SOURCES[case]
    with pytest.raises(ValidationError) as raised:
        HttpSourceSettings.model_validate(BASE | wrong)
    assert hint in str(raised.value)


@pytest.mark.parametrize("model", [HttpSinkSettings, HttpSourceSettings])
def test_settings_survive_json_and_every_field_is_described(model: type[ConnectionSettings]) -> None:
    settings = model.model_validate(BASE)
    assert model.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings
    for name, field in model.model_fields.items():
        assert field.description or name == "method", name


def test_the_examples_of_the_readme_are_settings() -> None:
    readme = Path(http.__path__[0], "README.md").read_text()
    source, sink = (YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL))
    HttpSourceSettings.model_validate(BASE | source["source"]["settings"])
    HttpSinkSettings.model_validate(BASE | sink["targets"][0]["settings"])


# --- pointers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a": [1, {"b/c": "x", "d~e": None}]}),
        ("/a/0", 1),
        ("/a/1/b~1c", "x"),
        ("/a/1/d~0e", None),
        ("/a/2", ABSENT),
        ("/a/-1", ABSENT),
        ("/a/\u0660", ABSENT),
        ("/a/99999999999999999999", ABSENT),
        ("/a/0/b", ABSENT),
        ("/z/y/x", ABSENT),
    ],
)
def test_a_pointer_finds(pointer: str, found: object) -> None:
    assert find({"a": [1, {"b/c": "x", "d~e": None}]}, pointer) == found


def test_only_text_and_numbers_are_text() -> None:
    document: dict[str, object] = {"a": True, "b": None, "c": [], "d": 7, "e": "x"}
    assert [find_text(document, f"/{name}") for name in "abcde"] == ["", "", "", "7", "x"]


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_comes_from_the_environment_a_file_or_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from file\n")
    monkeypatch.setenv("ERP_TOKEN", "from env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    references = ("env:ERP_TOKEN", "file:token", "credential:token")
    assert [resolve(reference, home=tmp_path) for reference in references] == ["from env", "from file", "from file"]


def _nothing(home: Path) -> None:
    """The file does not exist."""


def _empty(home: Path) -> None:
    (home / "token").write_text("\n")


def _binary(home: Path) -> None:
    (home / "token").write_bytes(b"\xff\xfe\x00hunter2")


def _huge(home: Path) -> None:
    (home / "token").write_text("hunter2" * 20_000)


def _folder(home: Path) -> None:
    (home / "token").mkdir()


@pytest.mark.parametrize("spoil", [_nothing, _empty, _binary, _huge, _folder])
def test_a_secret_that_cannot_be_read_names_the_reference_and_not_the_secret(tmp_path: Path, spoil: Any) -> None:
    spoil(tmp_path)
    with pytest.raises(ConfigError) as raised:
        resolve("file:token", home=tmp_path)
    assert "file:token" in str(raised.value)
    assert raised.value.hint
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "credential:token", "plain"])
def test_a_reference_to_nothing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError) as raised:
        resolve(reference, home=tmp_path)
    assert raised.value.hint


def _client(home: Path, **settings: Any) -> HttpClient:
    wanted = ConnectionSettings.model_validate({"base_url": "https://127.0.0.1", **settings})
    return HttpClient(wanted, home=home, deadline=timedelta(seconds=1))


def test_a_client_with_a_secret_that_no_header_can_carry_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\r\nX-Evil: 1\n")
    with pytest.raises(ConfigError) as raised:
        _client(tmp_path, auth={"kind": "bearer", "token": "file:token"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_client_whose_authorities_cannot_be_read_does_not_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        _client(tmp_path, ca_file="ca.pem")
