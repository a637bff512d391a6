"""How SQLite finds what the relay signs: the cost of a job must not grow with the jobs that have ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Dialect, create_engine

from controller.db.base import Model, utc_now
from controller.db.prepared import SQLITE
from controller.jobs import holds, models, relay


class ExplainingDriver:
    """Finds nothing, and keeps how it would have been looked for."""

    dialect: Dialect = SQLITE

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plan: list[str] = []

    async def fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        self.plan += [str(row[-1]) for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        return []

    async def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        raise AssertionError(f"nothing is to be written: {sql} {rows}")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ExplainingDriver]:
    path = tmp_path / "jobs.db"
    engine = create_engine(f"sqlite:///{path}")
    tables = [Model.metadata.tables[model.__tablename__] for model in (models.Job, holds.NodeHold)]
    Model.metadata.create_all(engine, tables=tables)
    engine.dispose()
    connection = sqlite3.connect(path)
    yield ExplainingDriver(connection)
    connection.close()


async def test_heads_of_lanes_are_found_without_looking_at_what_has_ended(driver: ExplainingDriver) -> None:
    nobody = cast("Any", None)  # there is nothing to sign

    await relay.sign_batch(driver, signer=nobody, nodes=nobody, now=utc_now())

    of_jobs = [line for line in driver.plan if " jobs" in line]
    assert len(of_jobs) == 2
    assert all("state=?" in line for line in of_jobs), of_jobs
