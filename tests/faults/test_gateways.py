"""Faults 22 and 28: everybody comes back at once; a gateway dies, or sleeps and wakes where it has no say any more."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from controller.db.engine import Database
from controller.fleet.models import Node
from controller.jobs.models import Job
from controller.jobs.states import JobState
from tests.bench.stock import make_stock
from tests.faults.invariants import check_invariants
from tests.faults.processes import Child, Zygote, spawn, wait_until
from tests.faults.stage import Stage
from tests.faults.template import add_admin
from tests.faults.workload import Operator
from tests.integration.live import free_port

SHORT_SECONDS = 3.0
MANY = int(os.environ.get("WCP360_FAULT_NODES", "300"))


# --- 28 ---------------------------------------------------------------------------------------------------------------


class Pair:
    """Two controllers on one database; the nodes are with the first."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.second_dir = stage.folder / "second"
        self.first_gateway = stage.gateway_port
        self.second_api, self.second_gateway = free_port(), free_port()

    async def start(self) -> tuple[Child, Child]:
        stage = self.stage
        first = await stage.start_controller(dead_line_seconds=SHORT_SECONDS)
        shutil.copytree(stage.data_dir / "pki", self.second_dir / "pki")
        second = await stage.start_controller(
            dead_line_seconds=SHORT_SECONDS,
            data_dir=self.second_dir,
            api_port=self.second_api,
            gateway_port=self.second_gateway,
        )
        for name in stage.nodes:
            await stage.start_node(name, dead_line=SHORT_SECONDS, pace=0.2)
        await stage.wait_connected(*stage.nodes)
        return first, second

    async def move_nodes(self) -> None:
        """What a balancer does: new connections go to the second."""
        for node in self.stage.nodes.values():
            node.proxy.upstream_port = self.second_gateway
        self.stage.api_port = self.second_api

    async def read_gateways(self) -> set[str | None]:
        async with self.stage.database.read() as session:
            return set((await session.execute(select(Node.gateway_id).where(Node.is_connected))).scalars())


@pytest.fixture
def kind() -> str:
    """Two processes write one database: that is PostgreSQL's business."""
    return "postgresql"


@pytest.mark.postgresql
async def test_fault_28_gateway_that_was_asleep_writes_nothing_when_it_wakes(stage: Stage, kind: str) -> None:
    pair = Pair(stage)
    first, _second = await pair.start()
    operator = Operator(stage)
    site = await operator.find("/sites", "domain", "ada.example")
    before = await pair.read_gateways()
    await operator.move_site(site["id"], "taken-by-the-sleeper")

    first.stop()
    await pair.move_nodes()
    await wait_until(lambda: len(stage.nodes["sim-1"].proxy.lines) > 1, what="a second line")
    await operator.move_site(site["id"], "after-the-move")
    with_sleeper = select(func.count()).select_from(Node).where(Node.gateway_id.in_(before))
    await stage.wait_count(with_sleeper, 0, what="all nodes to leave the sleeper")
    await stage.settle()
    after = await pair.read_gateways()
    assert len(after) == 1
    assert not after & before
    first.cont()
    await wait_until(lambda: count_connections(pair.first_gateway) == 0, what="the sleeper's sessions to end")
    await operator.move_site(site["id"], "with-both-awake")

    await stage.settle()
    assert await pair.read_gateways() == after
    await check_invariants(stage)


def count_connections(port: int) -> int:
    """Connections to a port that are open on the server's side. Source: proc_net(5), the columns of /proc/net/tcp."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)
    return sum(row[1].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


@pytest.mark.postgresql
async def test_fault_28_gateway_killed_with_its_sessions_and_the_nodes_move(stage: Stage, kind: str) -> None:
    pair = Pair(stage)
    first, _second = await pair.start()
    operator = Operator(stage)
    site = await operator.find("/sites", "domain", "ada.example")
    await operator.move_site(site["id"], "under-the-first")

    await first.kill()
    await pair.move_nodes()
    await operator.move_site(site["id"], "under-the-second")

    await stage.settle()
    await check_invariants(stage)


# --- 22 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def crowd(zygote: Zygote, memory_dir: Path, tmp_path: Path) -> AsyncIterator[Stage]:
    """A controller under many simulated nodes in one process; none of them is started yet."""
    folder = memory_dir / f"crowd-{os.getpid()}"
    stock = await asyncio.to_thread(make_stock, folder, folder / "agents", MANY)
    url = f"sqlite+aiosqlite:///{folder / 'data/controller.db'}"
    stage = Stage(zygote, folder, url, await add_admin(url, "tester"), stock.api_port, stock.gateway_port)
    yield stage
    await stage.close()
    shutil.rmtree(folder, ignore_errors=True)


async def test_fault_22_everybody_at_once_after_a_crash_and_all_are_back(crowd: Stage) -> None:
    await crowd.start_controller()
    names = ",".join(f"sim-{number}" for number in range(1, MANY + 1))
    argv = [sys.executable, "-m", "agent", "simulate", "--controller", f"https://127.0.0.1:{crowd.api_port}"]
    agents = spawn(
        [*argv, "--names", names, "--state-dir", str(crowd.folder / "agents"), "--in-memory"],
        env={},
        log=crowd.folder / "agents.log",
    )
    try:
        await wait_crowd(crowd)
        ids = await list_ids(crowd.database)
        for node_id in ids[:50]:
            await crowd.call("POST", f"/nodes/{node_id}/ping")

        await crowd.restart_controller()
        await wait_crowd(crowd)
        for node_id in ids[50:100]:
            await crowd.call("POST", f"/nodes/{node_id}/ping")

        done = select(func.count()).select_from(Job).where(Job.id.in_(crowd.accepted), Job.state == JobState.SUCCEEDED)
        await crowd.wait_count(done, len(crowd.accepted), what="answers")
        assert crowd.controller.resident_bytes < 400 * 1024**2
    finally:
        await agents.kill()


async def wait_crowd(stage: Stage) -> None:
    connected = select(func.count()).select_from(Node).where(Node.is_connected, Node.session_epoch > 0)
    await stage.wait_count(connected, MANY, timeout_seconds=120, what="the crowd")


async def list_ids(database: Database) -> list[str]:
    async with database.read() as session:
        return list((await session.execute(select(Node.id).order_by(Node.id))).scalars())
