"""The whole estate in one process: some seeds, each with its events and its faults, and that a seed is always the same."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

from tests.simulation.seed import run_seed

_SEEDS = 8
_FEWEST = re.compile(r"([0-9,]+) events, ([0-9,]+) faults, at least ([0-9]+) a seed")


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(_SEEDS)]
    said = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    told = _FEWEST.search(said.stdout)
    assert told is not None
    assert int(told[1].replace(",", "")) >= 200 * _SEEDS
    assert int(told[3]) >= 10


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_is_the_same_story_whenever_it_is_told(seed: int) -> None:
    first, again = run_seed(seed, keep_trace=True), run_seed(seed, keep_trace=True)
    assert first.trace == again.trace
    assert first.digest != run_seed(seed + 2, keep_trace=True).digest


def test_a_seed_leaves_the_log_as_it_found_it() -> None:
    log = logging.getLogger("distctl")
    before = log.level, log.propagate, log.handlers
    run_seed(3)
    assert (log.level, log.propagate, log.handlers) == before
