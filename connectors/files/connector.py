"""The files connector: a folder to take from, a folder to leave in."""

from __future__ import annotations

from typing import Final

from connectors.files.settings import SinkSettings, SourceSettings
from connectors.files.sink import FilesSink
from connectors.files.source import FilesSource
from connectors.registry import Connector

CONNECTOR: Final = Connector(
    name="files",
    source_settings=SourceSettings,
    sink_settings=SinkSettings,
    make_source=FilesSource,
    make_sink=FilesSink,
    can_probe=lambda settings: settings.can_be_asked,
)
