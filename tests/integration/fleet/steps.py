"""Single steps of a job's way, for tests that take each one themselves."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from controller.jobs import delivery, offers
from controller.jobs.models import Job as JobRow
from controller.jobs.results import Observers, read_inbox, record_event
from controller.jobs.states import JobState
from shared.protocol.frames import AckJob, Event
from shared.protocol.job import ACTION_CONVERGE, ErrorBody, JobResult
from shared.protocol.job import JobState as NodeJobState
from tests.integration.fleet.bench import FleetBench

EPOCH = 1


async def converge(bench: FleetBench, node_id: str, generation: int, **options: Any) -> str:
    values: dict[str, Any] = {"action": ACTION_CONVERGE, "resource_key": "account/ada", "generation": generation}
    return await bench.request(node_id, **(values | options))


async def set_state(bench: FleetBench, job_id: str, state: JobState, **values: Any) -> None:
    async with bench.database.write() as session:
        await session.execute(update(JobRow).where(JobRow.id == job_id).values(state=state, **values))


async def offer_all(bench: FleetBench, node_id: str, epoch: int = EPOCH) -> list[delivery.Offer]:
    async with bench.database.hot() as driver:
        return (await delivery.claim(driver, {node_id: epoch}, now=bench.clock())).of(node_id).offers


async def acknowledge(bench: FleetBench, node_id: str, job_id: str) -> None:
    delivery_id = (await bench.job(job_id)).delivery_id
    ack = AckJob(job_id=delivery_id, seq=1, state=NodeJobState.RECEIVED)
    async with bench.database.write() as session:
        await offers.record_ack(session, node_id, ack, now=bench.clock())


async def bring_to_node(bench: FleetBench, node_id: str, job_id: str) -> None:
    await bench.engine.relay_once()
    await offer_all(bench, node_id)
    await acknowledge(bench, node_id, job_id)


async def report(
    bench: FleetBench,
    node_id: str,
    job_id: str,
    state: NodeJobState,
    *,
    error: ErrorBody | None = None,
    observers: Observers | None = None,
    number: int = 1,
) -> tuple[str, ...]:
    result = JobResult(job_id=(await bench.job(job_id)).delivery_id, state=state, error=error)
    async with bench.database.write() as session:
        await read_inbox(session, node_id, "epoch", number)
        recorded = await record_event(
            session,
            node_id,
            Event(number=number, kind="result", result=result),
            observers=observers or Observers(),
            now=bench.clock(),
        )
    return recorded.job_ids
