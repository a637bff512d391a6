"""A node's next certificate: the real link against the real controller."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select

from agent.bootstrap import build_registry
from agent.link.certificate import parse_validity
from agent.link.enrolment_http import Answer, ControllerClient
from agent.link.enrolment_keys import make_key_and_request
from agent.link.renewal_exchange import renew_once
from agent.link.settings import AgentSettings, NodePaths, read_agent_settings
from agent.link.setup_errors import ExitCode, SetupError
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.db.base import utc_now
from controller.fleet.identity.authority import parse_csr
from controller.fleet.models import NodeCertificate
from shared.protocol.renewal import RenewalReply, RenewalRequest
from tests.integration.link.conftest import running_link
from tests.integration.link.executor import FakeExecutor
from tests.integration.link.gateway import FakeGateway, wait_until
from tests.integration.link.pki import TestAuthority
from tests.integration.live import LiveController

DAY = timedelta(days=1)


class Node:
    """One simulated node of a live controller; enrolled, and not started."""

    def __init__(self, live: LiveController, fleet: SimulatedFleet) -> None:
        self.live = live
        self.fleet = fleet
        self.paths = fleet.paths_of("sim-1")

    @property
    def settings(self) -> AgentSettings:
        return read_agent_settings(self.paths)

    @property
    def pem(self) -> bytes:
        return self.paths.node_pem.read_bytes()

    @property
    def key(self) -> EllipticCurvePrivateKey:
        key = load_pem_private_key(self.pem, password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        return key

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pem)

    @property
    def state(self) -> str:
        status = self.fleet.agents[0].status
        return "" if status is None else status.state.value

    async def age(self, age: timedelta) -> None:
        """The node has a certificate that its controller issued this long ago."""
        key_pem, csr_pem = make_key_and_request("sim-1")
        issued = self.live.controller.fleet.authority.issue_node_certificate(
            parse_csr(csr_pem.decode()),
            cluster_id="c",
            node_id=self.settings.node_id,
            now=utc_now() - age,
        )
        async with self.live.controller.database.write() as session:
            row = NodeCertificate(
                node_id=self.settings.node_id,
                serial=issued.serial,
                fingerprint=issued.fingerprint,
                pem=issued.pem,
                not_after=issued.not_after,
            )
            session.add(row)
        self.paths.node_pem.write_bytes(key_pem + issued.pem.encode())

    async def count_certificates(self) -> int:
        async with self.live.controller.database.read() as session:
            return (await session.execute(select(func.count()).select_from(NodeCertificate))).scalar_one()


@pytest.fixture
async def node(live_controller: LiveController, tmp_path: Path) -> AsyncIterator[Node]:
    async with live_controller.client() as http:
        made = await http.post("/api/v1/enrolment-tokens", json={"name": "sim-1"})
    plan = FleetPlan(
        controller_url=live_controller.api_url,
        names=("sim-1",),
        state_dir=tmp_path / "nodes",
        tokens=(made.json()["token"],),
    )
    fleet = SimulatedFleet(plan, build_registry())
    await fleet.enrol()
    yield Node(live_controller, fleet)
    await fleet.stop()


class CutLine(ControllerClient):
    """Everything arrives at the controller, and nothing comes back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.requests: list[RenewalRequest] = []

    def post_json(self, path: str, body: bytes, *, ca_pem: str) -> Answer:
        self.requests.append(msgspec.json.decode(body, type=RenewalRequest))
        assert super().post_json(path, body, ca_pem=ca_pem).status == 200
        raise SetupError(ExitCode.CONTROLLER_UNREACHABLE, "the line was cut")


async def lose_answer(node: Node) -> RenewalRequest:
    line = CutLine(node.live.api_url)
    with pytest.raises(SetupError):
        await asyncio.to_thread(renew_once, node.settings, node.paths, client=line)
    return line.requests[0]


async def test_link_when_more_than_half_of_the_life_is_over_renews_with_a_new_key(node: Node) -> None:
    await node.age(5 * DAY)
    old_key, old_end = node.key, node.certificate.not_valid_after_utc

    node.fleet.start()
    await wait_until(lambda: node.certificate.not_valid_after_utc > old_end)
    await wait_until(lambda: node.fleet.connected_count == 1)

    assert node.key.public_key() != old_key.public_key()
    assert node.key.public_key() == node.certificate.public_key()
    assert node.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == node.settings.node_id
    await wait_until(lambda: not node.paths.next_pem.exists())


