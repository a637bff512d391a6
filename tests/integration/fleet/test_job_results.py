"""What a node says about its jobs, and what time does to them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs import offers
from controller.jobs.models import Job as JobRow
from controller.jobs.results import ATTEMPTS_MAX, Observers, read_inbox, record_event
from controller.jobs.states import FINAL, JobState, is_allowed
from shared.protocol.frames import DriftReport, Event, Progress
from shared.protocol.job import ErrorBody, JobMode, JobResult, Semantics
from shared.protocol.job import JobState as NodeJobState
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import bring_to_node, offer_all, report, set_state


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing runs but what the test calls."""
    return still_bench


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (NodeJobState.SUCCEEDED, JobState.SUCCEEDED),
        (NodeJobState.FAILED, JobState.FAILED),
        (NodeJobState.CANCELLED, JobState.CANCELLED),
        (NodeJobState.REFUSED, JobState.REFUSED),
        (NodeJobState.INDETERMINATE, JobState.INDETERMINATE),
    ],
)
@pytest.mark.parametrize(
    "before", [JobState.OFFERED, JobState.ACCEPTED, JobState.RUNNING, JobState.EXPIRED, JobState.STUCK]
)
async def test_result_each_answer_ends_the_job(
    bench: FleetBench, node_id: str, said: NodeJobState, expected: JobState, before: JobState
) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, before)

    assert await report(bench, node_id, job_id, said) == (job_id,)

    assert (await bench.job(job_id)).state is expected


async def test_result_after_the_controller_gave_up_still_counts(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, JobState.INDETERMINATE)

    await report(bench, node_id, job_id, NodeJobState.SUCCEEDED)

    assert (await bench.job(job_id)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("before", sorted(FINAL - {JobState.EXPIRED, JobState.STUCK, JobState.INDETERMINATE}, key=str))
async def test_result_of_a_job_that_ended_changes_nothing(bench: FleetBench, node_id: str, before: JobState) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, before)

    assert await report(bench, node_id, job_id, NodeJobState.FAILED) == ()

    assert (await bench.job(job_id)).state is before


