"""The hosting fixture: core, modules and API on each kind of database, with nodes that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from controller.bootstrap import Controller
from controller.db.engine import Database
from tests.integration.controller.hosting import Hosting, build_hosting
from tests.integration.controller.people import World, build_world


@pytest.fixture
async def hosting(database: Database, tmp_path: Path) -> AsyncIterator[Hosting]:
    """One node, nothing on it."""
    built = await build_hosting(database, tmp_path / "pki")
    await built.add_node()
    yield built
    await built.http.aclose()


@pytest.fixture
async def world(controller: Controller, anonymous_client: httpx.AsyncClient) -> World:
    """Two resellers with somebody of each role."""
    return await build_world(controller, anonymous_client)
