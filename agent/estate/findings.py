"""What is wrong in an estate folder, and exactly where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether an estate can run with it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One complaint. `file` is relative to the estate folder; line and column count from 1, 0 is unknown."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    code: str
    severity: Severity = Severity.ERROR

    @property
    def place(self) -> str:
        """`file:line:column` as far as known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.message}" + (f". {self.hint}" if self.hint else "")


def in_order(findings: list[Finding]) -> list[Finding]:
    """By file, then by place in it; the same complaint about the same place once, with the first of its hints."""
    alike = {(one.file, one.line, one.column, one.code, one.message): one for one in reversed(findings)}
    return [alike[key] for key in sorted(alike)]


def has_errors(findings: list[Finding]) -> bool:
    """Whether one of them keeps the estate from running."""
    return any(one.severity is Severity.ERROR for one in findings)
