"""Fault 28 with real processes: a gateway that is stopped, or dies, and the other one that takes its nodes over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from controller.fleet.models import Node
from tests.faults.processes import Zygote
from tests.integration.scale.deployment import Deployment, Member, deployment
from tests.integration.scale.test_rolling import check_everything_ended_once

NODES = 4


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"drift_check_seconds": 3600}


async def read_holders(made: Deployment) -> dict[str, tuple[str | None, int, bool]]:
    """Node id to gateway, epoch and whether it counts as connected."""
    async with made.database.read() as session:
        rows = (await session.scalars(select(Node))).all()
    return {row.id: (row.gateway_id, row.session_epoch, row.is_connected) for row in rows}


async def ping_all(made: Deployment, nodes: list[str]) -> list[str]:
    """A job for each node, all of them successful; their ids."""
    jobs = [(await made.call("POST", f"/nodes/{node_id}/ping"))["jobs"][0]["id"] for node_id in nodes]
    for job_id in jobs:
        assert (await made.wait_job(job_id))["state"] == "succeeded", made.describe()
    return jobs


async def find_gateway_id(made: Deployment, member: Member) -> str:
    processes = (await made.call("GET", "/processes"))["items"]
    return str(next(item["id"] for item in processes if item["pid"] == member.child.pid))


async def wait_all_at(made: Deployment, gateway_id: str) -> None:
    """Until every node is connected to this gateway."""
    async with asyncio.timeout(90):
        while {(held, up) for held, _, up in (await read_holders(made)).values()} != {(gateway_id, True)}:  # noqa: ASYNC110 - asked of the database
            await asyncio.sleep(0.1)


async def test_gateway_when_it_wakes_after_its_nodes_moved_writes_nothing_about_them(
    zygote: Zygote, tmp_path: Path, postgres_url: str, settings: dict[str, Any]
) -> None:
    async with deployment(zygote, tmp_path, postgres_url, **settings) as made:
        for role in ("api", "worker"):
            await made.start(role)
        sleeper = await made.start("gateway", "1")
        await made.start_nodes(NODES)
        nodes = [node["id"] for node in await made.wait_nodes(NODES)]
        accepted = await ping_all(made, nodes)
        other = await made.start("gateway", "2")
        other_id = await find_gateway_id(made, other)

        sleeper.child.stop()
        made.gateway.drop(sleeper.gateway_port)
        await wait_all_at(made, other_id)
        accepted += await ping_all(made, nodes)
        before = await read_holders(made)

        sleeper.child.cont()
        async with asyncio.timeout(60):  # it is awake again, and has had its say about every session it held
            while "wcp360_nodes_connected 0.0" not in await read_metrics(sleeper):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.1)
        await made.wait_processes("api", "gateway", "gateway", "worker")
        accepted += await ping_all(made, nodes)

        assert await read_holders(made) == before
        await check_everything_ended_once(made, accepted)


async def read_metrics(member: Member) -> str:
    async with httpx.AsyncClient(timeout=20) as http:
        return (await http.get(f"http://127.0.0.1:{member.status_port}/metrics")).text


async def test_gateway_when_it_dies_its_nodes_are_not_connected_and_then_at_the_other_one(
    zygote: Zygote, tmp_path: Path, postgres_url: str, settings: dict[str, Any]
) -> None:
    async with deployment(zygote, tmp_path, postgres_url, **settings) as made:
        for role in ("api", "worker"):
            await made.start(role)
        dying = await made.start("gateway", "1")
        await made.start_nodes(NODES)
        nodes = [node["id"] for node in await made.wait_nodes(NODES)]
        assert made.nodes is not None

        # Nobody redials: the agents sleep while the gateway dies, so only the lease can tell that they are gone.
        made.nodes.stop()
        await dying.child.kill()
        await made.wait_nodes(0)
        other = await made.start("gateway", "2")
        made.nodes.cont()
        await wait_all_at(made, await find_gateway_id(made, other))

        await check_everything_ended_once(made, await ping_all(made, nodes))


async def test_api_replicas_know_what_gateways_know(
    zygote: Zygote, tmp_path: Path, postgres_url: str, settings: dict[str, Any]
) -> None:
    """A node's metrics at an API that never saw it; a dry run and a change through different replicas."""
    async with deployment(zygote, tmp_path, postgres_url, **settings) as made:
        first = await made.start("api", "1")
        second = await made.start("api", "2")
        for role in ("gateway", "worker"):
            await made.start(role)
        await made.start_nodes(1)
        node_id = (await made.wait_nodes(1))[0]["id"]

        async with asyncio.timeout(60):
            for port in (first.api_port, second.api_port):
                while (await made.call("GET", f"/nodes/{node_id}", port=port)).get("metrics") is None:  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0.2)
        plan = await made.call("POST", f"/nodes/{node_id}/ping?dry_run=true", port=second.api_port)
        assert [answer["error"] for answer in plan["nodes"]] == [None]
        (accepted,) = await ping_all(made, [node_id])
        seen = await made.call("GET", f"/jobs/{accepted}", port=second.api_port)
        assert seen["state"] == "succeeded"
