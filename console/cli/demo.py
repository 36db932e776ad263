"""`distctl demo`: a whole estate on this machine, with partners that misbehave, judged by the partners' own records."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode
from state.model.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from connectors.simulators.play import Report, Scene
    from console.cli.output import Output

app = new_app()


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
    from console.cli.demo_acts import DemoCast

    showing = _on_a_terminal() if is_live else _in_lines(output)
    with ExitStack() as until_judged:
        show = until_judged.enter_context(showing)
        with performed(folder, seed=seed, employ=DemoCast, show=show) as report:
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
    for check in sorted(report.checks, key=lambda check: check.ok):
        output.line(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.detail}")
    for row in report.agents:
        output.line(f"agent of {row['site']}: {row['state']}, epoch {row['epoch']}")
    figures = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.figures.items())
    output.line(f"{figures}, elapsed {report.elapsed_s:.1f} s")
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
    to_try = {
        "hq": ("status", "agents list", "trace RECO-SCALPEL-29-4-ALLOY-FRAMES"),
        "dc-south": ("status", "dlq list", "dlq show 1"),
        "web": ("events", "agents list"),
    }
    for site, commands in to_try.items():
        for command in commands:
            output.say(f"  distctl --data {folder / site / 'data'} {command}")
    output.say(f"  distctl check {folder / 'hq' / 'estate'}")
    output.say("everything runs; ctrl-c ends it")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@contextmanager
def _in_lines(output: Output) -> Iterator[Callable[[Scene], None]]:
    """A line for each act that is over."""
    said = 0

    def show(scene: Scene) -> None:
        nonlocal said
        for line in scene.told[said:]:
            output.say(line)
        said = len(scene.told)

    yield show


@contextmanager
def _on_a_terminal() -> Iterator[Callable[[Scene], None]]:
    """The same lines, and below them a table that is drawn anew several times a second."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    terminal = Console(stderr=True)
    said = 0

    def show(scene: Scene) -> None:
        nonlocal said
        for line in scene.told[said:]:
            terminal.print(Text(line))
        said = len(scene.told)
        live.update(_drawn(scene))

    with Live(console=terminal, refresh_per_second=4, transient=True) as live:
        yield show


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
