"""A fleet on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.db.engine import Database
from controller.jobs.commands import release_node_jobs
from tests.integration.fleet.bench import FleetBench, build_bench, running


@pytest.fixture
def still_bench(database: Database, tmp_path: Path) -> FleetBench:
    """A fleet whose tasks do not run: the test takes every step itself."""
    return build_bench(database, tmp_path / "data")


@pytest.fixture
async def bench(still_bench: FleetBench) -> AsyncIterator[FleetBench]:
    """A fleet that runs."""
    async with running(still_bench) as started:
        yield started


@pytest.fixture
async def node_id(still_bench: FleetBench) -> str:
    """A node without any job."""
    agent = await still_bench.enrol()
    async with still_bench.database.write() as session:
        await release_node_jobs(session, agent.node_id, note="not in this test", now=still_bench.clock())
    return agent.node_id
