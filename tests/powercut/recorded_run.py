"""The run that is recorded: a hub and two sites as processes, from their first start on, with kills, restarts and a backup.

Three machines have a disk each, `disks/SITE`: the hub's holds its data and its backups, the north's its data and the planner's
folder, the south's its data and the folder of the warehouse. Planner and ERP are outside of any cut.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from connectors.hostile import Entry
from connectors.simulators.leash import leashed
from tests.acceptance.agent_process import COLUMNS, AgentProcess, Partner, open_partner, until
from tests.acceptance.test_estatewide import SITES, Whole
from tests.powercut.disk import Disks
from tests.powercut.recording import Marks, Record, read_recording

HUB: Final = "hq"
HELD: Final[Mapping[str, Sequence[str]]] = {"hq": (), "north": ("planning",), "south": ("wms",)}
"""What lies on the disk of each machine from the beginning; all else its agent makes."""

FULL, NORMAL = 2, 1
"""PRAGMA synchronous as it is shipped, and one that loses what was acknowledged."""

_HERE: Final = Path(__file__).parent
_PATIENCE: Final = 90.0


def build_recorder(folder: Path) -> Path | None:
    """The recorder as a library; None where no C compiler is installed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "recorder.so"
    source = str(_HERE / "recorder.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True)
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A run that ended: its records, its folder, and what is needed to start its agents again."""

    folder: Path
    records: Sequence[Record]
    port: int  # the ERP's
    url: str  # the hub's

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The recording that a run left in `folder`."""
        about = json.loads((folder / "run.json").read_text())
        records = read_recording(folder / "recording")
        return cls(folder=Path(about["folder"]), records=records, port=about["port"], url=about["url"])


class _Ledger(list[Entry]):
    """The ERP's ledger, which marks each effect in the recording."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def append(self, entry: Entry) -> None:
        super().append(entry)
        self._marks.say("landed", key=entry.key, body=entry.body, number=entry.number)


class RecordedEstate(Whole):
    """The estate of three agents, each under the recorder."""

    def __init__(
        self, folder: Path, erp: Partner, marks: Marks, recorder: Path | None, *, synchronous: int = FULL, url: str = ""
    ) -> None:
        """Without a `recorder` its agents run as ever. `url` is where the hub listens, if it did so before."""
        self.marks = marks
        self._environment = {
            "LD_PRELOAD": str(recorder or ""),
            "POWERCUT_ROOT": str(folder / "disks"),
            "POWERCUT_LOG": str(folder / "recording"),
            "POWERCUT_SYNCHRONOUS": str(synchronous),
        }
        super().__init__(folder, erp, url=url)

    def data_of(self, name: str) -> Path:
        """On a disk of its own."""
        return self.folder / "disks" / name / "data"

    @property
    def planning(self) -> Path:
        """On the disk of the north."""
        return self.folder / "disks" / "north" / "planning"

    @property
    def warehouse(self) -> Path:
        """On the disk of the south."""
        return self.folder / "disks" / "south" / "wms"

    def agent(self, site: str, data: str = "") -> AgentProcess:
        """The agent of a site, launched so that it marks what it says."""
        made = super().agent(site, data)
        made.log_path = self.folder / f"{site}.log"
        words = ("--data", str(made.data), "--site", site, "agent", "run", "--estate")
        made.command = leashed(
            [
                sys.executable,
                "-m",
                "tests.powercut.launch",
                *words,
                str(self.folder / "estates" / site),
                "--log",
                "json",
            ]
        )
        return made

    def start(self, site: str) -> None:
        """Start an agent and wait until it answers."""
        self.agents[site].run(environment={**self._environment, "POWERCUT_SITE": site})

    def distctl(self, *words: str, data: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command against one agent, recorded as well: enrolling writes beside the store."""
        return super().distctl(*words, data=data, **self._environment, **environment)

    def enrol(self, site: str) -> None:
        """Enrol, and note that it is done."""
        super().enrol(site)
        self.marks.say("enrolled", site=site)

    def back_up(self) -> None:
        """A backup of the hub, and that it is done."""
        made = self.distctl("backup", str(self.folder / "disks" / HUB / "backups"), data=HUB)
        assert made.returncode == 0, made.stderr
        self.marks.say("backed up")

    def publish(self, *references: str) -> None:
        """One file of the planner, which is on the disk before it has its name."""
        rows = []
        for reference in references:
            revision = self.published[reference] = self.published.get(reference, 0) + 1
            rows.append(f"{reference},{revision},SKU-1,5,EA,2026-12-01,2026-11-23")
        content = "\n".join([",".join(COLUMNS), *rows, ""]).encode()
        path = self.planning / f"reco-{sum(self.published.values()):06}.csv"
        for name, data in ((path, content), (path.with_name(f"{path.name}.done"), b"")):
            hidden = name.with_name(f".{name.name}")
            hidden.write_bytes(data)
            self.marks.bring(name, data, inode=hidden.stat().st_ino)
            hidden.rename(name)


def record(folder: Path, recorder: Path, *, rounds: int, synchronous: int = FULL) -> Recording:
    """Record a run in a new `folder`: in each round the planner publishes, and something happens to somebody."""
    folder.mkdir()
    marks = Marks(folder / "recording")
    for site, held in HELD.items():
        disk = folder / "disks" / site
        disk.mkdir(parents=True)
        marks.bring_folder(disk)
        for name in held:
            (disk / name).mkdir()
            marks.bring_folder(disk / name)
    with open_partner(ledger=_Ledger(marks)) as erp, ExitStack() as stack:
        whole = RecordedEstate(folder, erp, marks, recorder, synchronous=synchronous)
        for site in SITES:
            stack.enter_context(whole.agent(site))
        _live(whole, rounds)
        about = {"folder": str(folder), "port": erp.port, "url": whole.url}
    marks.close()
    (folder / "run.json").write_text(json.dumps(about))
    recording = Recording.load(folder)
    _compare(recording)
    return recording


def _live(whole: RecordedEstate, rounds: int) -> None:
    whole.start(HUB)
    for site in ("north", "south"):
        whole.enrol(site)
        whole.start(site)
    for number in range(rounds):
        for size in (3, 12, 40):
            whole.publish(*(f"R-{(number * 7 + one) % 29:02}" for one in range(size)))
        happening = number % 4
        if happening == 1:
            whole.back_up()
        if happening in (2, 3):
            restarted = SITES[number % 3]
            whole.agents[restarted].kill() if happening == 2 else whole.agents[restarted].stop()
            whole.start(restarted)
        if happening != 0:
            until(whole.arrived, "both targets have it", seconds=_PATIENCE)
    until(whole.arrived, "both targets have it", seconds=_PATIENCE)
    for site in SITES[1:]:
        whole.agents[site].kill()
    whole.agents[HUB].stop()


# --- is it complete -----------------------------------------------------------------------------------------------


def _compare(recording: Recording) -> None:
    """What the records make of the disks is what lies there; anything else means that a call escaped the recorder."""
    disks = Disks()
    for moment, one in enumerate(recording.records):
        disks.play(moment, one)
    differing = [path for disk in disks.tops for path in disks.differing(Path(disk))]
    assert not differing, f"the recording is not complete: {', '.join(map(str, differing))}"
