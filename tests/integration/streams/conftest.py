"""A node with a site, on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.streams.stage import StreamStage, stream_stage


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[StreamStage]:
    async with stream_stage(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def lite_stage(sqlite_url: str, tmp_path: Path) -> AsyncIterator[StreamStage]:
    """Where the database does not matter."""
    async with stream_stage(sqlite_url, tmp_path) as made:
        yield made
