"""The revisions build exactly what the models say, on both databases, and can be walked back."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

from controller.bootstrap import METADATA
from controller.db.base import Model
from controller.db.migrations import runner


async def list_tables(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names) - {"alembic_version"}


async def test_upgrade_builds_what_the_models_say(empty_database_url: str) -> None:
    await runner.upgrade(empty_database_url)

    assert await list_tables(empty_database_url) == set(METADATA.tables)
    assert await runner.find_differences(empty_database_url, METADATA) == []
    assert await runner.read_revision(empty_database_url) == runner.head_revision()


async def test_upgrade_when_done_already_changes_nothing(empty_database_url: str) -> None:
    await runner.upgrade(empty_database_url)

    await runner.upgrade(empty_database_url)

    assert await runner.read_revision(empty_database_url) == runner.head_revision()


async def test_upgrade_by_two_processes_at_once_runs_once(empty_database_url: str) -> None:
    await asyncio.gather(runner.upgrade(empty_database_url), runner.upgrade(empty_database_url))

    assert await list_tables(empty_database_url) == set(METADATA.tables)


async def test_downgrade_to_base_leaves_no_table(empty_database_url: str) -> None:
    await runner.upgrade(empty_database_url)

    await runner.downgrade(empty_database_url, "base")

    assert await list_tables(empty_database_url) == set()


def test_there_is_one_line_of_revisions() -> None:
    assert len(runner.known_revisions()) == len(set(runner.known_revisions())) >= 1
    assert runner.head_revision() is not None


@pytest.mark.parametrize("table", sorted(METADATA.tables))
def test_every_foreign_key_has_an_index_and_says_what_happens_on_delete(table: str) -> None:
    columns = METADATA.tables[table].columns
    indexed = {next(iter(index.columns)).name for index in METADATA.tables[table].indexes}
    indexed |= {
        next(iter(constraint.columns)).name
        for constraint in METADATA.tables[table].constraints
        if getattr(constraint, "columns", None) and type(constraint).__name__ != "ForeignKeyConstraint"
    }

    for column in columns:
        for key in column.foreign_keys:
            assert key.ondelete, f"{table}.{column.name}"
            assert column.name in indexed, f"{table}.{column.name}"


def test_every_model_is_known_to_bootstrap() -> None:
    assert {mapper.local_table.name for mapper in Model.registry.mappers} == set(METADATA.tables)  # type: ignore[attr-defined]
