"""One fleet for all end-to-end tests: a node of each distribution, enrolled with the one-shot line."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from wcplab.check import check_machine

from tests.e2e.fleet import Fleet, start_fleet, stop_fleet

LAB = os.environ.get("WCP360_E2E_LAB", "e2e") + os.environ.get("PYTEST_XDIST_WORKER", "")
"""Two runs side by side, and the workers of one run, need labs of their own."""
BOOKWORM = f"{LAB}-1"
TRIXIE = f"{LAB}-2"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in item.nodeid:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips, with the reason, where nodes cannot be booted; CI must be able to."""
    failed = [f"{finding.name}: {finding.detail}" for finding in check_machine() if not finding.is_ok]
    if failed and os.environ.get("CI") == "true":
        pytest.fail(f"CI must boot nodes: {failed}")
    if failed:
        pytest.skip(f"this machine cannot boot nodes: {failed}")


@pytest.fixture(scope="session")
def fleet(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    started = start_fleet(tmp_path_factory.mktemp("fleet"), LAB, ["bookworm", "trixie"])
    yield started
    stop_fleet(started)


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["debian12", "debian13"])
def each_node(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def node() -> str:
    """Where one distribution is enough."""
    return BOOKWORM
