"""The whole estate in one process: some seeds, and that a seed is always the same."""

from __future__ import annotations

import pytest

from tests.simulation.seed import run_seed

SEEDS = range(1, 9)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens(seed: int) -> None:
    verdict = run_seed(seed)
    assert not verdict.findings, "\n".join(str(finding) for finding in verdict.findings[-5:])
    assert verdict.events >= 200
    assert verdict.faults.total() >= 10


def test_a_seed_is_the_same_story_whenever_it_is_told() -> None:
    first, again = run_seed(3, keep_trace=True), run_seed(3, keep_trace=True)
    assert first.digest == again.digest
    assert first.digest != run_seed(4, keep_trace=True).digest
