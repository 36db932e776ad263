"""What `distctl restore` does to a store, without the files around it: the real next life of a copy."""

from __future__ import annotations

import hashlib
from datetime import datetime

from state import backup, life
from state.restore import begin_again
from tests.simulation.machine import Machine
from tests.simulation.store import Disk


def restored(machine: Machine, image: bytes, *, taken_at: datetime) -> bytes:
    """The image as the store of the next life of the machine, whose present store says which epochs there were."""
    machine.disk.recover()
    there = life.find(machine.disk.connection)
    copy = Disk(image)
    connection = copy.connection
    held = backup.contents(connection)
    connection.execute("BEGIN IMMEDIATE")
    begin_again(
        connection,
        held,
        site=machine.site,
        above=there.epoch if there else 0,
        name="backup",
        folder="/backups",
        manifest_sha256=hashlib.sha256(image).hexdigest(),
        taken_at=taken_at,
        now=machine.now(),
        by="somebody",
        reason="the store was lost",
    )
    connection.execute("COMMIT")
    content = copy.image()
    copy.close()
    return content
