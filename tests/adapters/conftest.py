"""What the tests of the files connector share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.watched_folder import Inbox, MakeInbox


@pytest.fixture
async def make_inbox(tmp_path: Path) -> AsyncIterator[MakeInbox]:
    made: list[Inbox] = []

    def make(home: Path = tmp_path, **settings: Any) -> Inbox:
        made.append(Inbox(home, **settings))
        return made[-1]

    yield make
    for inbox in made:
        await inbox.source.close()
