"""Job keys that change while jobs are on their way: no job is lost, and none runs twice."""

from __future__ import annotations

from typing import Any

import pytest

from controller.fleet.identity.job_key_drill import JobKeysView
from controller.jobs.states import JobState
from shared.errors import ConflictError, ForbiddenError, NotFoundError
from shared.protocol.frames import AckJob, OfferJob, OfferTrust
from shared.protocol.job import ErrorBody
from shared.protocol.job import JobState as NodeJobState
from tests.integration.fleet.agent import Session
from tests.integration.fleet.bench import ADMIN, FleetBench


async def settled(bench: FleetBench) -> Session:
    """A node with a session and nothing left to do."""
    session = await (await bench.enrol()).connect()
    await session.run_next()
    return session


async def refuse(session: Session, offer: OfferJob, code: str) -> None:
    error = ErrorBody(code=code, message="no signature of a key that this node knows")
    await session.send(AckJob(job_id=offer.job_id, seq=offer.seq, state=NodeJobState.REFUSED, error=error))


async def rotate(bench: FleetBench) -> JobKeysView:
    view: JobKeysView = await bench.change(lambda ctx: bench.fleet.job_keys.rotate(ctx, is_dry_run=False))
    bench.fleet.offer_trust_soon()
    return view


async def revoke(bench: FleetBench, kid: str, *, is_dry_run: bool = False) -> tuple[JobKeysView, list[str]]:
    revoked: tuple[JobKeysView, list[str]] = await bench.change(
        lambda ctx: bench.fleet.job_keys.revoke(ctx, kid, is_dry_run=is_dry_run)
    )
    bench.fleet.offer_trust_soon()
    return revoked


@pytest.mark.parametrize("code", ["unknown_key", "no_trust", "expired_bundle", "revoked_key", "expired_key"])
async def test_fault_12_job_that_the_node_cannot_verify_yet_waits_for_trust_and_then_runs(
    bench: FleetBench, code: str
) -> None:
    session = await settled(bench)
    job_id = await bench.request(session.agent.node_id)
    offer = await session.expect(OfferJob)

    await refuse(session, offer, code)
    await session.expect(OfferTrust)
    waiting = await bench.job(job_id)
    bench.clock.advance(seconds=31)
    again = await session.take_job()
    await session.finish(again)

    assert (waiting.state, waiting.deliveries, waiting.error_code) == (JobState.OFFERED, 0, code)
    assert (again.job_id, again.seq) == (offer.job_id, offer.seq)
    assert (await bench.wait_state(job_id, JobState.SUCCEEDED)).error_code is None


async def test_fault_12_job_that_the_node_never_believes_is_not_stuck_before_its_time(bench: FleetBench) -> None:
    session = await settled(bench)
    job_id = await bench.request(session.agent.node_id, ttl_seconds=600)
    for _ in range(8):
        await refuse(session, await session.expect(OfferJob), "unknown_key")
        await session.expect(OfferTrust)
        bench.clock.advance(seconds=31)

    assert (await bench.job(job_id)).state is JobState.OFFERED
    bench.clock.advance(seconds=600)
    await bench.engine.sweep_once()
    assert (await bench.job(job_id)).state is JobState.EXPIRED


async def test_revoked_key_is_taken_off_the_jobs_that_no_node_has(bench: FleetBench) -> None:
    session = await settled(bench)
    job_id = await bench.request(session.agent.node_id)
    offer = await session.expect(OfferJob)
    (old,) = {signature.kid for signature in offer.envelope.signatures}

    view, node_ids = await revoke(bench, old)
    await session.expect(OfferTrust)
    bench.clock.advance(seconds=31)
    again = await session.expect(OfferJob)

    assert node_ids == [session.agent.node_id]
    assert {key.kid: key.state for key in view.items}[old] == "revoked"
    assert again.envelope.payload == offer.envelope.payload
    assert old not in {signature.kid for signature in again.envelope.signatures}
    assert session.agent.verify(again).job_id == offer.job_id == (await bench.job(job_id)).delivery_id


async def test_rotated_key_reaches_a_connected_node_with_the_next_bundle(bench: FleetBench) -> None:
    session = await settled(bench)
    before = session.agent.bundle

    await rotate(bench)
    await session.expect(OfferTrust)

    assert session.agent.bundle.version == before.version + 1
    assert len(session.agent.bundle.job_keys) == 2


async def test_revocation_of_an_unknown_key_or_twice_is_refused(bench: FleetBench) -> None:
    view = await rotate(bench)
    kid = view.items[0].kid
    await revoke(bench, kid)

    with pytest.raises(ConflictError):
        await revoke(bench, kid)
    with pytest.raises(NotFoundError):
        await revoke(bench, "1-nobody")


async def test_dry_run_of_a_revocation_revokes_nothing(bench: FleetBench) -> None:
    (key,) = await bench.signer.current_job_keys()

    await revoke(bench, key.kid, is_dry_run=True)

    assert await bench.signer.revoked_job_keys() == ()


async def test_job_keys_are_for_administrators_of_the_authority_only(bench: FleetBench) -> None:
    nobody: Any = type(ADMIN)(kind="token", id="t", name="t", role=ADMIN.role, scopes=frozenset({"nodes:write"}))
    with pytest.raises(ForbiddenError):
        await bench.operations.change(nobody, "r", lambda ctx: bench.fleet.job_keys.rotate(ctx, is_dry_run=False))
