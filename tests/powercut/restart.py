"""Starts the real agents on an image, lets them go on, and judges by what the targets hold.

The image takes the place of the disks of its run, so that paths and ports are those that its stores know. The ERP stands as it
did at the cut: what had landed is in its ledger and its memory, what came later never happened.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from connectors.hostile import Entry
from tests.acceptance.agent_process import open_partner, taken, until
from tests.acceptance.test_estatewide import SITES
from tests.powercut.facts import Facts
from tests.powercut.recorded_run import HUB, RecordedEstate, Recording
from tests.powercut.recording import Marks

_PATIENCE = 120.0


def go_on(image: Path, recording: Recording, facts: Facts) -> list[str]:
    """Run the agents on the image until everything published is where it belongs; says what is not."""
    folder = recording.folder
    for name in ("disks", "estates"):  # the agents' estates are written anew, word for word
        shutil.rmtree(folder / name)
    shutil.move(image, folder / "disks")
    marks = Marks(folder / "recording-of-a-restart")
    ledger = [
        Entry(number=number, key=key, body=body, landed_at=datetime.now(UTC))
        for number, (key, body) in enumerate(facts.landed.items(), 1)
    ]
    with open_partner(ledger=ledger, port=recording.port) as erp, ExitStack() as stack:
        whole = RecordedEstate(folder, erp, marks, recorder=None, url=recording.url)
        for site in SITES:
            stack.enter_context(whole.agent(site))
        whole.published = dict(Counter(reference for rows in facts.published.values() for reference, _ in rows))
        whole.start(HUB)
        for site in SITES:
            if site != HUB:
                if site not in facts.enrolled:
                    whole.enrol(site)
                whole.start(site)
        whole.publish("R-00", "R-01")  # and life goes on
        with suppress(AssertionError):  # told below, in detail
            until(whole.arrived, "everything arrives", seconds=_PATIENCE)
        return [*_differing(whole), *_fenced(whole)]


def _differing(whole: RecordedEstate) -> list[str]:
    expected = {reference: list(range(1, count + 1)) for reference, count in whole.published.items()}
    found = taken(whole.erp)
    at_erp = [
        f"the ERP has the revisions {found.get(reference, [])} of {reference}, not 1 to {revisions[-1]}"
        for reference, revisions in expected.items()
        if found.get(reference) != revisions
    ]
    left = Counter(_row(path) for path in whole.warehouse.glob("*.json"))
    wanted = Counter((reference, one) for reference, revisions in expected.items() for one in revisions)
    lost = [f"the warehouse lacks {row}" for row in wanted - left]
    return [*at_erp, *lost, *(f"the warehouse has {row} too often" for row in left - wanted)]


def _fenced(whole: RecordedEstate) -> list[str]:
    rows: list[dict[str, Any]] = [whole.row(site) for site in SITES if site != HUB]
    return [f"{row['agent']} is {row['state']}" for row in rows if row["state"] != "open"]


def _row(path: Path) -> tuple[str, int]:
    order = orjson.loads(path.read_bytes())
    return order["reference"], order["revision"]
