"""Many nodes asked at once, and who answered."""

from __future__ import annotations

import asyncio

import pytest

from controller.core.context import Actor, Role
from controller.fleet.gateway.pings import PingRequest
from controller.jobs.states import JobState
from shared.errors import ConflictError, ForbiddenError, NotFoundError
from tests.integration.fleet.bench import ADMIN, FleetBench


async def test_ping_when_nodes_answer_says_so_once_their_results_are_committed(bench: FleetBench) -> None:
    agents = [await bench.enrol() for _ in range(3)]
    sessions = [await agent.connect() for agent in agents]
    for session in sessions:
        await session.finish(await session.take_job())  # the node's first manifest
    request = PingRequest(node_ids=tuple(agent.node_id for agent in agents))

    asking = asyncio.create_task(bench.fleet.pings.ping(ADMIN, "request-ping", request))
    for session in sessions:
        await session.finish(await session.take_job())
    answer = await asking

    assert [item.node_id for item in answer.items] == [agent.node_id for agent in agents]
    assert all(item.has_answered for item in answer.items)
    states = [(await bench.job(item.job_id)).state for item in answer.items]
    assert states == [JobState.SUCCEEDED] * 3
    for session in sessions:
        await session.close()


async def test_ping_when_a_node_is_away_says_that_it_has_not_answered(bench: FleetBench) -> None:
    agent = await bench.enrol()

    request = PingRequest(node_ids=(agent.node_id,), wait_seconds=0)
    answer = await bench.fleet.pings.ping(ADMIN, "request-ping", request)

    assert [item.has_answered for item in answer.items] == [False]
    assert (await bench.path(answer.items[0].job_id))[0] == "requested"  # it is asked all the same


async def test_ping_when_one_node_is_unknown_asks_none(bench: FleetBench) -> None:
    agent = await bench.enrol()
    before = len(await bench.jobs(agent.node_id))

    with pytest.raises(NotFoundError):
        await bench.fleet.pings.ping(ADMIN, "request-ping", PingRequest(node_ids=(agent.node_id, "no-such-node")))

    assert len(await bench.jobs(agent.node_id)) == before


async def test_ping_when_one_node_is_revoked_asks_none(bench: FleetBench) -> None:
    agent, gone = await bench.enrol(), await bench.enrol()
    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, gone.node_id))
    before = len(await bench.jobs(agent.node_id))

    with pytest.raises(ConflictError):
        await bench.fleet.pings.ping(ADMIN, "request-ping", PingRequest(node_ids=(agent.node_id, gone.node_id)))

    assert len(await bench.jobs(agent.node_id)) == before


async def test_ping_when_not_permitted_is_refused(bench: FleetBench) -> None:
    agent = await bench.enrol()
    reader = Actor(kind="token", id="t", name="reader", role=Role.ADMIN, scopes=frozenset({"nodes:read"}))

    with pytest.raises(ForbiddenError):
        await bench.fleet.pings.ping(reader, "request-ping", PingRequest(node_ids=(agent.node_id,)))