async def test_link_when_the_certificate_is_fresh_does_not_renew(node: Node) -> None:
    before = node.pem

    node.fleet.start()
    await wait_until(lambda: node.fleet.connected_count == 1)

    assert node.pem == before
    assert await node.count_certificates() == 1


async def test_link_when_the_certificate_ended_while_it_was_away_renews_and_connects(node: Node) -> None:
    await node.age(20 * DAY)

    node.fleet.start()
    await wait_until(lambda: node.fleet.connected_count == 1)

    assert node.certificate.not_valid_after_utc > utc_now()
    assert await node.count_certificates() == 3


async def test_link_when_the_certificate_ended_too_long_ago_waits_for_approval_and_keeps_it(node: Node) -> None:
    await node.age(40 * DAY)
    before = node.pem

    node.fleet.start()
    await wait_until(lambda: node.state == "waiting")

    status = node.fleet.agents[0].status
    assert status is not None
    assert "waits for approval" in status.last_error
    assert status.next_attempt_at - status.changed_at >= 60
    assert node.pem == before


async def test_link_when_revoked_and_ended_is_refused_and_asks_rarely(node: Node) -> None:
    await node.age(8 * DAY)
    before = node.pem
    async with node.live.client() as http:
        assert (await http.post(f"/api/v1/nodes/{node.settings.node_id}/revoke")).status_code == 200

    node.fleet.start()
    await wait_until(lambda: node.state == "revoked")

    status = node.fleet.agents[0].status
    assert status is not None
    assert "this node was revoked" in status.last_error
    assert status.next_attempt_at - status.changed_at >= 600
    assert node.pem == before


async def test_renewal_when_the_answer_is_lost_keeps_the_pair_and_asks_with_the_same_request(node: Node) -> None:
    before = node.pem

    requests = [await lose_answer(node) for _ in range(3)]

    assert node.pem == before
    assert len({request.csr_pem for request in requests}) == 1
    assert b"PRIVATE" not in msgspec.json.encode(requests)
    await asyncio.to_thread(renew_once, node.settings, node.paths)
    requested = x509.load_pem_x509_csr(requests[0].csr_pem.encode()).public_key()
    assert node.certificate.public_key() == requested == node.key.public_key()
    assert not node.paths.next_pem.exists()
    node.fleet.start()
    await wait_until(lambda: node.fleet.connected_count == 1)


async def test_renewal_after_a_crash_behind_the_switch_takes_a_fresh_key(node: Node) -> None:
    await lose_answer(node)
    waiting = node.paths.next_pem.read_bytes()
    await asyncio.to_thread(renew_once, node.settings, node.paths)
    used = node.key.public_key()
    node.paths.next_pem.write_bytes(waiting)

    await asyncio.to_thread(renew_once, node.settings, node.paths)

    assert node.key.public_key() != used
    assert node.key.public_key() == node.certificate.public_key()


async def test_renewal_when_the_waiting_request_is_damaged_makes_a_new_one(node: Node) -> None:
    before = node.key.public_key()
    node.paths.next_pem.write_bytes(b"-----BEGIN PRIVATE KEY-----\nhalf of i")

    await asyncio.to_thread(renew_once, node.settings, node.paths)

    assert node.key.public_key() != before


async def test_link_when_the_renewal_fails_tries_again_until_it_works(
    gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths, authority: TestAuthority
) -> None:
    paths.node_pem.write_text(authority.issue_pem("old", lifetime=-DAY))
    attempts = 0

    def exchange(_settings: AgentSettings, there: NodePaths) -> RenewalReply:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise SetupError(ExitCode.CONTROLLER_UNREACHABLE, "nobody answers")
        there.node_pem.write_text(authority.issue_pem("new"))
        return RenewalReply()

    async with running_link(gateway.url, executor, paths, exchange=exchange) as link:
        await wait_until(lambda: link.state == "connected")

    assert attempts == 4
    assert parse_validity(paths.node_pem.read_text()).not_after > utc_now()


def test_link_when_started_has_not_loaded_what_only_a_renewal_needs() -> None:
    """8 MB in a process that lives for ever on every node."""
    code = "import sys, agent.link.main; sys.exit('cryptography' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
