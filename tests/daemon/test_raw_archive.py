"""The archive of raw documents that are too large for the store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from agent.raw_archive import RawArchive
from connectors.base import RawDocument
from state.model.errors import DistctlError, StoreError, TransientError
from state.model.ids import sha256

CONTENT = b"reco_id;qty\nR-1;5\n" * 1000


def document(path: Path, content: bytes = CONTENT) -> RawDocument:
    return RawDocument(name=path.name, sha256=sha256(content), size=len(content), path=path)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.csv"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> RawArchive:
    return RawArchive(tmp_path / "raw")


def test_a_document_is_kept_under_its_hash_and_once(archive: RawArchive, plan: Path) -> None:
    archive.keep(document(plan))
    plan.unlink()
    archive.keep(document(plan))
    assert archive.path_of(sha256(CONTENT)).read_bytes() == CONTENT


def test_two_flows_may_keep_the_same_document_at_once(archive: RawArchive, plan: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.csv"
    os.mkfifo(slow)
    failures: list[DistctlError] = []

    def keep(path: Path) -> None:
        try:
            archive.keep(document(path))
        except DistctlError as error:
            failures.append(error)

    threads = [threading.Thread(target=keep, args=(path,)) for path in (slow, plan)]
    threads[0].start()
    with slow.open("wb", buffering=0) as writer:
        writer.write(CONTENT[:1000])
        time.sleep(0.05)
        threads[1].start()
        time.sleep(0.1)
        writer.write(CONTENT[1000:])
    for thread in threads:
        thread.join()
    assert failures == []
    assert archive.path_of(sha256(CONTENT)).read_bytes() == CONTENT


def test_a_document_that_changed_meanwhile_is_read_again_and_leaves_nothing(
    archive: RawArchive, plan: Path, tmp_path: Path
) -> None:
    with pytest.raises(TransientError, match=r"plan\.csv changed"):
        archive.keep(document(plan, b"what it was"))
    assert files_below(tmp_path / "raw") == []


def test_a_place_that_cannot_be_written_is_said_so(plan: Path) -> None:
    with pytest.raises(StoreError, match=r"plan\.csv cannot be kept"):
        RawArchive(plan / "raw").keep(document(plan))
