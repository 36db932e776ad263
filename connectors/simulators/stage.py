"""The folders of a demo, the estate in them, and the counterparts that play in it.

HOME/estate/     what the agent reads
HOME/data/       where the agent keeps its store
HOME/planning/   out/ and in/
HOME/wms/        out/
HOME/ledgers/    what the counterparts say happened
HOME/logs/       what every process printed
"""

from __future__ import annotations

import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

from connectors.simulators.judge import Ledgers
from connectors.simulators.program import Program

SITE: Final = "dc-north"
CALLERS_WAIT: Final = 2.0  # seconds; the deadline that the estate gives calls to the ERP
_READY_WITHIN: Final = 20.0
_ESTATE: Final = files("connectors.simulators.estate")
_TEXTS: Final = frozenset((".yaml", ".csv", ".json", ".jsonl"))


class Stage:
    """One demo's counterparts. `pause` in seconds is how fast planning and warehouse publish."""

    def __init__(self, home: Path, *, seed: int, pause: float) -> None:
        self.home = home
        self.estate = home / "estate"
        self.data = home / "data"
        self.ledgers = Ledgers(
            planning=home / "ledgers" / "planning.db", erp=home / "ledgers" / "erp.db", wms=home / "ledgers" / "wms.db"
        )
        self._seed = seed
        for folder in ("data", "logs", "ledgers", "ready", "planning/out", "wms/out"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        for folder in ("confirmations", "stock"):
            (home / "planning" / "in" / folder).mkdir(parents=True, exist_ok=True)
        self.erp = self._program("erp", "--deadline", str(CALLERS_WAIT))
        self.planning = self._program("planning", "--home", str(home / "planning"), "--pause", str(pause))
        self.wms = self._program("wms", "--home", str(home / "wms"), "--pause", str(pause))

    @property
    def programs(self) -> tuple[Program, ...]:
        """Every counterpart."""
        return (self.erp, self.planning, self.wms)

    def open(self) -> None:
        """Start the ERP and write the estate that names its address."""
        self.erp.start()
        port = self.erp.port_of(self._ready("erp"), within=_READY_WITHIN)
        self.erp.command += ["--port", str(port)]  # started again, it is where it was
        write_estate(self.estate, erp_url=f"http://127.0.0.1:{port}")

    def begin(self) -> None:
        """Have planning and warehouse publish."""
        for program in (self.planning, self.wms):
            program.start()
            program.port_of(self._ready(program.name), within=_READY_WITHIN)

    def start_erp_again(self) -> None:
        """After a kill: the same ledger, the same port."""
        self._ready("erp").unlink()
        self.erp.start()
        self.erp.port_of(self._ready("erp"), within=_READY_WITHIN)

    def program(self, name: str, *command: str) -> Program:
        """A further program of this demo; its output goes to `logs/NAME.log`."""
        return Program(name, command, log=self.home / "logs" / f"{name}.log")

    def _program(self, name: str, *arguments: str) -> Program:
        given = ("--ledger", str(self.home / "ledgers" / f"{name}.db"), "--ready", str(self._ready(name)))
        module = f"connectors.simulators.{name}"
        return self.program(name, sys.executable, "-m", module, *given, "--seed", str(self._seed), *arguments)

    def _ready(self, name: str) -> Path:
        return self.home / "ready" / f"{name}.json"


def write_estate(folder: Path, *, erp_url: str) -> None:
    """The demo's estate as files, for the agent and for people to read."""
    _write(_ESTATE, folder, {"erp_url": erp_url})


def _write(source: Traversable, folder: Path, values: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in source.iterdir():
        if part.is_dir() and not part.name.startswith("__"):
            _write(part, folder / part.name, values)
        elif Path(part.name).suffix in _TEXTS:
            text = Template(part.read_text(encoding="utf-8")).safe_substitute(values)
            (folder / part.name).write_text(text, encoding="utf-8")
