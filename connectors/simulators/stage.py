"""The folders of a demo, the estate in them, and the counterparts that play in it.

HOME/hq/         the hub; beside it stands the ERP, which keeps everything in its ledger
HOME/dc-south/   planning/out and planning/in
HOME/dc-north/   wms/out and wms/in
HOME/web/        shop/out
HOME/*/estate/   what the agent of that site reads
HOME/*/data/     where it keeps its store
HOME/backups/    those of the hub
HOME/ledgers/    what the counterparts say happened
HOME/logs/       what every process printed
"""

from __future__ import annotations

import socket
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from connectors.simulators.cue import give_cue
from connectors.simulators.judge import Ledgers
from connectors.simulators.program import Program

HUB: Final = "hq"
SITES: Final = ("dc-north", "dc-south", "web")
CUT_OFF: Final = "dc-north"
"""The site that reaches its hub by a line of ours."""

CALLERS_WAIT: Final = 2.0  # seconds; the deadline that the estate gives calls to the ERP
_READY_WITHIN: Final = 20.0
_ESTATE: Final = files("connectors.simulators.estate")
_FOLDERS: Final = (
    *(
        "logs",
        "ledgers",
        "ready",
        "backups",
        "dc-south/planning/out",
        "dc-north/wms/out",
        "dc-north/wms/in",
        "web/shop/out",
    ),
    *("dc-south/planning/in/confirmations", "dc-south/planning/in/stock"),
)
_TEXTS: Final = frozenset((".yaml", ".csv", ".json", ".jsonl"))


class Stage:
    """One demo's counterparts. `pause` in seconds is how fast they publish at most."""

    def __init__(self, home: Path, *, seed: int, pause: float) -> None:
        self.home = home
        self.ledgers = Ledgers(**{name: home / "ledgers" / f"{name}.db" for name in ("planning", "erp", "wms", "shop")})
        self._cue = home / "cue"
        for folder in (*_FOLDERS, *(f"{site}/data" for site in (HUB, *SITES))):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self.erp = self._counterpart("erp", "--deadline", str(CALLERS_WAIT), "--seed", str(seed))
        self.planning = self._publisher("planning", "--seed", str(seed), at="dc-south", pause=pause)
        self.wms = self._publisher("wms", "--seed", str(seed), at="dc-north", pause=pause)
        self.shop = self._publisher("shop", at="web", pause=pause)
        self.hub_port = _free_port()
        self.line = self._program("line", "--to", str(self.hub_port))
        self._line_port = 0

    @property
    def programs(self) -> tuple[Program, ...]:
        """Every counterpart, and the line."""
        return (self.erp, self.planning, self.wms, self.shop, self.line)

    def folder(self, site: str) -> Path:
        """Where all of a site lies."""
        return self.home / site

    def hub_url(self, site: str) -> str:
        """How that site reaches the hub."""
        return f"https://127.0.0.1:{self._line_port if site == CUT_OFF else self.hub_port}"

    def open(self) -> None:
        """Start the ERP and the line, and write the estate that names the ERP's address."""
        self.erp.start()
        self.line.start()
        port = self.erp.port_of(self._ready("erp"), within=_READY_WITHIN)
        self.erp.command += ["--port", str(port)]  # started again, it is where it was
        self._line_port = self.line.port_of(self._ready("line"), within=_READY_WITHIN)
        self.line.command += ["--port", str(self._line_port)]
        for site in (HUB, *SITES):
            write_estate(self.folder(site) / "estate", erp_url=f"http://127.0.0.1:{port}", hub_port=self.hub_port)

    def begin(self) -> None:
        """Have everybody publish on cue."""
        for program in (self.planning, self.wms, self.shop):
            program.start()
        for program in (self.planning, self.wms, self.shop):
            program.port_of(self._ready(program.name), within=_READY_WITHIN)

    def give_cue(self, weeks: int) -> None:
        """Let so many weeks be published in all."""
        give_cue(self._cue, weeks)

    def start_again(self, program: Program) -> None:
        """After a kill: the same ledger, the same port."""
        self._ready(program.name).unlink()
        program.start()
        program.port_of(self._ready(program.name), within=_READY_WITHIN)

    def program(self, name: str, *command: str) -> Program:
        """A further program of this demo; its output goes to `logs/NAME.log`."""
        return Program(name, command, log=self.home / "logs" / f"{name}.log")

    def _publisher(self, name: str, *arguments: str, at: str, pause: float) -> Program:
        given = ("--home", str(self.folder(at) / name), "--pause", str(pause), "--cue", str(self._cue))
        return self._counterpart(name, *given, *arguments)

    def _counterpart(self, name: str, *arguments: str) -> Program:
        return self._program(name, "--ledger", str(self.home / "ledgers" / f"{name}.db"), *arguments)

    def _program(self, name: str, *arguments: str) -> Program:
        module = f"connectors.simulators.{name}"
        return self.program(name, sys.executable, "-m", module, "--ready", str(self._ready(name)), *arguments)

    def _ready(self, name: str) -> Path:
        return self.home / "ready" / f"{name}.json"


def write_estate(folder: Path, *, erp_url: str, hub_port: int) -> None:
    """The demo's estate as files, for the agents and for people to read."""
    _write(_ESTATE, folder, {"http://127.0.0.1:8071": erp_url, "127.0.0.1:7443": f"127.0.0.1:{hub_port}"})


def _write(source: Traversable, folder: Path, values: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in source.iterdir():
        if part.is_dir() and not part.name.startswith("__"):
            _write(part, folder / part.name, values)
        elif Path(part.name).suffix in _TEXTS:
            text = part.read_text(encoding="utf-8")
            for written, here in values.items():
                text = text.replace(written, here)
            (folder / part.name).write_text(text, encoding="utf-8")


def _free_port() -> int:
    """One that nobody listens on now: the estate names it before the hub starts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
