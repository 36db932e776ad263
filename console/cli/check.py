"""`distctl check`: what is wrong in an estate folder, and exactly where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of
from console.exit_codes import ExitCode

if TYPE_CHECKING:
    from agent.estate.findings import Finding

app = new_app()


@app.command()
def check(context: typer.Context, folder: Annotated[Path, typer.Argument(help="The estate folder.")] = Path()) -> None:
    """Check an estate folder; findings name file, line and column."""
    from agent.estate.check import check as check_folder
    from agent.estate.findings import has_errors

    output = session_of(context).output
    findings = check_folder(folder)
    if output.is_for_people:
        for finding in findings:
            output.line(str(finding))
        output.say(_sum(findings, folder))
    else:
        output.plain_rows([_row(finding) for finding in findings])
    if has_errors(findings):
        raise typer.Exit(ExitCode.USAGE)


def _sum(findings: list[Finding], folder: Path) -> str:
    from agent.estate.findings import Severity

    if not findings:
        return f"{folder}: nothing to complain about"
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    return f"{folder}: {_counted(errors, 'error')}, {_counted(len(findings) - errors, 'warning')}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _row(finding: Finding) -> dict[str, object]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity.value,
        "code": finding.code,
        "message": finding.message,
        "hint": finding.hint,
    }
