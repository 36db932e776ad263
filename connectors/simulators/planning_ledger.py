"""What the planning system published, row by row, and what it took from its inbox."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from connectors.simulators.inbox import InboxLedger
from connectors.simulators.ledger import now
from connectors.simulators.replenishment import Recommendation
from connectors.simulators.spoiling import WrittenRow


class PlanningLedger(InboxLedger):
    """A row is written before the file that carries it can be seen."""

    schema = f"""{InboxLedger.schema}
        CREATE TABLE IF NOT EXISTS planned (
            reco_id TEXT, revision INTEGER, content TEXT, file TEXT, line INTEGER,
            spoiled TEXT, spoiled_field TEXT, at REAL,
            PRIMARY KEY (reco_id, revision)
        ) STRICT;
        CREATE TABLE IF NOT EXISTS published (file TEXT, manner TEXT, at REAL) STRICT;
        CREATE TABLE IF NOT EXISTS finished (at REAL) STRICT;
    """

    def add_planned(self, file: str, planned: Iterable[tuple[Recommendation, WrittenRow]]) -> None:
        """The rows of one file, spoiled ones with how."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO planned VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [_planned_row(file, recommendation, written) for recommendation, written in planned],
            )

    def add_published(self, file: str, manner: str) -> None:
        """A file was put into the folder, in that manner."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO published VALUES (?, ?, ?)", (file, manner, now()))

    def finish(self) -> None:
        """Everything planned is published."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO finished VALUES (?)", (now(),))


def plain(number: object) -> str:
    """A number as ledgers compare it, however it came: 6 for 6, "6.0" and Decimal("6.00")."""
    return f"{Decimal(str(number)).normalize():f}"


def content_of(sku: str, supplier: str, quantity: object, need_on: object) -> str:
    """What must arrive unchanged, as one line that ledgers are compared by."""
    return f"{sku} {plain(quantity)} from {supplier} on {need_on}"


def _planned_row(file: str, planned: Recommendation, written: WrittenRow) -> tuple[object, ...]:
    spoiler = written.spoiler
    return (
        planned.reco_id,
        planned.revision,
        content_of(planned.sku, planned.supplier, planned.quantity, planned.need_on),
        file,
        written.line,
        spoiler.kind if spoiler else "",
        spoiler.field if spoiler else "",
        now(),
    )
