"""Faults 11 and 13: jobs that were good once, and clocks that are not."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from agent.bootstrap import build_registry
from agent.core.context import NodeContext
from agent.core.journal import Journal
from agent.core.server import build_executor
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.db.base import new_id
from controller.jobs.models import Job as JobRow
from shared.protocol.frames import AckJob, LogLine, OfferJob
from shared.protocol.job import Job, JobState, decode_job
from shared.protocol.local import JobAccepted, SubmitJob
from tests.faults.invariants import check_invariants
from tests.faults.node_process import DurableHost, host_file, read_durable_state
from tests.faults.processes import wait_until
from tests.faults.rogue_gateway import rogue_gateway, sign_job
from tests.faults.stage import NODES, SimNode, Stage, adopt_node
from tests.faults.workload import Operator

DAY = 86_400.0
YEAR = 365.25 * DAY


def read_effects(node: SimNode) -> Any:
    """The host and its counter."""
    state = read_durable_state(host_file(node.root))
    assert state is not None
    return msgspec.msgpack.encode(state)


async def capture(stage: Stage, rogue: Any, name: str) -> OfferJob:
    """A job that the node has run to its end, exactly as it went over the wire."""
    operator, node = Operator(stage), stage.nodes[name]
    domain = "ada.example" if name == "sim-1" else "bob.example"
    site = await operator.find("/sites", "domain", domain)
    await operator.move_site(site["id"], f"captured-{secrets.token_hex(3)}")
    await stage.settle()
    return rogue.frames_to(node, OfferJob)[-1]


async def play_back(rogue: Any, node: SimNode, offer: OfferJob) -> AckJob:
    def answers() -> list[AckJob]:
        return [frame for frame in rogue.frames_of(node, AckJob) if frame.job_id == offer.job_id]

    count = len(answers())
    async with asyncio.timeout(60):
        while len(answers()) == count:
            await rogue.inject(node, offer)  # the session may have been over already
            with contextlib.suppress(TimeoutError):
                await wait_until(lambda: len(answers()) > count, timeout_seconds=3, what="an answer to the replay")
    return answers()[count]


# --- 11 ---------------------------------------------------------------------------------------------------------------


async def test_fault_11_replay_in_the_same_session_and_after_a_restart_changes_nothing(stage: Stage, kind: str) -> None:
    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        node = stage.nodes["sim-1"]
        offer = await capture(stage, rogue, "sim-1")
        before = read_effects(node)

        assert (await play_back(rogue, node, offer)).state is JobState.SUCCEEDED
        await node.process.kill()
        await stage.start_node("sim-1")
        await stage.wait_connected("sim-1")
        assert (await play_back(rogue, node, offer)).state is JobState.SUCCEEDED

        assert read_effects(node) == before
        await stage.settle()
        await check_invariants(stage)


async def test_fault_11_replay_at_another_node_is_refused(stage: Stage, kind: str) -> None:
    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        other = stage.nodes["sim-2"]
        offer = await capture(stage, rogue, "sim-1")
        before = read_effects(other)

        answer = await play_back(rogue, other, offer)

        assert (answer.state, answer.error.code) == (JobState.REFUSED, "wrong_node")
        assert read_effects(other) == before
        await stage.settle()
        await check_invariants(stage)


async def test_fault_11_replay_after_the_machine_was_enrolled_anew_is_refused(stage: Stage) -> None:
    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        node = stage.nodes["sim-1"]
        offer = await capture(stage, rogue, "sim-1")
        await node.process.kill()
        await enrol_anew(stage, node)
        adopt_node(node.root, api_port=stage.api_port, gateway_port=node.proxy.port)
        await stage.start_node("sim-1")
        await stage.settle()
        before = read_effects(node)

        answer = await play_back(rogue, node, offer)

        assert (answer.state, answer.error.code) == (JobState.REFUSED, "wrong_node_generation")
        assert read_effects(node) == before


async def enrol_anew(stage: Stage, node: SimNode) -> None:
    """The same machine with a new key; somebody approves it."""
    node_id = node.node_id
    for path in (node.paths.agent_toml, node.paths.node_pem, node.paths.identity_json):
        path.unlink()
    token = (await stage.call("POST", "/enrolment-tokens", {"name": node.name}))["token"]
    plan = FleetPlan(
        controller_url=f"https://127.0.0.1:{stage.api_port}",
        names=(node.name,),
        state_dir=node.root.parent,
        tokens=(token,),
    )
    enrolling = asyncio.create_task(SimulatedFleet(plan, build_registry()).enrol())
    async with asyncio.timeout(60):
        while (await stage.ask("POST", f"/nodes/{node_id}/approve")).status_code == 409:  # noqa: ASYNC110 - asked over HTTP
            await asyncio.sleep(0.1)
    await enrolling


@pytest.mark.parametrize("days", [0, 2, 90, 200])
async def test_fault_11_replay_whenever_it_comes_finds_the_job_known_or_too_old(stage: Stage, days: int) -> None:
    """Straight to the executor, at any time, before and after it forgot what is over."""
    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        node = stage.nodes["sim-1"]
        offers = [await capture(stage, rogue, "sim-1") for _ in range(2)]
        await node.process.terminate()
    before = read_effects(node)

    journal = Journal(node.paths.executor_state_dir)
    try:
        now = decode_job(offers[-1].envelope.payload).issued_at + days * DAY + 1
        host = DurableHost(host_file(node.root), build_registry())
        context = NodeContext(host=host, registry=build_registry(), journal=journal, now=lambda: now)
        executor = build_executor(context, node.paths.executor_state_dir)
        await executor.start()
        answers = [executor.answer(SubmitJob(envelope=offer.envelope))[0] for offer in offers]
        await executor.stop(grace_seconds=5)
    finally:
        journal.close()

    known = JobState.SUCCEEDED if days == 0 else JobState.REFUSED
    assert all(isinstance(answer, JobAccepted) and answer.state is known for answer in answers), answers
    assert read_effects(node) == before


# --- 13 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What the node's clock is off by; read by it all the time."""
    path = tmp_path / "clock"
    path.write_text("+0\n")
    return path


