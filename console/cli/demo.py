"""`distctl demo`: a whole estate on this machine, with partners that misbehave, judged by the partners' own records."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Final

import typer

from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode
from state.model.errors import ConfigError, DistctlError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.control.schema import DeadLetterRow
    from connectors.simulators.judge import Parked
    from connectors.simulators.play import Report, Scene
    from connectors.simulators.program import Program
    from connectors.simulators.stage import Stage
    from console.cli.output import Output

app = new_app()

_PLACE: Final = re.compile(r"^(?P<file>.*?),?\s+line (?P<line>[0-9]+)")
_SAY_EVERY: Final = 5.0  # seconds, where no terminal shows progress
_MOST_PARKED: Final = 10_000


class SiteAgent:
    """The agent as a real process, asked through its control API as `distctl` asks it."""

    def __init__(self, stage: Stage) -> None:
        from agent.control.client import ControlClient
        from agent.control.endpoint import socket_in
        from connectors.simulators.stage import SITE

        command = [sys.executable, "-m", "console.cli.app", "--data", str(stage.data), "--site", SITE]
        self._client = ControlClient(socket_in(stage.data))
        self.program: Program = stage.program(
            "agent", *command, "agent", "run", "--estate", str(stage.estate), "--log", "json"
        )

    def is_ready(self) -> bool:
        """Whether its control API answers and it has no trouble."""
        try:
            return self._client.health().ok
        except DistctlError:
            return False

    def owes(self) -> bool:
        """Whether deliveries wait or are on their way."""
        return self._client.status().totals.backlog > 0

    def parked(self) -> Sequence[Parked]:
        """Its open dead letters."""
        from agent.control.client import gather

        pages = gather(lambda size, cursor: self._client.dead_letters(limit=size, cursor=cursor), limit=_MOST_PARKED)
        return [_parked(row) for page in pages for row in page.items]


@app.command()
def demo(
    context: typer.Context,
    headless: Annotated[bool, typer.Option("--headless", help="No live progress: run to the end and report.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running, to be tried with `distctl`, until ctrl-c.")
    ] = False,
    seed: Annotated[int, typer.Option(help="What is spoiled, and when partners misbehave.")] = 1,
    home: Annotated[
        Path | None, typer.Option(help="An empty folder for everything; default a temporary one, removed at the end.")
    ] = None,
) -> None:
    """A whole estate on this machine, with partners that misbehave."""
    output = session_of(context).output
    folder = _empty_folder(home)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended then too
    try:
        report = _perform(folder, seed=seed, is_live=not headless and sys.stderr.isatty(), keep=keep, output=output)
    except KeyboardInterrupt:
        _clear(folder, given=home)
        output.say("interrupted; what was started has ended")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not report.ok:
        output.say(f"estate, logs, ledgers and store are kept in {folder}")
        raise typer.Exit(ExitCode.FAILED)
    _clear(folder, given=home)


def _perform(folder: Path, *, seed: int, is_live: bool, keep: bool, output: Output) -> Report:
    from connectors.simulators.play import performed

    showing = _on_a_terminal() if is_live else _in_lines(output)
    with ExitStack() as until_judged:
        show = until_judged.enter_context(showing)
        with performed(folder, seed=seed, employ=SiteAgent, show=show) as report:
            until_judged.close()
            write_report(report, output)
            if keep:
                _wait_for_the_keyboard(folder, output)
    return report


def write_report(report: Report, output: Output) -> None:
    """The stable JSON for scripts; for people the figures in a line and the checks below, failed ones first."""
    if not output.is_for_people:
        output.record(report.to_json())
        return
    figures = {name: value for name, value in report.to_json().items() if name != "checks"}
    for check in sorted(report.checks, key=lambda check: check.ok):
        output.line(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.detail}")
    output.line(
        ", ".join(f"{name.removesuffix('_s').replace('_', ' ')} {value}" for name, value in figures.items()) + " s"
    )
    failed = sum(not check.ok for check in report.checks)
    output.line(
        f"{failed} of {len(report.checks)} checks failed" if failed else f"all {len(report.checks)} checks hold"
    )


def _empty_folder(home: Path | None) -> Path:
    if home is None:
        return Path(tempfile.mkdtemp(prefix="distctl-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        raise ConfigError(f"{home} is not empty", hint="name a new folder, or leave out --home", code="demo-home")
    return home.absolute()


def _clear(folder: Path, *, given: Path | None) -> None:
    if given is None:
        rmtree(folder)


def _wait_for_the_keyboard(folder: Path, output: Output) -> None:
    from agent.control.endpoint import socket_in

    to_agent = f"distctl --socket {socket_in(folder / 'data')}"
    for command in ("status", "flows", "dlq list", "dlq show 1", "events", "trace RECO-SCALPEL-29-4-ALLOY-FRAMES"):
        output.say(f"  {to_agent} {command}")
    output.say(f"  distctl check {folder / 'estate'}")
    output.say("everything runs; ctrl-c ends it")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _parked(row: DeadLetterRow) -> Parked:
    from connectors.simulators.judge import Parked

    found = _PLACE.search(row.place)
    file, line = (found["file"], int(found["line"])) if found else (row.place, 0)
    text = f"{row.place} {row.field} {row.rule} {row.message} {row.shown}"
    return Parked(file=file, line=line, rule=row.rule, hint=row.hint, text=text)


@contextmanager
def _in_lines(output: Output) -> Iterator[Callable[[Scene], None]]:
    """A line when the phase changes, and one every few seconds."""
    last: list[Scene] = []

    def show(scene: Scene) -> None:
        if last and last[0].phase == scene.phase and scene.elapsed_s - last[0].elapsed_s < _SAY_EVERY:
            return
        last[:] = [scene]
        counts = "; ".join(f"{tally.flow} {tally.delivered}" for tally in scene.tallies)
        output.say(f"{scene.elapsed_s:5.1f} s  {scene.phase}" + (f": {counts}" if counts else ""))

    yield show


@contextmanager
def _on_a_terminal() -> Iterator[Callable[[Scene], None]]:
    """A table that is drawn anew several times a second."""
    from rich.console import Console
    from rich.live import Live

    terminal = Console(stderr=True)
    with Live(console=terminal, refresh_per_second=4, transient=True) as live:
        yield lambda scene: live.update(_drawn(scene))


def _drawn(scene: Scene) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{scene.elapsed_s:.0f} s  {scene.phase}", title_justify="left")
    table.add_column("flow")
    for heading in ("published", "spoiled", "delivered", "to come", "a second"):
        table.add_column(heading, justify="right")
    for tally in scene.tallies:
        rate = tally.delivered / scene.elapsed_s if scene.elapsed_s else 0
        counts = (tally.planned, tally.injected_bad, tally.delivered, len(tally.lost))
        table.add_row(tally.flow, *map(str, counts), f"{rate:.0f}")
    return table
