"""Room that is kept back for the hour when the disk is full."""

from __future__ import annotations

import shutil
from pathlib import Path

from state.reserve import SIZE, Reserve


def test_it_holds_real_blocks_and_gives_them_up_once(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", size=SIZE)
    reserve.fill(leaving=0)
    held = (tmp_path / "reserve").stat()
    assert (held.st_blocks * 512 >= SIZE, held.st_mode & 0o077) == (True, 0)
    assert (reserve.release(), reserve.is_given_up) == (True, True)
    assert not reserve.release()
    reserve.fill(leaving=0)
    assert not reserve.is_given_up
    assert list(tmp_path.iterdir()) == [tmp_path / "reserve"]


def test_it_is_not_filled_where_that_would_leave_too_little(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.fill(leaving=shutil.disk_usage(tmp_path).free)
    assert list(tmp_path.iterdir()) == []
    reserve.release()
    assert not reserve.is_given_up, "there was nothing to give"
