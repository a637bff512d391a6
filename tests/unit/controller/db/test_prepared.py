"""Statements that are compiled once for each database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Dialect, select, update

from controller.db.prepared import POSTGRESQL, SQLITE, Prepared, any_of, param
from controller.jobs.models import Job
from controller.jobs.states import JobState

AT = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


class Recorder:
    """A driver that remembers what it was asked, and answers what it was told to."""

    def __init__(self, dialect: Dialect, rows: Sequence[Sequence[Any]] = ()) -> None:
        self.dialect = dialect
        self.asked: list[tuple[str, Sequence[Any]]] = []
        self._rows = rows

    async def fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        self.asked.append((" ".join(sql.split()), values))
        return self._rows

    async def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.asked += [(" ".join(sql.split()), row) for row in rows]


class Found(NamedTuple):
    id: str
    state: JobState
    finished_at: datetime | None


FIND = Prepared(
    select(Job.id, Job.state, Job.finished_at).where(
        any_of(Job.node_id, "node_ids"),
        Job.state.in_([JobState.QUEUED, JobState.OFFERED]),
        Job.expires_at > param("now"),
    ),
    Found,
)


async def test_list_of_values_on_sqlite_is_one_json_text_and_leaves_the_index_usable() -> None:
    driver = Recorder(SQLITE)

    await FIND.fetch(driver, node_ids=("a", "b"), now=AT)

    ((sql, values),) = driver.asked
    assert "jobs.node_id IN (SELECT value FROM json_each(?)) AND" in sql
    assert values == ('["a", "b"]', "queued", "offered", "2026-11-23 07:00:00.000000")


async def test_list_of_values_on_postgresql_is_one_array() -> None:
    driver = Recorder(POSTGRESQL)

    await FIND.fetch(driver, node_ids=("a", "b"), now=AT)

    ((sql, values),) = driver.asked
    assert "jobs.node_id = ANY($1::VARCHAR[])" in sql
    assert list(values) == [["a", "b"], AT, "queued", "offered"]


async def test_rows_become_the_columns_types() -> None:
    driver = Recorder(SQLITE, [("job-1", "queued", "2026-11-23 07:00:00.000000"), ("job-2", "offered", None)])

    found = await FIND.fetch(driver, node_ids=("a",), now=AT)

    assert found == [Found("job-1", JobState.QUEUED, AT), Found("job-2", JobState.OFFERED, None)]


async def test_change_for_many_binds_each_set_of_parameters() -> None:
    change = Prepared(update(Job).where(Job.id == param("job_id")).values(state=param("to"), updated_at=param("now")))
    driver = Recorder(SQLITE)

    await change.run_many(driver, [{"job_id": name, "to": JobState.STUCK, "now": AT} for name in ("a", "b")])

    assert [values[-1] for _, values in driver.asked] == ["a", "b"]
    assert all("stuck" in values for _, values in driver.asked)


async def test_change_for_nobody_asks_nothing() -> None:
    driver = Recorder(SQLITE)

    await FIND.run_many(driver, [])

    assert driver.asked == []


async def test_parameter_that_is_missing_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        await FIND.fetch(Recorder(SQLITE), node_ids=("a",))
