"""What people do to jobs."""

from __future__ import annotations

import pytest

from controller.jobs import delivery
from controller.jobs.commands import cancel_job, discard_job, retry_job
from controller.jobs.states import JobState
from shared.errors import ConflictError, NotFoundError, StaleGenerationError
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import bring_to_node, converge, set_state


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing runs but what the test calls."""
    return still_bench


async def test_cancel_before_it_was_sent_is_immediate(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)

    async with bench.database.write() as session:
        job = await cancel_job(session, job_id, now=bench.clock())

    assert job.state is JobState.CANCELLED


async def test_cancel_of_what_the_node_has_is_said_once_per_session(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bring_to_node(bench, node_id, job_id)
    async with bench.database.write() as session:
        job = await cancel_job(session, job_id, now=bench.clock())
    assert job.state is JobState.ACCEPTED

    async def claim(epoch: int) -> list[str]:
        async with bench.database.hot() as driver:
            return (await delivery.claim(driver, {node_id: epoch}, now=bench.clock())).of(node_id).cancels

    assert [await claim(1), await claim(1), await claim(2)] == [[job.delivery_id], [], [job.delivery_id]]


async def test_cancel_of_what_has_ended_is_a_conflict(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, JobState.SUCCEEDED)

    async with bench.database.write() as session:
        with pytest.raises(ConflictError):
            await cancel_job(session, job_id, now=bench.clock())


async def test_retry_is_a_job_of_its_own(bench: FleetBench, node_id: str) -> None:
    job_id = await converge(bench, node_id, 3, account_id="account")
    await set_state(bench, job_id, JobState.FAILED)

    async with bench.database.write() as session:
        new_id = await retry_job(session, job_id, actor="user/2", request_id="r2", now=bench.clock())

    new = await bench.job(new_id)
    assert (new.retry_of, new.generation, new.account_id, new.actor) == (job_id, 3, "account", "user/2")
    assert (await bench.job(job_id)).state is JobState.FAILED


async def test_retry_of_an_outdated_converge_points_to_the_newest_state(bench: FleetBench, node_id: str) -> None:
    job_id = await converge(bench, node_id, 3)
    await set_state(bench, job_id, JobState.FAILED)
    await converge(bench, node_id, 4)

    async with bench.database.write() as session:
        with pytest.raises(StaleGenerationError):
            await retry_job(session, job_id, actor="user/2", request_id="r2", now=bench.clock())


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED, JobState.SUPERSEDED])
async def test_retry_and_discard_of_what_did_not_fail_are_conflicts(
    bench: FleetBench, node_id: str, state: JobState
) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, state)

    async with bench.database.write() as session:
        with pytest.raises(ConflictError):
            await retry_job(session, job_id, actor="user/2", request_id="r2", now=bench.clock())
        with pytest.raises(ConflictError):
            await discard_job(session, job_id, now=bench.clock())


async def test_discard_puts_a_failed_job_aside(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, JobState.FAILED)

    async with bench.database.write() as session:
        assert (await discard_job(session, job_id, now=bench.clock())).state is JobState.DISCARDED


async def test_commands_of_an_unknown_job_are_not_found(bench: FleetBench) -> None:
    async with bench.database.write() as session:
        for command in (cancel_job, discard_job):
            with pytest.raises(NotFoundError):
                await command(session, "no-such-job", now=bench.clock())
