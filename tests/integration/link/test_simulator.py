"""Simulated agents: the real link and the real executor in process, enrolled over HTTP, against a gateway."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.bootstrap import build_registry
from agent.simulator.agent import SimulatedAgent
from agent.simulator.fleet import FleetPlan, SimulatedFleet, parse_names
from shared.errors import InvalidInputError
from shared.protocol.frames import AckJob, Event, LogLine, OfferJob
from shared.protocol.job import ACTION_CONVERGE, ACTION_NOOP, Job, JobState
from shared.specs.account import AccountSpec
from shared.specs.manifest import NODE_SUBJECT, Manifest, encode_manifest
from shared.specs.module import ModuleSpec
from shared.types.names import UnixName
from tests.integration.link.controller import CLUSTER, FakeController
from tests.integration.link.gateway import FakeGateway, wait_until
from tests.integration.link.pki import TestAuthority


@pytest.fixture
def controller(authority: TestAuthority, gateway: FakeGateway) -> Iterator[FakeController]:
    with FakeController(authority, gateway_url=gateway.url).running() as running:
        yield running


def plan(controller: FakeController, tmp_path: Path, *names: str, keeps_state: bool = True) -> FleetPlan:
    return FleetPlan(
        controller_url=controller.url,
        names=names,
        state_dir=tmp_path / "fleet",
        tokens=(controller.token,) * len(names),
        keeps_state=keeps_state,
    )


@pytest.fixture
async def agent(controller: FakeController, tmp_path: Path) -> AsyncIterator[SimulatedAgent]:
    """One simulated agent that the gateway has welcomed."""
    fleet = SimulatedFleet(plan(controller, tmp_path, "sim-1"), build_registry())
    await fleet.enrol()
    fleet.start()
    await wait_until(lambda: fleet.connected_count == 1)
    yield fleet.agents[0]
    await fleet.stop()


def make_job(controller: FakeController, action: str, args: bytes = b"", **values: object) -> OfferJob:
    now = time.time()
    job = Job(
        cluster_id=CLUSTER,
        node_id="node-sim-1",
        node_gen=1,
        job_id=str(uuid.uuid4()),
        nonce=b"n" * 16,
        action=action,
        args=args,
        actor="user/1",
        request_id="r1",
        issued_at=now,
        not_before=now - 1,
        expires_at=now + 600,
        max_runtime_seconds=60,
        **{"seq": 1, "resource_key": "node", **values},  # type: ignore[arg-type]
    )
    return controller.sign_job(job)


async def test_fleet_when_enrolled_connects_every_agent(
    controller: FakeController, gateway: FakeGateway, tmp_path: Path
) -> None:
    names = [f"sim-{number}" for number in range(1, 21)]
    fleet = SimulatedFleet(plan(controller, tmp_path, *names, keeps_state=False), build_registry())

    outcomes = await fleet.enrol()
    fleet.start()

    await wait_until(lambda: fleet.connected_count == 20)
    await fleet.stop()
    assert len({hello.node_id for hello in gateway.hellos}) == len(outcomes) == 20
    assert len({hello.machine_id_hash for hello in gateway.hellos}) == 20


async def test_noop_job_goes_all_the_way_and_back(
    agent: SimulatedAgent, controller: FakeController, gateway: FakeGateway
) -> None:
    offer = make_job(controller, ACTION_NOOP)

    await gateway.send(offer)

    (event,) = await wait_until(lambda: gateway.of(Event))
    assert [ack.job_id for ack in gateway.of(AckJob)] == [offer.job_id]
    assert event.result is not None
    assert (event.result.job_id, event.result.state) == (offer.job_id, JobState.SUCCEEDED)


async def test_converge_job_makes_the_account_on_the_host_in_memory(
    agent: SimulatedAgent, controller: FakeController, gateway: FakeGateway
) -> None:
    manifest = Manifest(subject="account/alice", generation=1, specs=(AccountSpec(name=UnixName("alice"), uid=20_001),))

    await gateway.send(
        make_job(controller, ACTION_CONVERGE, encode_manifest(manifest), resource_key="account/alice", generation=1)
    )

    (event,) = await wait_until(lambda: gateway.of(Event))
    assert event.result is not None
    assert event.result.state is JobState.SUCCEEDED, event.result.error
    assert agent.host.state.users["alice"].uid == 20_001


async def test_node_manifest_brings_every_module_about_in_memory(
    agent: SimulatedAgent, controller: FakeController, gateway: FakeGateway
) -> None:
    """What a controller sends first to each new node."""
    specs = tuple(ModuleSpec(name=name) for name in ("account", "php", "web"))
    manifest = Manifest(subject=NODE_SUBJECT, generation=1, specs=specs)

    await gateway.send(make_job(controller, ACTION_CONVERGE, encode_manifest(manifest), generation=1))

    (event,) = await wait_until(lambda: gateway.of(Event))
    assert event.result is not None
    assert event.result.state is JobState.SUCCEEDED, event.result.error
    assert agent.host.state.units["nginx.service"].is_running


async def test_forged_job_is_refused_by_the_executor_and_the_refusal_reaches_the_gateway(
    agent: SimulatedAgent, controller: FakeController, gateway: FakeGateway, authority: TestAuthority
) -> None:
    forged = make_job(FakeController(authority), ACTION_NOOP)

    await gateway.send(forged)

    (ack,) = await wait_until(lambda: gateway.of(AckJob))
    assert ack.error is not None
    assert (ack.job_id, ack.seq, ack.state, ack.error.code) == (forged.job_id, 1, JobState.REFUSED, "bad_signature")


async def test_agent_when_started_again_still_has_its_host_and_journal(
    controller: FakeController, gateway: FakeGateway, tmp_path: Path
) -> None:
    manifest = Manifest(subject="account/alice", generation=1, specs=(AccountSpec(name=UnixName("alice"), uid=20_001),))
    first = SimulatedFleet(plan(controller, tmp_path, "sim-1"), build_registry())
    await first.enrol()
    first.start()
    await wait_until(lambda: first.connected_count == 1)
    await gateway.send(
        make_job(controller, ACTION_CONVERGE, encode_manifest(manifest), resource_key="account/alice", generation=1)
    )
    await wait_until(lambda: gateway.of(Event))
    await first.stop()

    second = SimulatedFleet(
        FleetPlan(controller_url=controller.url, names=("sim-1",), state_dir=tmp_path / "fleet"), build_registry()
    )
    (outcome,) = await second.enrol()
    second.start()
    await wait_until(lambda: second.connected_count == 1)
    await second.stop()

    assert outcome.is_new is False
    assert "alice" in second.agents[0].host.state.users
    assert gateway.hellos[-1].last_seq == 1
    assert gateway.hellos[-1].journal_epoch == gateway.hellos[0].journal_epoch


async def test_result_while_the_executor_is_cut_off_arrives_once_it_is_back(
    agent: SimulatedAgent, controller: FakeController, gateway: FakeGateway
) -> None:
    agent.port.cut()
    await gateway.send(make_job(controller, ACTION_NOOP))
    await wait_until(lambda: gateway.of(LogLine))
    assert gateway.of(AckJob) == []

    agent.port.heal()
    await gateway.send(make_job(controller, ACTION_NOOP))

    await wait_until(lambda: gateway.of(Event))


@pytest.mark.parametrize("raw", ["a,a", "a,,b", "../x", "a/b"])
def test_names_when_not_plain_and_different_are_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_names(raw, 1)


def test_names_when_none_are_given_are_counted() -> None:
    assert parse_names(None, 3) == ("sim-1", "sim-2", "sim-3")
