"""Where the bench works: a folder on a real disk, since on tmpfs an fsync costs nothing and every ratio lies."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NO_DISKS: Final = frozenset(("tmpfs", "ramfs", "overlay", "nfs", "nfs4", "9p", "fuse"))
BUILD: Final = Path(__file__).parent.parent / "build"


@contextmanager
def workspace(under: Path = BUILD) -> Iterator[Path]:
    """A folder of its own for one run, removed afterwards. Raises `SystemExit` where it would not be a local disk."""
    under.mkdir(exist_ok=True)
    if (kind := file_system(under)) in _NO_DISKS:
        raise SystemExit(f"{under} is on {kind}, where an fsync is not one: name a folder on a local disk with --under")
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=under))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_system(folder: Path) -> str:
    """The kind of file system that `folder` is on, as Linux mounts it; `unknown` elsewhere."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    where = folder.resolve()
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    fitting = [(mount, kind) for mount, kind in found if where.is_relative_to(mount)]
    return max(fitting, key=lambda one: len(one[0]), default=("", "unknown"))[1]
