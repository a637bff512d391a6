"""The gateway against agents that speak the real protocol over real TLS."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from datetime import timedelta

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from controller.fleet.identity.authority import parse_csr
from controller.jobs.commands import cancel_job
from controller.jobs.queue import JobRequest
from controller.jobs.states import JobState
from shared.protocol.frames import (
    AckJob,
    CancelJob,
    Event,
    Heartbeat,
    Metrics,
    OfferJob,
    OfferTrust,
    Progress,
    Reject,
)
from shared.protocol.job import ErrorBody, JobResult
from shared.protocol.job import JobState as NodeJobState
from shared.specs.manifest import NODE_SUBJECT, decode_manifest
from tests.integration.fleet.agent import Session
from tests.integration.fleet.bench import FleetBench
from tests.integration.live import wait_until


async def test_session_first_connect_delivers_node_manifest(bench: FleetBench) -> None:
    agent = await bench.enrol(name="web1")

    session = await agent.connect()
    job = await session.take_job()

    manifest = decode_manifest(job.args)
    assert manifest.subject == NODE_SUBJECT
    assert {spec.key for spec in manifest.specs} == {"module/account", "module/php", "module/web"}
    assert (await bench.node(agent.node_id)).is_connected
    await session.close()


async def test_session_result_is_committed_before_it_is_acknowledged(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.run_next()
    job_id = await bench.request(agent.node_id)

    job = await session.take_job()
    await session.finish(job)

    assert (await bench.job(job_id)).state is JobState.SUCCEEDED
    assert await bench.path(job_id) == ["requested", "queued", "offered", "accepted", "succeeded"]
    assert "job.succeeded" in bench.ear.events("jobs")
    await session.close()


async def test_session_duplicate_result_changes_nothing(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()
    number = await session.finish(job)

    failed = JobResult(job_id=job.job_id, state=NodeJobState.FAILED, error=ErrorBody(code="late", message="late"))
    await session.send_event(Event(number=number, kind="result", result=failed))

    row = await bench.job(job.job_id)
    assert (row.state, row.error_code) == (JobState.SUCCEEDED, None)
    await session.close()


async def test_session_result_of_another_nodes_job_is_ignored(bench: FleetBench) -> None:
    first, second = await bench.enrol(name="first"), await bench.enrol(name="second")
    victim = await first.connect()
    job = await victim.take_job()
    intruder = await second.connect()

    stolen = JobResult(job_id=job.job_id, state=NodeJobState.SUCCEEDED)
    await intruder.send_event(Event(number=1, kind="result", result=stolen))

    assert (await bench.job(job.job_id)).state is JobState.ACCEPTED
    await victim.close()
    await intruder.close()


async def test_session_progress_moves_job_to_running(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()

    await session.send(Progress(job_id=job.job_id, number=1, done=2, total=5, message="write_file /etc/x"))

    row = await bench.wait_state(job.job_id, JobState.RUNNING)
    assert (row.progress_done, row.progress_total, row.progress_message) == (2, 5, "write_file /etc/x")
    await session.close()


async def test_session_refusal_in_ack_ends_the_job(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    offer = await session.expect(OfferJob)

    error = ErrorBody(code="stale_generation", message="generation 1 is older than 2", hint="converge again")
    await session.send(AckJob(job_id=offer.job_id, seq=offer.seq, state=NodeJobState.REFUSED, error=error))

    row = await bench.wait_state(offer.job_id, JobState.REFUSED)
    assert (row.error_code, row.error_hint) == ("stale_generation", "converge again")
    await session.close()


async def test_session_unacknowledged_job_is_offered_again_after_reconnect(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    first = await session.expect(OfferJob)
    await session.close()

    session = await agent.connect()
    second = await session.expect(OfferJob)

    assert second.envelope == first.envelope
    assert second.seq == first.seq
    await session.close()


async def test_session_newer_connection_supersedes_the_older(bench: FleetBench) -> None:
    agent = await bench.enrol()
    old = await agent.connect()
    new = await agent.connect()

    assert await old.wait_closed() == 4001
    assert new.welcome.session_epoch == old.welcome.session_epoch + 1
    assert (await bench.node(agent.node_id)).is_connected
    await new.run_next()
    await new.close()


async def test_session_close_marks_node_as_not_connected(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.close()

    await wait_until(lambda: "node.disconnected" in bench.ear.events("nodes"))
    assert not (await bench.node(agent.node_id)).is_connected


async def test_revoke_cuts_a_live_session_at_once(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, agent.node_id))
    bench.fleet.gateway.check_soon()

    assert await session.wait_closed() == 4403
    rejected = [frame for frame in session.passed_over if isinstance(frame, Reject)]
    assert [(frame.code, frame.is_fatal) for frame in rejected] == [("revoked", True)]


async def test_revoke_without_a_hint_is_noticed_by_the_poll(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, agent.node_id))

    assert await session.wait_closed() == 4403


async def test_dial_with_a_revoked_certificate_is_forbidden(bench: FleetBench) -> None:
    agent = await bench.enrol()
    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, agent.node_id))

    with pytest.raises(InvalidStatus) as caught:
        await agent.dial()

    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"revoked\n"


async def test_dial_with_a_certificate_we_did_not_record_is_forbidden(bench: FleetBench) -> None:
    """Signed by the right authority is not enough: the row decides."""
    agent = await bench.enrol()
    issued = bench.fleet.authority.issue_node_certificate(
        parse_csr(agent.machine.csr_pem()), cluster_id="x", node_id=agent.node_id, now=bench.clock()
    )
    agent.reply = msgspec.structs.replace(agent.reply, certificate_pem=issued.pem)

    with pytest.raises(InvalidStatus) as caught:
        await agent.dial()

    assert caught.value.response.status_code == 403


async def test_hello_of_another_node_is_rejected(bench: FleetBench) -> None:
    first, second = await bench.enrol(name="first"), await bench.enrol(name="second")

    connection = await first.dial()
    session = Session(first, connection)
    await session.send(second.hello())

    rejected = await session.expect(Reject)
    assert rejected.code == "wrong_node"
    assert not (await bench.node(second.node_id)).is_connected


async def test_hello_with_an_old_bundle_gets_the_newer_one_before_any_job(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect(bundle_version=0)

    first = await session.receive()

    assert isinstance(first, OfferTrust)
    assert agent.bundle.version == 1
    await session.close()


async def test_hello_with_a_new_journal_makes_running_jobs_indeterminate_and_reconverges(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()
    await bench.wait_state(job.job_id, JobState.ACCEPTED)
    await session.close()

    agent.journal_epoch = str(uuid.uuid4())
    agent.event_number = 0
    session = await agent.connect()

    assert (await bench.job(job.job_id)).state is JobState.INDETERMINATE
    again = await session.take_job()
    assert again.generation == job.generation + 1
    await wait_until(lambda: (agent.node_id, True) in bench.reconverged)
    await session.close()


async def test_cancel_of_an_accepted_job_asks_the_node_whose_answer_decides(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()
    await bench.wait_state(job.job_id, JobState.ACCEPTED)

    async with bench.database.write() as db:
        await cancel_job(db, job.job_id, now=bench.clock())
    bench.fleet.gateway.check_soon()

    assert (await session.expect(CancelJob)).job_id == job.job_id
    assert (await bench.job(job.job_id)).state is JobState.ACCEPTED
    await session.finish(job, NodeJobState.CANCELLED)
    assert (await bench.job(job.job_id)).state is JobState.CANCELLED
    await session.close()


async def test_lane_second_job_waits_for_the_first(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.run_next()
    first_id = await bench.request(agent.node_id, resource_key="account/ada")
    second_id = await bench.request(agent.node_id, resource_key="account/ada")

    first = await session.take_job()
    assert first.job_id == first_id
    await bench.engine.relay_once()
    assert (await bench.job(second_id)).state is JobState.REQUESTED
    await session.finish(first)

    assert (await session.take_job()).job_id == second_id
    await session.close()


async def test_retryable_failure_is_delivered_again_under_a_new_id(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()

    error = ErrorBody(code="fact_unreadable", message="systemd does not answer")
    await session.finish(job, NodeJobState.FAILED, error=error)
    bench.clock.advance(seconds=20)
    again = await session.take_job()
    await session.finish(again)

    row = await bench.job(job.job_id)
    assert (row.state, row.attempts) == (JobState.SUCCEEDED, 2)
    assert again.job_id != job.job_id
    assert again.args == job.args
    await session.close()


async def test_run_plan_returns_what_the_node_says(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.run_next()

    request = JobRequest(
        node_id=agent.node_id,
        action="fleet.noop@1",
        args=b"",
        resource_key="account/ada",
        actor="user/admin",
        request_id="r",
    )
    plan = asyncio.create_task(bench.engine.run_plan(request, 10.0))
    job = await session.take_job()
    assert job.mode.value == "plan"
    await session.finish(job, reloads=("nginx.service",))

    assert (await plan).reloads == ("nginx.service",)
    await session.close()


async def test_heartbeats_keep_a_node_connected_and_silence_does_not(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    bench.clock.advance(seconds=45)
    await session.send(Heartbeat(clock=0.0))
    await session.send(Metrics(at=1.0, gauges={"cpu_percent": 3.0}))
    await wait_until(lambda: agent.node_id in bench.fleet.gateway.latest_metrics())

    await bench.fleet.gateway.flush_heartbeats()
    assert (await bench.node(agent.node_id)).is_connected
    bench.clock.advance(minutes=5)
    await bench.fleet.gateway.flush_heartbeats()
    assert not (await bench.node(agent.node_id)).is_connected
    await session.close()


async def test_heartbeats_after_a_silence_on_the_same_session_connect_the_node_again(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    bench.clock.advance(minutes=5)
    await bench.fleet.gateway.flush_heartbeats()
    assert not (await bench.node(agent.node_id)).is_connected

    await session.send(Metrics(at=2.0, gauges={"cpu_percent": 4.0}))
    await wait_until(lambda: agent.node_id in bench.fleet.gateway.latest_metrics())
    await bench.fleet.gateway.flush_heartbeats()

    assert (await bench.node(agent.node_id)).is_connected
    assert bench.ear.events("nodes")[-2:] == ["node.disconnected", "node.connected"]
    await session.close()


async def test_sample_is_there_until_it_is_old(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    await session.send(Metrics(at=1.0, gauges={"cpu_percent": 3.0, "accounts.ada.memory_bytes": 1024.0}))
    await wait_until(lambda: bench.fleet.gateway.find_metrics(agent.node_id) is not None)

    sample = bench.fleet.gateway.latest_metrics()[agent.node_id]
    assert sample.gauges == {"cpu_percent": 3.0, "accounts.ada.memory_bytes": 1024.0}
    assert abs(sample.at - bench.clock()) < timedelta(minutes=1)
    bench.clock.advance(seconds=3 * bench.settings.metrics_seconds + 1)
    assert bench.fleet.gateway.find_metrics(agent.node_id) is None
    assert bench.fleet.gateway.latest_metrics() == {}
    await session.close()


async def test_sample_of_a_node_that_went_away_is_dropped(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.send(Metrics(at=1.0, gauges={"cpu_percent": 3.0}))
    await wait_until(lambda: bench.fleet.gateway.find_metrics(agent.node_id) is not None)

    await session.close()

    await wait_until(lambda: bench.fleet.gateway.latest_metrics() == {})


async def test_frame_that_is_none_ends_the_session_with_a_reason(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    await session.connection.send(b"\xc1 not msgpack")

    assert await session.wait_closed() == 4400
    assert any(isinstance(frame, Reject) and frame.code == "bad_frame" for frame in session.passed_over)


async def test_dial_without_a_client_certificate_fails(bench: FleetBench) -> None:
    context = ssl.create_default_context(cadata=bench.fleet.authority.ca_pem)
    url = f"wss://127.0.0.1:{bench.fleet.gateway.port}/agent/v1"

    with pytest.raises((OSError, InvalidHandshake, EOFError)):
        await connect(url, ssl=context, proxy=None)
