"""What PostgreSQL does for the statements of one request: recorded as they go by, then asked for with EXPLAIN ANALYZE."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from controller.db.engine import Database


@dataclass(frozen=True)
class Scan:
    """One node of a plan that reads a table."""

    table: str
    kind: str
    """Seq Scan, Index Scan, Index Only Scan or Bitmap Heap Scan."""
    index: str
    rows_read: int
    """Those that were looked at: what was kept and what a filter threw away, over all loops."""


@dataclass
class Recorder:
    """Statements with their parameters."""

    database: Database
    statements: list[tuple[str, Any]] = field(default_factory=list)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block every SELECT of the application is kept, each once."""
        self.statements.clear()
        engine = self.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._keep)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", self._keep)

    def _keep(self, *event_data: Any) -> None:
        (_, _, statement, parameters, _, _) = event_data
        if statement.lstrip().upper().startswith(("SELECT", "WITH")) and (statement, parameters) not in self.statements:
            self.statements.append((statement, parameters))

    async def list_scans(self) -> list[Scan]:
        """Of all statements that were kept; they are run once more for it.

        A small table is read whole whatever indexes it has, so the planner is told to do that only where it cannot do
        without: what it reads then is what it would read of a large table.
        """
        found: list[Scan] = []
        async with self.database.engine.begin() as connection:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            for statement, parameters in self.statements:
                asked = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
                (answer,) = (await connection.exec_driver_sql(asked, parameters)).scalars().all()
                (plan,) = json.loads(answer) if isinstance(answer, str) else answer
                found += _walk(plan["Plan"])
        return found


async def settle(database: Database) -> None:
    """After many rows were written: what the database does by itself some time later (statistics, pending entries)."""
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE")


def _walk(node: dict[str, Any]) -> Iterator[Scan]:
    name = node.get("Relation Name")
    if name is not None:
        rows = (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        )
        loops = node["Actual Loops"]
        yield Scan(name, node["Node Type"], node.get("Index Name", ""), round(rows * loops))
    for child in node.get("Plans", ()):
        yield from _walk(child)
