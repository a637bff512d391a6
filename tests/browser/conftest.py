"""A controller with people and a mail server, and a browser that looks at it; one of each per test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import EXECUTABLE, Chromium, Visit, running_chromium
from tests.integration.conftest import quiet_logs, running_controller, sqlite_template, sqlite_url
from tests.integration.controller.people import World, build_world
from tests.integration.live import LiveController, free_port
from tests.integration.smtp_server import Inbox, running_smtp

__all__ = ["quiet_logs", "sqlite_template", "sqlite_url"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands here: it needs the browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    """A mail server on this machine."""
    with running_smtp(tmp_path, "none") as running:
        yield running


@pytest.fixture
async def live(sqlite_url: str, tmp_path: Path, inbox: Inbox) -> AsyncIterator[LiveController]:
    """A controller that browsers call by a name, as passkeys want it."""
    port = free_port()
    names = {"api_port": port, "public_names": ("localhost",), "controller_url": f"https://localhost:{port}"}
    async with running_controller(sqlite_url, tmp_path, **names, **inbox.settings) as running:
        yield running


@pytest.fixture
async def world(live: LiveController) -> AsyncIterator[World]:
    """Somebody of each role."""
    async with live.client() as http:
        http.base_url = f"https://localhost:{live.server.port}"
        yield await build_world(live.controller, http)


@pytest.fixture
async def chromium(live: LiveController) -> AsyncIterator[Chromium]:
    """The browser."""
    if EXECUTABLE is None:
        pytest.fail("Debian's chromium is not installed: make test-packages")
    origin = f"https://localhost:{live.server.port}"
    async with running_chromium(origin, live.controller.fleet.server_certificate.chain_path) as running:
        yield running


@pytest.fixture
async def visit(chromium: Chromium) -> AsyncIterator[Visit]:
    """A page; whatever it does in a test, it asks nobody else and breaks no rule of its own."""
    async with chromium.visit() as opened:
        yield opened
        assert opened.is_at_home, opened.requested
        assert opened.complaints == []
