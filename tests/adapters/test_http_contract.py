"""The http connector keeps what every connector promises, one by one and in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Parcel, Sink, Source
from connectors.hostile import HostilePartner, accepts_then_says_nothing
from connectors.http.connector import CONNECTOR
from connectors.http.settings import HttpSinkSettings, HttpSourceSettings
from connectors.http.sink import HttpSink
from connectors.http.source import HttpSource
from connectors.registry import find
from connectors.testing import HeldMemory, SinkContract, SourceContract, surroundings

DEADLINE = timedelta(seconds=1)


class HttpSourceRig:
    def __init__(self, partner: HostilePartner, home: Path, settings: dict[str, Any]) -> None:
        self.partner = partner
        self.home = home
        self.settings = settings

    def open(self, memory: HeldMemory) -> Source:
        settings = HttpSourceSettings.model_validate(
            {
                "base_url": self.partner.url,
                "path": "/records",
                "format": {"kind": "json", "pointer": "/items"},
                **self.settings,
            }
        )
        return HttpSource(settings, surroundings(self.home, memory=memory, deadline=DEADLINE))

    async def publish(self, *names: str) -> None:
        self.partner.records += [self._row(name) for name in names]

    async def publish_spoiled(self, before: str, after: str) -> None:
        self.partner.records += [self._row(before), {"id": None, "number": 0}, self._row(after)]

    async def unplug(self) -> None:
        await self.partner.stop()

    def _row(self, name: str) -> dict[str, Any]:
        number = len(self.partner.records)
        return {"id": name, "number": number, "updated_at": f"2026-03-01T08:{number % 60:02}:00Z"}


STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "one page": ("none", {}),
    "instants": (
        "none",
        {"cursor": {"kind": "instant", "parameter": "since", "field": "/updated_at", "overlap": "2m"}},
    ),
    "next link": ("next_link", {"pagination": {"kind": "next_link", "pointer": "/next"}}),
    "link header": ("link_header", {"pagination": {"kind": "link_header"}}),
    "page token": ("token", {"pagination": {"kind": "token", "parameter": "cursor", "pointer": "/next"}}),
    "page number": ("none", {"pagination": {"kind": "page", "size": 2, "size_parameter": "size"}}),
    "offset": ("none", {"pagination": {"kind": "offset", "size": 2}}),
}


class TestHttpSource(SourceContract):
    @pytest.fixture(params=STYLES)
    async def rig(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[HttpSourceRig]:
        style, settings = STYLES[request.param]
        async with HostilePartner(page_style=style, page_size=2) as partner:
            yield HttpSourceRig(partner, tmp_path, settings)


class HttpSinkRig:
    def __init__(self, partner: HostilePartner, home: Path, settings: dict[str, Any]) -> None:
        self.partner = partner
        self.home = home
        self.settings = settings

    def open(self) -> Sink:
        settings = HttpSinkSettings.model_validate(
            {"base_url": self.partner.url, "path": "/orders", "probe": {"path": "/by-key/{key}"}, **self.settings}
        )
        return HttpSink(settings, surroundings(self.home, deadline=DEADLINE))

    def effects(self, parcel: Parcel) -> int:
        return self.partner.effects(parcel.idempotency_key)

    async def go_silent(self) -> None:
        self.partner.script("POST", accepts_then_says_nothing())

    async def unplug(self) -> None:
        await self.partner.stop()


SINKS: dict[str, dict[str, Any]] = {
    "one by one": {},
    "probed by search": {"probe": {"path": "/orders?key={key}", "records": "/items", "match": {"/key": "{key}"}}},
    "in batches": {"batch": {}},
    "in batches by key": {"batch": {"result_key": "/key"}},
    "in small batches": {"batch": {"body_limit": 1024}},
}


class TestHttpSink(SinkContract):
    @pytest.fixture(params=SINKS)
    async def rig(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[HttpSinkRig]:
        async with HostilePartner() as partner:
            yield HttpSinkRig(partner, tmp_path, SINKS[request.param])


class TestHttpSinkThatMeetsConflicts(SinkContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[HttpSinkRig]:
        async with HostilePartner(conflict_status=409) as partner:
            yield HttpSinkRig(partner, tmp_path, {})


def test_the_registry_finds_it_and_it_can_probe_only_where_it_is_told_how() -> None:
    assert find("http") is CONNECTOR
    plain = HttpSinkSettings(base_url="http://127.0.0.1:1", path="/orders")
    asked = plain.model_copy(update={"probe": {"path": "/by-key/{key}"}})
    assert not CONNECTOR.can_probe(plain)
    assert CONNECTOR.can_probe(asked)
