"""All agents of an estate come back to their hub at once: `make reconnect` at a tenth of its size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.reconnecting import come_back

AGENTS = 20


async def test_agents_that_come_back_at_once_are_all_answered_and_in_step(tmp_path: Path, tally: Counter[str]) -> None:
    claims = await come_back(tmp_path, AGENTS, backlog=100, away=1.0, lingers=0.5)
    assert [f"{claim.what}: {claim.found}" for claim in claims if not claim.holds] == []
    tally["agents that came back at once, three times"] += AGENTS
