"""A program in a process of its own: started, killed, started again, and ended by its process id at the latest with us."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from connectors.simulators.leash import leashed
from state.model.errors import DistctlError

_LOOK_EVERY: Final = 0.05  # seconds
_ENDS_WITHIN: Final = 10.0


class Program:
    """One program. Its output goes to `log`; it runs in a session of its own, so that ctrl-c reaches us first."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path) -> None:
        self.name = name
        self.command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False

    @property
    def has_ended_by_itself(self) -> bool:
        """Whether it is gone although nobody here ended it."""
        return self._is_wanted and not self.is_running

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, on a leash."""
        self._is_wanted = True
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                leashed(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as a power cut does."""
        self._is_wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
        self._is_wanted = False
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_WITHIN)
            self.kill()

    def port_of(self, ready: Path, *, within: float) -> int:
        """The port that it reports in its ready file. Raises `DistctlError` if it ends before, or takes too long."""
        self.wait_until(ready.exists, within=within)
        return int(json.loads(ready.read_bytes())["port"])

    def wait_until(self, holds: Callable[[], bool], *, within: float) -> None:
        """Return once `holds`. Raises `DistctlError` if the program ends before, or `within` seconds are over."""
        give_up = time.monotonic() + within
        while not holds():
            if not self.is_running or time.monotonic() > give_up:
                raise self.failure("did not get ready")
            time.sleep(_LOOK_EVERY)

    def failure(self, what: str) -> DistctlError:
        """What went wrong with it, and where to read more."""
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:] if self._log.exists() else []
        said = f": {last[0]}" if last else ""
        return DistctlError(f"{self.name} {what}{said}", hint=f"its output is in {self._log}", code="demo-program")
