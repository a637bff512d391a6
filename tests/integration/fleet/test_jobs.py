"""The job engine on a real database, one step at a time: nothing runs but what the test calls."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs import offers, relay
from controller.jobs.commands import cancel_job, discard_job, release_node_jobs, retry_job
from controller.jobs.models import Job as JobRow
from controller.jobs.models import NodeSequence
from controller.jobs.queue import MAX_ARGS_BYTES
from controller.jobs.results import ATTEMPTS_MAX, Observers, read_inbox, record_event
from controller.jobs.states import FINAL, JobState, is_allowed
from controller.jobs.transitions import transition
from shared.errors import BugError, ConflictError, InvalidInputError, NotFoundError, StaleGenerationError
from shared.protocol.envelope import Signature
from shared.protocol.frames import AckJob, DriftReport, Event, Progress
from shared.protocol.job import ACTION_CONVERGE, ErrorBody, JobMode, JobResult, Semantics, decode_job
from shared.protocol.job import JobState as NodeJobState
from tests.integration.fleet.bench import FleetBench

EPOCH = 1


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    return still_bench


@pytest.fixture
async def node_id(bench: FleetBench) -> str:
    """A node without any job."""
    agent = await bench.enrol()
    async with bench.database.write() as session:
        await release_node_jobs(session, agent.node_id, note="not in this test", now=bench.clock())
    return agent.node_id


async def converge(bench: FleetBench, node_id: str, generation: int, **options: Any) -> str:
    values: dict[str, Any] = {"action": ACTION_CONVERGE, "resource_key": "account/ada", "generation": generation}
    return await bench.request(node_id, **(values | options))


async def set_state(bench: FleetBench, job_id: str, state: JobState, **values: Any) -> None:
    async with bench.database.write() as session:
        await session.execute(update(JobRow).where(JobRow.id == job_id).values(state=state, **values))


async def offer_all(bench: FleetBench, node_id: str, epoch: int = EPOCH) -> list[offers.Offer]:
    async with bench.database.write() as session:
        return await offers.claim_offers(session, node_id=node_id, session_epoch=epoch, now=bench.clock())


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


# --- transitions ------------------------------------------------------------------------------------------------------


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


# --- asking -----------------------------------------------------------------------------------------------------------


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


# --- signing ----------------------------------------------------------------------------------------------------------


async def test_relay_numbers_are_gap_free_and_in_the_order_of_asking(bench: FleetBench, node_id: str) -> None:
    first_seq = 1
    ids = [await bench.request(node_id) for _ in range(70)]  # more than one batch

    assert await bench.engine.relay_once() == 70

    assert [(await bench.job(job_id)).seq for job_id in ids] == list(range(first_seq, first_seq + 70))


async def test_relay_crash_before_commit_leaves_neither_number_nor_signature(bench: FleetBench, node_id: str) -> None:
    class Crash(Exception):
        pass

    job_id = await bench.request(node_id)
    with pytest.raises(Crash):
        async with bench.database.write() as session:
            await relay.sign_batch(session, signer=bench.signer, nodes=bench.fleet, now=bench.clock())
            raise Crash
    job = await bench.job(job_id)
    assert (job.state, job.seq, job.payload) == (JobState.REQUESTED, None, None)

    await bench.engine.relay_once()

    assert (await bench.job(job_id)).seq == 1


async def test_relay_run_again_signs_nothing_twice(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bench.engine.relay_once()
    before = (await bench.job(job_id)).payload

    assert await bench.engine.relay_once() == 0
    assert (await bench.job(job_id)).payload == before
    async with bench.database.read() as session:
        assert (await session.get_one(NodeSequence, node_id)).last_seq == 1


async def test_relay_payload_says_what_the_row_says(bench: FleetBench, node_id: str) -> None:
    job_id = await converge(bench, node_id, 7, semantics=Semantics.ONCE, max_runtime_seconds=99)
    await bench.engine.relay_once()

    row = await bench.job(job_id)
    assert row.payload is not None
    assert row.signatures is not None
    signed = decode_job(row.payload)
    assert (signed.job_id, signed.seq, signed.generation, signed.semantics) == (job_id, 1, 7, Semantics.ONCE)
    assert signed.expires_at == row.expires_at.timestamp()
    assert signed.max_runtime_seconds == 99
    assert len(msgspec.msgpack.decode(row.signatures, type=tuple[Signature, ...])) == 1


async def test_relay_waits_for_the_nodes_own_manifest_before_accounts(bench: FleetBench, node_id: str) -> None:
    first = await converge(bench, node_id, 1, resource_key="node")
    second = await converge(bench, node_id, 1)
    ping = await bench.request(node_id)

    await bench.engine.relay_once()

    assert (await bench.job(first)).state is JobState.QUEUED
    assert (await bench.job(second)).state is JobState.REQUESTED
    assert (await bench.job(ping)).state is JobState.QUEUED


async def test_relay_discards_jobs_of_a_revoked_node(bench: FleetBench, node_id: str) -> None:
    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, node_id))
    job_id = await bench.request(node_id)

    await bench.engine.relay_once()

    assert (await bench.job(job_id)).state is JobState.DISCARDED


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_claim_gives_at_most_32_unacknowledged_in_order(bench: FleetBench, node_id: str) -> None:
    for _ in range(40):
        await bench.request(node_id)
    await bench.engine.relay_once()

    first = await offer_all(bench, node_id)

    assert [offer.seq for offer in first] == list(range(1, 33))
    assert await offer_all(bench, node_id) == []
    await acknowledge(bench, node_id, first[0].job_id)
    assert [offer.seq for offer in await offer_all(bench, node_id)] == [33]


async def test_claim_again_after_30_seconds_and_stuck_after_five(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bench.engine.relay_once()
    payloads = set()
    for _ in range(5):
        (offer,) = await offer_all(bench, node_id)
        payloads.add(offer.envelope.payload)
        assert await offer_all(bench, node_id) == []
        bench.clock.advance(seconds=31)

    assert await offer_all(bench, node_id) == []

    job = await bench.job(job_id)
    assert (job.state, job.deliveries, job.error_code) == (JobState.STUCK, 5, "stuck")
    assert len(payloads) == 1


async def test_ack_of_a_stuck_job_brings_it_back(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bench.engine.relay_once()
    await offer_all(bench, node_id)
    await set_state(bench, job_id, JobState.STUCK)

    await acknowledge(bench, node_id, job_id)

    assert (await bench.job(job_id)).state is JobState.ACCEPTED


async def test_ack_by_another_node_changes_nothing(bench: FleetBench, node_id: str) -> None:
    job_id = await bench.request(node_id)
    await bench.engine.relay_once()
    await offer_all(bench, node_id)

    await acknowledge(bench, (await bench.enrol()).node_id, job_id)

    assert (await bench.job(job_id)).state is JobState.OFFERED


# --- results ----------------------------------------------------------------------------------------------------------


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


# --- people -----------------------------------------------------------------------------------------------------------


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
        async with bench.database.write() as session:
            return await offers.claim_cancels(session, node_id=node_id, session_epoch=epoch)

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


# --- time -------------------------------------------------------------------------------------------------------------


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

    bench.engine.note_progress(node_id, Progress(job_id=job_id, number=1, done=1, total=2, message="late"))
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
