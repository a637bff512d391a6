"""From asked for to acknowledged: numbers, signatures, offers."""

from __future__ import annotations

import msgspec
import pytest

from controller.jobs import relay
from controller.jobs.models import NodeSequence
from controller.jobs.states import JobState
from shared.protocol.envelope import Signature
from shared.protocol.job import Semantics, decode_job
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import acknowledge, converge, offer_all, set_state


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing runs but what the test calls."""
    return still_bench


async def test_relay_numbers_are_gap_free_and_in_the_order_of_asking(bench: FleetBench, node_id: str) -> None:
    first_seq = 1
    ids = [await bench.request(node_id) for _ in range(70)]  # more than one batch

    assert await bench.engine.relay_once() == 70

    assert [(await bench.job(job_id)).seq for job_id in ids] == list(range(first_seq, first_seq + 70))


async def test_relay_crash_before_commit_leaves_neither_number_nor_signature(bench: FleetBench, node_id: str) -> None:
    async def crash_before_commit() -> None:
        async with bench.database.hot() as driver:
            await relay.sign_batch(driver, signer=bench.signer, nodes=bench.fleet, now=bench.clock())
            raise KeyboardInterrupt

    job_id = await bench.request(node_id)
    with pytest.raises(KeyboardInterrupt):
        await crash_before_commit()
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
