"""The http connector as the registry loads it."""

from __future__ import annotations

from typing import Final

from connectors.http.settings import HttpSinkSettings, HttpSourceSettings
from connectors.http.sink import HttpSink
from connectors.http.source import HttpSource
from connectors.registry import Connector


def _can_probe(settings: HttpSinkSettings) -> bool:
    return settings.probe is not None


CONNECTOR: Final = Connector(
    name="http",
    source_settings=HttpSourceSettings,
    sink_settings=HttpSinkSettings,
    make_source=HttpSource,
    make_sink=HttpSink,
    can_probe=_can_probe,
)
