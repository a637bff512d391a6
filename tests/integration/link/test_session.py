"""The link against a gateway with mutual TLS: greeting, jobs, events, every way a session ends."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest

from agent.link.settings import NodePaths
from agent.link.spool import Spool
from agent.link.status_file import LinkState, read_status
from shared.protocol.capability import CAPABILITY_VERSION
from shared.protocol.frames import (
    AckJob,
    CancelJob,
    CheckDrift,
    Drain,
    DriftFinding,
    DriftReport,
    Event,
    Heartbeat,
    Hello,
    LogLine,
    Metrics,
    OfferJob,
    OfferTrust,
    Progress,
    Reject,
)
from shared.protocol.job import JobResult, JobState
from shared.protocol.local import CancelLocal, RequestDrift, ResultStored, SubmitJob, SubmitTrust
from shared.version import __version__
from tests.integration.link.conftest import RunningLink, running_link
from tests.integration.link.executor import FakeExecutor, envelope_of
from tests.integration.link.gateway import FakeGateway, wait_until
from tests.integration.link.pki import TestAuthority

DAY = dt.timedelta(days=1)


def offer(job_id: str, seq: int) -> OfferJob:
    return OfferJob(envelope=envelope_of(job_id, seq), job_id=job_id, seq=seq)


async def test_hello_carries_what_the_executor_says(link: RunningLink, gateway: FakeGateway) -> None:
    hello = await wait_until(lambda: gateway.hellos and gateway.hellos[0])

    assert isinstance(hello, Hello)
    assert (hello.node_id, hello.node_gen, hello.journal_epoch) == ("n1", 1, "e1")
    assert (hello.capability, hello.agent_version, hello.modules) == (CAPABILITY_VERSION, __version__, {"web": "1"})


async def test_welcome_makes_the_status_file_say_connected(
    link: RunningLink, gateway: FakeGateway, paths: NodePaths
) -> None:
    await wait_until(lambda: link.state == "connected")

    status = read_status(paths.status_json)
    assert status is not None
    assert status.state is LinkState.CONNECTED
    assert (status.node_id, status.gateway_url, status.session_epoch) == ("n1", gateway.url, 1)


async def test_session_sends_metrics_and_heartbeats(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.heartbeat_seconds = 1.0
    async with running_link(gateway.url, executor, paths):
        metrics = await wait_until(lambda: gateway.of(Metrics))
        heartbeat = await wait_until(lambda: gateway.of(Heartbeat))

    assert metrics[0].gauges == {"cpu_percent": 1.0}
    assert heartbeat[0].running_jobs == 0


async def test_job_is_acked_then_its_result_comes_as_event_and_is_forgotten(
    link: RunningLink, gateway: FakeGateway, executor: FakeExecutor
) -> None:
    await wait_until(lambda: link.state == "connected")

    await gateway.send(offer("j1", 7))
    acks = await wait_until(lambda: gateway.of(AckJob))
    await executor.progress("j1", 1)
    await wait_until(lambda: gateway.of(Progress))
    await executor.finish("j1")
    events = await wait_until(lambda: gateway.of(Event))

    assert acks == [AckJob(job_id="j1", seq=7, state=JobState.RECEIVED)]
    assert events == [Event(number=1, kind="result", result=JobResult(job_id="j1", state=JobState.SUCCEEDED))]
    assert executor.of(ResultStored) == [ResultStored(job_id="j1")]
    assert executor.unstored == {}
    await wait_until(lambda: link.spool.acked == 1)


async def test_offer_reaches_the_executor_untouched(
    link: RunningLink, gateway: FakeGateway, executor: FakeExecutor
) -> None:
    await wait_until(lambda: link.state == "connected")

    await gateway.send(offer("j1", 1))

    submitted = await wait_until(lambda: executor.of(SubmitJob))
    assert submitted == [SubmitJob(envelope=envelope_of("j1", 1))]


async def test_duplicate_offer_is_answered_with_the_present_state(
    link: RunningLink, gateway: FakeGateway, executor: FakeExecutor
) -> None:
    await wait_until(lambda: link.state == "connected")
    await gateway.send(offer("j1", 1))
    await wait_until(lambda: gateway.of(AckJob))
    await executor.finish("j1")

    await gateway.send(offer("j1", 1))

    acks = await wait_until(lambda: len(gateway.of(AckJob)) == 2 and gateway.of(AckJob))
    assert [ack.state for ack in acks] == [JobState.RECEIVED, JobState.SUCCEEDED]


async def test_cancel_trust_and_drift_check_reach_the_executor(
    link: RunningLink, gateway: FakeGateway, executor: FakeExecutor
) -> None:
    await wait_until(lambda: link.state == "connected")
    bundle = envelope_of("bundle", 2)
    await gateway.send(offer("j1", 1))

    await gateway.send(OfferTrust(envelope=bundle))
    await gateway.send(CancelJob(job_id="j1"))
    await gateway.send(CheckDrift(subjects=("account/a",)))

    events = await wait_until(lambda: len(gateway.of(Event)) == 2 and gateway.of(Event))
    assert executor.of(SubmitTrust) == [SubmitTrust(envelope=bundle)]
    assert executor.of(CancelLocal) == [CancelLocal(job_id="j1")]
    assert executor.of(RequestDrift) == [RequestDrift(subjects=("account/a",))]
    assert [event.kind for event in events] == ["result", "drift"]


async def test_result_while_disconnected_is_kept_and_sent_after_reconnect(
    authority: TestAuthority, executor: FakeExecutor, paths: NodePaths
) -> None:
    first = FakeGateway()
    async with first.running(authority), running_link(first.url, executor, paths) as link:
        await wait_until(lambda: link.state == "connected")
        await first.send(offer("j1", 1))
        await wait_until(lambda: first.of(AckJob))
        first.http_status = 503
        first.abort()
        await wait_until(lambda: link.state == "waiting")
        await executor.finish("j1")
        assert executor.of(ResultStored) == [ResultStored(job_id="j1")]
        first.http_status = None
        events = await wait_until(lambda: first.of(Event))

    assert events[0].result == JobResult(job_id="j1", state=JobState.SUCCEEDED)
    assert first.hellos[-1].last_seq == 1


async def test_unacked_event_is_sent_again_after_a_restart_of_the_agent(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.acks_events = False
    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "connected")
        await executor.finish("j1")
        await wait_until(lambda: gateway.of(Event))
    gateway.frames.clear()

    async with running_link(gateway.url, executor, paths):
        events = await wait_until(lambda: gateway.of(Event))

    assert events == [Event(number=1, kind="result", result=JobResult(job_id="j1", state=JobState.SUCCEEDED))]
    assert gateway.hellos[-1].event_head == 1


async def test_event_that_the_controller_has_is_not_sent_again(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    spool = Spool(paths.spool_db)
    for number in range(1, 4):
        spool.append_result(JobResult(job_id=f"j{number}", state=JobState.SUCCEEDED))
    spool.close()
    gateway.events_acked = 2

    async with running_link(gateway.url, executor, paths):
        events = await wait_until(lambda: gateway.of(Event))

    assert [event.number for event in events] == [3]


async def test_lost_spool_goes_on_behind_the_numbers_that_the_controller_has(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.events_acked = 40

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "connected")
        await executor.finish("j1")
        events = await wait_until(lambda: gateway.of(Event))

    assert [event.number for event in events] == [41]


async def test_many_events_flow_with_a_bounded_number_unacknowledged(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.acks_events = False
    spool = Spool(paths.spool_db)
    for number in range(1, 101):
        spool.append_result(JobResult(job_id=f"j{number}", state=JobState.SUCCEEDED))
    spool.close()

    async with running_link(gateway.url, executor, paths):
        await wait_until(lambda: len(gateway.of(Event)) == 64)
        gateway.acks_events = True
        gateway.abort()
        await wait_until(lambda: gateway.events_acked == 100)

    numbers = [event.number for event in gateway.of(Event)]
    assert numbers[:64] == list(range(1, 65))
    assert numbers[64:] == list(range(1, 101))


async def test_unknown_frame_is_skipped_and_the_session_goes_on(link: RunningLink, gateway: FakeGateway) -> None:
    await wait_until(lambda: link.state == "connected")

    await gateway.send_raw(msgspec.msgpack.encode({"t": "from_the_future", "x": 1}))
    await gateway.send(offer("j1", 1))

    await wait_until(lambda: gateway.of(AckJob))
    assert len(gateway.hellos) == 1


@pytest.mark.parametrize(
    "raw",
    [b"\xc1", msgspec.msgpack.encode({"t": "from_the_future", "crit": True}), msgspec.msgpack.encode({"t": "job"})],
)
async def test_nonsense_ends_the_session_and_the_agent_dials_again(
    link: RunningLink, gateway: FakeGateway, raw: bytes
) -> None:
    await wait_until(lambda: link.state == "connected")

    await gateway.send_raw(raw)

    await wait_until(lambda: len(gateway.hellos) == 2)


async def test_drain_makes_the_agent_come_back_within_the_window(link: RunningLink, gateway: FakeGateway) -> None:
    await wait_until(lambda: link.state == "connected")

    await gateway.send(Drain(window_seconds=0.5))

    await wait_until(lambda: len(gateway.hellos) == 2)


async def test_reject_that_passes_is_waited_for_as_long_as_the_controller_asks(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.greeting = lambda hello: (
        Reject(code="busy", message="too many", retry_after_seconds=0.2)
        if len(gateway.hellos) == 1
        else gateway.make_welcome(hello)
    )

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "connected")

    assert len(gateway.hellos) == 2


async def test_fatal_reject_stops_dialling_and_cancels_what_waits(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.greeting = lambda _hello: Reject(code="too_old", message="update the agent", is_fatal=True)
    executor.states["j1"] = JobState.RECEIVED

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "rejected")
        assert not link.task.done()

    assert len(gateway.hellos) == 1
    assert executor.of(CancelLocal) == [CancelLocal(job_id="j1")]
    assert "update the agent" in link.last_error


async def test_http_403_means_revoked(gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths) -> None:
    gateway.http_status = 403

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "revoked")
        status = link.status_file.last

    assert status is not None
    assert status.next_attempt_at - status.changed_at >= 600


async def test_certificate_of_another_authority_is_refused_and_said_so(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths, tmp_path: Path
) -> None:
    foreign = TestAuthority(tmp_path / "foreign")
    paths.node_pem.write_text(foreign.issue_pem("node"))

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "waiting")

    assert gateway.hellos == []
    assert "refuses our certificate" in link.last_error


async def test_gateway_of_another_authority_is_not_trusted(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths, tmp_path: Path
) -> None:
    paths.ca_pem.write_text(TestAuthority(tmp_path / "foreign").ca_pem)

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "waiting")

    assert gateway.hellos == []
    assert "not to be trusted" in link.last_error


async def test_expired_certificate_is_seen_before_dialling(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths, authority: TestAuthority
) -> None:
    paths.node_pem.write_text(authority.issue_pem("old", lifetime=-DAY))

    async with running_link(gateway.url, executor, paths) as link:
        await wait_until(lambda: link.state == "waiting")

    assert "certificate ended" in link.last_error


async def test_closed_port_is_tried_again_until_it_opens(
    authority: TestAuthority, executor: FakeExecutor, paths: NodePaths
) -> None:
    probe = FakeGateway()
    async with probe.running(authority):
        port = probe.port
    async with running_link(f"wss://localhost:{port}/agent/v1", executor, paths) as link:
        await wait_until(lambda: link.state == "waiting")
        assert "port is closed" in link.last_error
        gateway = FakeGateway()
        async with gateway.running(authority, port=port):
            await wait_until(lambda: link.state == "connected")


async def test_unreachable_executor_leaves_the_offer_unacked_and_tells_the_operator(
    link: RunningLink, gateway: FakeGateway, executor: FakeExecutor
) -> None:
    await wait_until(lambda: link.state == "connected")
    executor.is_reachable = False

    await gateway.send(offer("j1", 1))

    lines = await wait_until(lambda: gateway.of(LogLine))
    assert "executor cannot be reached" in lines[0].message
    assert gateway.of(AckJob) == []
    assert len(gateway.hellos) == 1


async def test_quarantine_is_told_to_the_operator(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    executor.quarantine = "a rollback failed"

    async with running_link(gateway.url, executor, paths) as link:
        lines = await wait_until(lambda: gateway.of(LogLine))
        status = link.status_file.last

    assert "a rollback failed" in lines[0].message
    assert status is not None
    assert status.quarantine == "a rollback failed"


async def test_periodic_drift_is_reported_when_found_and_when_it_is_over(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths
) -> None:
    gateway.drift_check_seconds = 1.0
    finding = DriftFinding(subject="account/a", key="site/a.example", summary="changed")
    executor.drift = DriftReport(subjects=("account/a",), findings=(finding,))

    async with running_link(gateway.url, executor, paths):
        await wait_until(lambda: gateway.of(Event))
        executor.drift = DriftReport(subjects=("account/a",))
        await wait_until(lambda: [event for event in gateway.of(Event) if event.drift and not event.drift.findings])
        seen = len(gateway.of(Event))
        checks = len(executor.of(RequestDrift))
        await wait_until(lambda: len(executor.of(RequestDrift)) > checks + 1)

    assert len(gateway.of(Event)) == seen
