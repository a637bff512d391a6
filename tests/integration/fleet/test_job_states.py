"""Moving jobs: every arrow of the state machine, and asking for jobs."""

from __future__ import annotations

import pytest

from controller.jobs.queue import MAX_ARGS_BYTES
from controller.jobs.states import JobState, is_allowed
from controller.jobs.transitions import transition
from shared.errors import BugError, InvalidInputError
from shared.protocol.job import JobMode
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import converge, offer_all, set_state


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing runs but what the test calls."""
    return still_bench


@pytest.mark.parametrize("before", list(JobState))
async def test_transition_each_arrow_moves_and_each_other_is_a_bug(
    bench: FleetBench, node_id: str, before: JobState
) -> None:
    job_id = await bench.request(node_id)
    for after in JobState:
        await set_state(bench, job_id, before)
        async with bench.database.write() as session:
            if is_allowed(before, after):
                assert await transition(session, job_id, {before}, after, now=bench.clock())
            else:
                with pytest.raises(BugError):
                    await transition(session, job_id, {before}, after, now=bench.clock())
        assert (await bench.job(job_id)).state is (after if is_allowed(before, after) else before)


async def test_transition_from_another_state_changes_nothing(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)

    async with bench.database.write() as session:
        moved = await transition(session, job_id, {JobState.QUEUED}, JobState.OFFERED, now=bench.clock())

    assert not moved
    assert await bench.path(job_id) == ["requested"]


async def test_transition_stamps_the_time_and_keeps_the_note(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)

    async with bench.database.write() as session:
        await transition(session, job_id, {JobState.REQUESTED}, JobState.CANCELLED, now=bench.clock(), note="no more")

    job = await bench.job(job_id)
    assert job.finished_at is not None


@pytest.mark.parametrize("is_signed", [False, True])
async def test_request_converge_supersedes_what_no_node_knows(bench: FleetBench, node_id: str, is_signed: bool) -> None:
    old = await converge(bench, node_id, 1)
    if is_signed:
        await bench.engine.relay_once()
    new = await converge(bench, node_id, 2)

    assert (await bench.job(old)).state is JobState.SUPERSEDED
    assert (await bench.job(new)).state is JobState.REQUESTED


async def test_request_converge_leaves_what_is_on_its_way(bench: FleetBench, node_id: str) -> None:
    old = await converge(bench, node_id, 1)
    await bench.engine.relay_once()
    await offer_all(bench, node_id)

    await converge(bench, node_id, 2)

    assert (await bench.job(old)).state is JobState.OFFERED


async def test_request_plan_supersedes_nothing(bench: FleetBench, node_id: str) -> None:
    old = await converge(bench, node_id, 1)

    await converge(bench, node_id, 2, mode=JobMode.PLAN)

    assert (await bench.job(old)).state is JobState.REQUESTED


async def test_request_of_another_subject_supersedes_nothing(bench: FleetBench, node_id: str) -> None:
    old = await converge(bench, node_id, 1)

    await converge(bench, node_id, 2, resource_key="account/bob")

    assert (await bench.job(old)).state is JobState.REQUESTED


async def test_request_too_large_for_one_job_is_refused(bench: FleetBench, node_id: str) -> None:
    with pytest.raises(InvalidInputError):
        await bench.request(node_id, args=b"x" * (MAX_ARGS_BYTES + 1))
