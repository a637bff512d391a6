"""The command line against a real controller: real sockets, real TLS, real WebSockets; the nodes are simulated."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.bootstrap import build_registry
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from cli.__main__ import main
from tests.integration.live import LiveController, wait_until


@dataclass(frozen=True)
class Ended:
    """How one command line ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Wcp360 = Callable[..., Awaitable[Ended]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the developer's profiles, variables or terminal."""
    for name in [item for item in os.environ if item.startswith(("WCP360_", "XDG_", "_WCP360"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERM", "dumb")
    return tmp_path


@pytest.fixture
def wcp360(
    live_controller: LiveController, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Wcp360:
    """Run one command line as the administrator, in a thread, while the controller serves."""
    monkeypatch.setenv("WCP360_CONTROLLER", live_controller.api_url)
    monkeypatch.setenv("WCP360_CA_FILE", str(live_controller.ca_file))
    monkeypatch.setenv("WCP360_TOKEN", live_controller.admin_token)

    async def call(*words: str) -> Ended:
        capsys.readouterr()
        status = await asyncio.to_thread(main, list(words))
        captured = capsys.readouterr()
        return Ended(int(status), captured.out, captured.err)

    return call


@pytest.fixture
async def fleet(wcp360: Wcp360, live_controller: LiveController, tmp_path: Path) -> AsyncIterator[SimulatedFleet]:
    """One simulated node that was enrolled with a token from the command line, and is connected."""
    made = await wcp360("enrolment-tokens", "create", "--name", "node-1", "--roles", "web", "--json")
    assert made.status == 0, made.err
    plan = FleetPlan(
        controller_url=live_controller.api_url,
        names=("node-1",),
        state_dir=tmp_path / "nodes",
        tokens=(made.json["token"],),
    )
    fleet = SimulatedFleet(plan, build_registry())
    await fleet.enrol()
    fleet.start()
    try:
        await wait_until(lambda: fleet.connected_count == 1)
        yield fleet
    finally:
        await fleet.stop()


@pytest.fixture
def node(fleet: SimulatedFleet) -> str:
    """Its name."""
    return "node-1"
