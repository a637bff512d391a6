"""A cloned machine: two agents with one identity, each with a boot of its own, against the real gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.fleet.gateway.quarantine import TAKEOVERS_MAX
from controller.fleet.models import NodeState
from shared.errors import ConflictError
from shared.protocol.frames import Reject
from tests.integration.fleet.agent import FakeAgent, Session
from tests.integration.fleet.bench import ADMIN, FleetBench

BOOTS = ("boot-of-the-node", "boot-of-the-clone")


async def take_over(agent: FakeAgent, boot_id: str, **hello: Any) -> Session:
    return await agent.connect(boot_id=boot_id, **hello)


async def flap(bench: FleetBench, agent: FakeAgent) -> Reject:
    """Both take the session in turn, without a pause, until one of them is sent away."""
    for turn in range(TAKEOVERS_MAX):
        await take_over(agent, BOOTS[turn % 2])
    session = Session(agent, await agent.dial())
    await session.send(agent.hello(boot_id=BOOTS[TAKEOVERS_MAX % 2]))
    return await session.expect(Reject)


async def test_fault_17_two_machines_with_one_identity_are_put_in_quarantine(bench: FleetBench) -> None:
    agent = await bench.enrol()

    rejected = await flap(bench, agent)

    node = await bench.node(agent.node_id)
    assert (rejected.code, rejected.is_fatal) == ("duplicate_identity", False)
    assert node.state is NodeState.QUARANTINED
    assert "2 machines use this identity" in node.quarantine_reason
    assert not node.is_connected
    assert "node.quarantine" in bench.ear.events("nodes")


async def test_fault_17_node_in_quarantine_gets_no_job_until_it_is_released_and_then_all_of_them(
    bench: FleetBench,
) -> None:
    agent = await bench.enrol()
    await (await take_over(agent, BOOTS[0])).run_next()  # the first manifest
    await flap(bench, agent)
    job_id = await bench.request(agent.node_id)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - of the WebSocket library
        await agent.dial()
    assert "403" in str(refused.value)

    node = await bench.change(lambda ctx: bench.fleet.quarantine.release(ctx, agent.node_id))
    session = await take_over(agent, BOOTS[0])
    done = await session.run_next()

    assert done.job_id == job_id
    assert node.state is NodeState.ACTIVE
    assert "node.release" in bench.ear.events("nodes")


async def test_fault_17_both_sessions_are_cut_when_the_quarantine_begins(bench: FleetBench) -> None:
    agent = await bench.enrol()
    last = None
    for turn in range(TAKEOVERS_MAX):
        last = await take_over(agent, BOOTS[turn % 2])
    clone = Session(agent, await agent.dial())
    await clone.send(agent.hello(boot_id=BOOTS[TAKEOVERS_MAX % 2]))

    assert last is not None
    codes = await asyncio.gather(last.wait_closed(), clone.wait_closed())

    assert set(codes) <= {4001, 4400, 4403}


async def test_node_that_reboots_again_and_again_is_not_put_in_quarantine(bench: FleetBench) -> None:
    agent = await bench.enrol()

    for number in range(2 * TAKEOVERS_MAX):
        await take_over(agent, f"boot-{number}")

    assert (await bench.node(agent.node_id)).state is NodeState.ACTIVE


async def test_node_whose_link_restarts_again_and_again_is_not_put_in_quarantine(bench: FleetBench) -> None:
    agent = await bench.enrol()

    for _ in range(2 * TAKEOVERS_MAX):
        await take_over(agent, BOOTS[0])

    assert (await bench.node(agent.node_id)).state is NodeState.ACTIVE


async def test_machines_with_two_machine_ids_are_put_in_quarantine_however_often_they_boot(bench: FleetBench) -> None:
    agent = await bench.enrol()
    for number in range(TAKEOVERS_MAX):
        await take_over(agent, f"boot-{number}", machine_id_hash=f"{number % 2:064x}")
    session = Session(agent, await agent.dial())
    await session.send(agent.hello(boot_id="boot-last", machine_id_hash=f"{TAKEOVERS_MAX % 2:064x}"))

    assert (await session.expect(Reject)).code == "duplicate_identity"


async def test_release_of_a_node_that_is_not_in_quarantine_is_a_conflict(bench: FleetBench) -> None:
    agent = await bench.enrol()

    with pytest.raises(ConflictError):
        await bench.operations.change(ADMIN, "release", lambda ctx: bench.fleet.quarantine.release(ctx, agent.node_id))
