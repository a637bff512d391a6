"""Jobs that ended well are forgotten in time; others stay."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from controller.jobs.models import Job, JobTransition
from controller.jobs.retention import JobRetention
from controller.jobs.states import JobState
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import set_state


async def thirty_days() -> float:
    return 30.0


async def ended_job(bench: FleetBench, state: JobState, *, days_ago: float) -> str:
    job_id = await bench.request("node-1")
    at = bench.clock() - timedelta(days=days_ago)
    await set_state(bench, job_id, state, created_at=at, finished_at=at)
    return job_id


async def remaining(bench: FleetBench) -> set[str]:
    async with bench.database.read() as session:
        return set(await session.scalars(select(Job.id)))


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.SUPERSEDED])
async def test_retention_when_a_job_ended_well_long_ago_forgets_it_and_its_story(
    still_bench: FleetBench, state: JobState
) -> None:
    await ended_job(still_bench, state, days_ago=31)
    young = await ended_job(still_bench, state, days_ago=29)

    said = await JobRetention(still_bench.database, thirty_days, still_bench.clock).run()

    assert (said, await remaining(still_bench)) == ("1 jobs forgotten", {young})
    async with still_bench.database.read() as session:
        stories = select(func.count(func.distinct(JobTransition.job_id)))
        assert (await session.execute(stories)).scalar_one() == 1


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.INDETERMINATE, JobState.RUNNING, JobState.REQUESTED])
async def test_retention_when_somebody_may_still_look_at_a_job_keeps_it(
    still_bench: FleetBench, state: JobState
) -> None:
    job_id = await ended_job(still_bench, state, days_ago=400)

    said = await JobRetention(still_bench.database, thirty_days, still_bench.clock).run()

    assert (said, await remaining(still_bench)) == (None, {job_id})