def turn(clock: Path, offset: str) -> None:
    """Seconds that the node's clock is off by from now on."""
    clock.write_text(f"{offset}\n")


async def test_fault_13_node_an_hour_ahead_works_and_somebody_hears_of_it(stage: Stage, clock: Path) -> None:
    async with rogue_gateway(stage) as rogue:
        turn(clock, "+3600")
        await stage.start_controller()
        await stage.start_node("sim-2")
        node = await stage.start_node("sim-1", clock=clock)
        await stage.wait_connected(*NODES)
        operator = Operator(stage)
        site = await operator.find("/sites", "domain", "ada.example")

        await operator.move_site(site["id"], "an-hour-ahead")
        await rogue.wait_answer(node, LogLine, lambda line: "clock" in line.message)

        await stage.settle()
        await check_invariants(stage)


@pytest.mark.parametrize("offset", ["+3600", "-3600", "+315576000", "-315576000"])
async def test_fault_13_node_whose_clock_was_off_needs_nobody_once_it_is_right(
    stage: Stage, clock: Path, offset: str
) -> None:
    """By ten years no certificate is good, neither ours nor theirs: the node waits, and spoils nothing meanwhile."""
    turn(clock, offset)
    await stage.start_controller()
    await stage.start_node("sim-2")
    node = await stage.start_node("sim-1", clock=clock)
    operator = Operator(stage)
    site = await operator.find("/sites", "domain", "ada.example")
    await operator.move_site(site["id"], "while-it-was-off")
    pem = node.paths.node_pem.read_bytes()
    await wait_until(lambda: len(node.proxy.lines) > 0 or len(node.process.read_log()) > 200, what="an attempt")

    turn(clock, "+0")

    await stage.settle(timeout_seconds=90)
    assert node.paths.node_pem.exists()
    assert pem
    await check_invariants(stage)


async def test_fault_13_clock_that_jumps_in_the_middle_of_a_job_revives_no_old_one(stage: Stage, clock: Path) -> None:
    async with rogue_gateway(stage) as rogue:
        await stage.start_controller()
        await stage.start_node("sim-2")
        node = await stage.start_node("sim-1", clock=clock, pace=0.3)
        await stage.wait_connected(*NODES)
        operator = Operator(stage)
        site = await operator.find("/sites", "domain", "ada.example")
        await operator.move_site(site["id"], "clock-jumps")
        await wait_until(lambda: bool(node.journal("SELECT 1 FROM jobs WHERE state = 'started'")), what="a running job")

        turn(clock, "-7200")
        old = await expired_job(stage, rogue, node)
        answer = await play_back(rogue, node, old)

        assert (answer.state, answer.error.code) == (JobState.REFUSED, "expired")
        turn(clock, "+0")
        await operator.move_site(site["id"], "after-the-jump")
        await stage.settle()
        await check_invariants(stage, invented=[old.job_id])


async def expired_job(stage: Stage, rogue: Any, node: SimNode) -> OfferJob:
    """Signed an hour ago, over since half an hour, never seen by the node: as somebody held it back."""
    last = decode_job(rogue.frames_to(node, OfferJob)[-1].envelope.payload)
    made: Job = msgspec.structs.replace(
        last,
        job_id=new_id(),
        nonce=secrets.token_bytes(16),
        seq=last.seq + 1000,
        action="fleet.noop@1",
        args=b"",
        resource_key="test/old",
        generation=0,
        issued_at=last.issued_at - 3600,
        not_before=last.issued_at - 3600,
        expires_at=last.issued_at - 1800,
    )
    return OfferJob(envelope=sign_job(stage, made), job_id=made.job_id, seq=made.seq)


@pytest.mark.parametrize("offset", ["+1h", "+3d", "-1h"])
async def test_fault_13_controller_whose_clock_was_off_does_not_leave_its_nodes_deaf(stage: Stage, offset: str) -> None:
    """What it signs meanwhile is taken or refused; once it is right again, its jobs run as before."""
    await stage.start_controller(faketime=offset)
    for name in stage.nodes:
        await stage.start_node(name)
    operator = Operator(stage)
    if offset.startswith("+"):
        await stage.wait_connected(*NODES)
        await stage.wait_job(await operator.ping("sim-1"))
    else:
        # Certificates that were issued within that hour begin in its future: their nodes wait until it is right.
        await wait_until(lambda: len(stage.nodes["sim-1"].proxy.lines) > 0, what="an attempt")

    await stage.restart_controller()

    await stage.wait_connected(*NODES)
    assert (await stage.wait_job(await operator.ping("sim-1")))["state"] == "succeeded"
    site = await operator.find("/sites", "domain", "ada.example")
    await operator.move_site(site["id"], "right-again")
    await stage.settle()
    async with stage.database.read() as session:
        newest = select(JobRow).where(JobRow.resource_key == "account/ada").order_by(JobRow.id.desc()).limit(1)
        assert (await session.execute(newest)).scalar_one().state.value == "succeeded"
