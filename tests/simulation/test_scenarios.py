"""Stories of weeks on virtual time: nothing expires, and what was away comes back by itself."""

from __future__ import annotations

import pytest

from tests.simulation.scenarios import DAY, OfflineForAMonth, TargetDownForEightDays
from tests.simulation.seed import run_seed
from tests.simulation.story import Story

_MOST_TURNS = 5_000_000


@pytest.mark.parametrize(("story", "days"), [(OfflineForAMonth, 30), (TargetDownForEightDays, 8)])
def test_weeks_without_a_line_or_a_target_lose_and_expire_nothing(story: type[Story], days: int) -> None:
    verdict = run_seed(1, story=story, most_turns=_MOST_TURNS)
    assert not verdict.findings, "\n".join(str(finding) for finding in verdict.findings[-5:])
    assert verdict.seconds >= days * DAY
    assert not verdict.cures