async def test_result_retryable_error_is_tried_three_times_with_growing_pauses(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    error = ErrorBody(code="unavailable", message="apt is locked")
    pauses = []
    for attempt in range(1, ATTEMPTS_MAX + 1):
        await bring_to_node(bench, node_id, job_id)
        assert (await bench.job(job_id)).state is JobState.ACCEPTED
        await report(bench, node_id, job_id, NodeJobState.FAILED, error=error, number=attempt)
        job = await bench.job(job_id)
        if attempt < ATTEMPTS_MAX:
            assert (job.state, job.attempts, job.payload) == (JobState.REQUESTED, attempt + 1, None)
            pauses.append(job.not_before - bench.clock())
            assert await bench.engine.relay_once() == 0, "not before its time"
            bench.clock.advance(seconds=20)

    job = await bench.job(job_id)
    assert (job.state, job.attempts, job.error_code) == (JobState.FAILED, 3, "unavailable")
    assert pauses[1] > pauses[0]


@pytest.mark.parametrize("options", [{"mode": JobMode.PLAN}, {"semantics": Semantics.ONCE}], ids=["plan", "once"])
async def test_result_retryable_error_of_what_must_not_run_again_is_final(
    bench: FleetBench, node_id: str, options: dict[str, Any]
) -> None:
    job_id = await bench.request(node_id, **options)
    await set_state(bench, job_id, JobState.RUNNING)

    await report(bench, node_id, job_id, NodeJobState.FAILED, error=ErrorBody(code="unavailable", message="busy"))

    assert (await bench.job(job_id)).state is JobState.FAILED


async def test_result_tells_observers_once_and_only_of_what_was_applied(bench: FleetBench, node_id: str) -> None:
    told: list[str] = []

    async def observe(_session: AsyncSession, job: JobRow, _result: JobResult) -> None:
        told.append(job.id)

    observers = Observers(results=[observe])
    applied, planned = await bench.request(node_id), await bench.request(node_id, mode=JobMode.PLAN)
    for job_id in (applied, planned):
        await set_state(bench, job_id, JobState.RUNNING)
        await report(bench, node_id, job_id, NodeJobState.SUCCEEDED, observers=observers)
        await report(bench, node_id, job_id, NodeJobState.SUCCEEDED, observers=observers)

    assert told == [applied]


async def test_result_observer_that_fails_does_not_lose_the_result(bench: FleetBench, node_id: str) -> None:
    async def fail(session: AsyncSession, job: JobRow, _result: JobResult) -> None:
        await session.execute(update(JobRow).where(JobRow.id == job.id).values(label="half written"))
        raise ValueError("a mistake of ours")

    job_id = await bench.request(node_id, label="whole")
    await set_state(bench, job_id, JobState.RUNNING)

    await report(bench, node_id, job_id, NodeJobState.SUCCEEDED, observers=Observers(results=[fail]))

    job = await bench.job(job_id)
    assert (job.state, job.label) == (JobState.SUCCEEDED, "whole")


async def test_drift_event_is_taken_in_once(bench: FleetBench, node_id: str) -> None:
    told: list[DriftReport] = []

    async def observe(_session: AsyncSession, _node_id: str, drift: DriftReport) -> None:
        told.append(drift)

    drift = DriftReport(subjects=("node",))
    for _ in range(2):
        async with bench.database.write() as session:
            await read_inbox(session, node_id, "epoch", 1)
            event = Event(number=1, kind="drift", drift=drift)
            await record_event(session, node_id, event, observers=Observers(drifts=[observe]), now=bench.clock())

    assert told == [drift]


async def test_inbox_starts_over_with_a_new_journal_or_a_new_spool(bench: FleetBench, node_id: str) -> None:
    async def read(epoch: str, head: int) -> int:
        async with bench.database.write() as session:
            return await read_inbox(session, node_id, epoch, head)

    job_id = await bench.request(node_id)
    await set_state(bench, job_id, JobState.RUNNING)
    await report(bench, node_id, job_id, NodeJobState.SUCCEEDED, number=5)

    assert await read("epoch", 7) == 5
    assert await read("epoch", 2) == 0
    assert await read("other", 0) == 0


async def test_sweep_expires_what_no_node_took(bench: FleetBench, node_id: str) -> None:
    waiting = await bench.request(node_id, ttl_seconds=60)
    sent = await bench.request(node_id, ttl_seconds=60, resource_key="other/lane")
    await bench.engine.relay_once()
    await set_state(bench, waiting, JobState.REQUESTED)
    await offer_all(bench, node_id)
    await set_state(bench, sent, JobState.OFFERED)

    bench.clock.advance(seconds=61)
    assert await bench.engine.sweep_once() == [waiting]
    bench.clock.advance(seconds=121)  # a node whose clock is behind may still take what was sent
    assert await bench.engine.sweep_once() == [sent]

    assert {(await bench.job(job_id)).state for job_id in (waiting, sent)} == {JobState.EXPIRED}


async def test_sweep_never_expires_what_the_node_accepted(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id, ttl_seconds=600)
    await bring_to_node(bench, node_id, job_id)

    bench.clock.advance(seconds=601)
    await bench.engine.sweep_once()

    assert (await bench.job(job_id)).state is JobState.ACCEPTED


async def test_sweep_gives_up_on_a_silent_node_after_the_jobs_own_time(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id, ttl_seconds=600, max_runtime_seconds=60)
    await bring_to_node(bench, node_id, job_id)

    bench.clock.advance(seconds=600 + 60 + 121)
    assert await bench.engine.sweep_once() == [job_id]

    assert (await bench.job(job_id)).state is JobState.INDETERMINATE


async def test_progress_after_the_end_changes_nothing(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await set_state(bench, job_id, JobState.SUCCEEDED)

    bench.engine.note_progress(node_id, 0, Progress(job_id=job_id, number=1, done=1, total=2, message="late"))
    await bench.engine.flush_progress()

    job = await bench.job(job_id)
    assert (job.state, job.progress_message) == (JobState.SUCCEEDED, "")


async def test_wait_returns_none_when_the_job_does_not_end(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)

    assert await bench.engine.wait(job_id, 0.05) is None


async def test_rows_of_a_job_are_one_story(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bring_to_node(bench, node_id, job_id)
    await report(bench, node_id, job_id, NodeJobState.SUCCEEDED)

    path = [JobState(value) for value in await bench.path(job_id)]
    assert all(is_allowed(before, after) for before, after in itertools.pairwise(path))
    async with bench.database.read() as session:
        final = (await session.execute(select(JobRow.state).where(JobRow.id == job_id))).scalar_one()
    assert path[-1] is final


async def test_result_that_meets_its_own_progress_report_is_stored(bench: FleetBench, node_id: str) -> None:
    """Both move the job; the result came second, was taken for old news, and was acknowledged all the same."""
    job_id = await bench.request(node_id)
    await bring_to_node(bench, node_id, job_id)
    delivery_id = (await bench.job(job_id)).delivery_id
    progress = Progress(job_id=delivery_id, number=1, done=1, total=2, message="half")

    async with bench.database.write() as session:
        await offers.record_progress(session, node_id, progress, now=bench.clock())
        reporting = asyncio.create_task(report(bench, node_id, job_id, NodeJobState.SUCCEEDED))
        await wait_for_a_lock(bench)

    assert await reporting == (job_id,)
    assert (await bench.job(job_id)).state is JobState.SUCCEEDED


async def wait_for_a_lock(bench: FleetBench) -> None:
    """Until somebody waits for what this transaction holds; on SQLite the second one cannot even begin."""
    if bench.database.is_sqlite:
        return
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10):
        while True:
            async with bench.database.read() as session:
                if (await session.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.01)
