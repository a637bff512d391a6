"""Enrolment: every way a machine may come, and what it gets."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import func, select

from controller.core.audit.models import AuditEntry
from controller.fleet.enrolment.words import render_words
from controller.fleet.models import ApprovalMode, EnrolmentTokenRow, Node, NodeCertificate, NodeState
from controller.jobs.states import JobState
from shared.errors import FleetError
from shared.protocol.enrolment import EnrolmentState, parse_enrolment_token
from tests.integration.fleet.agent import FakeAgent, Machine
from tests.integration.fleet.bench import FleetBench


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing has to run for an enrolment."""
    return still_bench


async def count(bench: FleetBench, model: Any) -> int:
    async with bench.database.read() as session:
        return (await session.execute(select(func.count()).select_from(model))).scalar_one()


async def refused(bench: FleetBench, machine: Machine, token: str, **options: Any) -> str:
    """The code with which the controller refuses."""
    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(machine.request(token), **options)
    return caught.value.code


async def test_enrol_with_a_good_token_makes_an_active_node(bench: FleetBench) -> None:
    machine = Machine(hostname="Web_One.example.com")
    token = await bench.token(roles=("web",))

    reply = await bench.post_enrol(machine.request(token))

    node = await bench.node(reply.node_id)
    assert (node.state, node.name, node.roles) == (NodeState.ACTIVE, "web-one.example.com", ["web"])
    (job,) = await bench.jobs(node.id)
    assert (job.state, job.resource_key) == (JobState.REQUESTED, "node")
    assert job.actor == "system/controller"
    async with bench.database.read() as session:
        actions = (await session.execute(select(AuditEntry.action).order_by(AuditEntry.number))).scalars().all()
    assert actions == ["enrolment_token.create", "node.approve"]


async def test_enrol_names_in_the_certificate_are_the_controllers_own(bench: FleetBench) -> None:
    machine = Machine()
    reply = await bench.post_enrol(machine.request(await bench.token()))

    certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.rfc4514_string() == f"CN={reply.node_id}"
    assert [name.value for name in names] == [f"spiffe://{reply.cluster_id}/node/{reply.node_id}"]
    assert certificate.public_key() == machine.key.public_key()
    lifetime = certificate.not_valid_after_utc - bench.clock()
    assert 6.9 < lifetime.total_seconds() / 86_400 <= 7


async def test_enrol_reply_carries_what_the_executor_pins(bench: FleetBench) -> None:
    agent = await bench.enrol()

    assert agent.bundle.cluster_id == agent.reply.cluster_id == bench.signer.cluster_id
    assert agent.bundle.ca_certificates == (bench.fleet.authority.ca_der,)


async def test_enrol_token_pins_the_authority(bench: FleetBench) -> None:
    token = parse_enrolment_token(await bench.token())

    assert token.ca_pins == (bench.fleet.authority.ca_pin,)


async def test_enrol_token_used_twice_at_once_makes_one_node(bench: FleetBench) -> None:
    token = await bench.token()
    machines = [Machine(), Machine(), Machine()]

    answers = await asyncio.gather(
        *(bench.post_enrol(machine.request(token)) for machine in machines), return_exceptions=True
    )

    codes = sorted(answer.code for answer in answers if isinstance(answer, FleetError))
    assert codes == ["token_used", "token_used"]
    assert await count(bench, Node) == 1


async def test_enrol_after_a_lost_answer_gets_the_same_certificate(bench: FleetBench) -> None:
    machine = Machine()
    request = machine.request(await bench.token())
    first = await bench.post_enrol(request)
    bench.clock.advance(minutes=9)

    assert await bench.post_enrol(request) == first
    assert await count(bench, NodeCertificate) == 1


async def test_enrol_with_the_same_request_long_after_is_refused(bench: FleetBench) -> None:
    machine = Machine()
    token = await bench.token()
    request = machine.request(token)
    reply = await bench.post_enrol(request)
    async with bench.database.write() as session:
        (await session.get_one(Node, reply.node_id)).session_epoch = 1  # it has been here since
    bench.clock.advance(minutes=11)

    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(request)

    assert caught.value.code == "token_used"


async def test_enrol_with_an_expired_token_is_refused(bench: FleetBench) -> None:
    token = await bench.token(ttl_minutes=30)
    bench.clock.advance(minutes=31)

    assert await refused(bench, Machine(), token) == "token_expired"
    assert await count(bench, Node) == 0


async def test_enrol_from_another_network_is_refused_and_does_not_use_the_token_up(bench: FleetBench) -> None:
    token = await bench.token(allowed_networks=("10.0.0.0/8",))

    assert await refused(bench, Machine(), token, address="192.0.2.1") == "wrong_network"
    assert (await bench.post_enrol(Machine().request(token), address="10.9.9.9")).state is EnrolmentState.APPROVED


async def test_enrol_with_an_unknown_token_is_refused(bench: FleetBench) -> None:
    token = f"e1.{'0' * 16}.{'0' * 64}.{'0' * 64}"

    assert await refused(bench, Machine(), token) == "token_unknown"


async def test_enrol_with_a_wrong_secret_five_times_ends_the_token(bench: FleetBench) -> None:
    token = await bench.token()
    parsed = parse_enrolment_token(token)
    wrong = str(msgspec.structs.replace(parsed, secret="0" * 64))

    for _ in range(5):
        assert await refused(bench, Machine(), wrong) == "token_unknown"

    assert await refused(bench, Machine(), token) == "token_unknown"
    async with bench.database.read() as session:
        assert (await session.execute(select(EnrolmentTokenRow.failures))).scalar_one() == 6


async def test_enrol_with_a_deleted_token_is_refused(bench: FleetBench) -> None:
    token = await bench.token()
    async with bench.database.read() as session:
        row_id = (await session.execute(select(EnrolmentTokenRow.id))).scalar_one()
    await bench.change(lambda ctx: bench.fleet.delete_token(ctx, row_id))

    assert await refused(bench, Machine(), token) == "token_unknown"


async def test_enrol_with_manual_approval_waits_and_shows_the_words(bench: FleetBench) -> None:
    machine = Machine()
    request = machine.request(await bench.token(approval=ApprovalMode.MANUAL))

    waiting = await bench.post_enrol(request)
    again = await bench.post_enrol(request)

    assert waiting == again
    assert waiting.state is EnrolmentState.PENDING
    assert len(waiting.fingerprint_words.split()) == 6
    assert waiting.certificate_pem == ""
    csr = x509.load_pem_x509_csr(request.csr_pem.encode())
    digest = hashes.Hash(hashes.SHA256())
    digest.update(csr.public_bytes(serialization.Encoding.DER))
    assert waiting.fingerprint_words == render_words(digest.finalize().hex())


async def test_approve_lets_the_waiting_machine_in(bench: FleetBench) -> None:
    machine = Machine()
    request = machine.request(await bench.token(approval=ApprovalMode.MANUAL))
    await bench.post_enrol(request)
    async with bench.database.read() as session:
        node_id = (await session.execute(select(Node.id))).scalar_one()

    await bench.change(lambda ctx: bench.fleet.enrolments.approve(ctx, node_id))
    bench.clock.advance(hours=2)  # the machine may ask late: it has not been here yet
    reply = await bench.post_enrol(request)

    assert (reply.state, reply.node_id) == (EnrolmentState.APPROVED, node_id)


async def test_reject_sends_the_waiting_machine_away(bench: FleetBench) -> None:
    machine = Machine()
    token = await bench.token(approval=ApprovalMode.MANUAL)
    await bench.post_enrol(machine.request(token))
    async with bench.database.read() as session:
        node_id = (await session.execute(select(Node.id))).scalar_one()

    await bench.change(lambda ctx: bench.fleet.enrolments.reject(ctx, node_id))

    with pytest.raises(FleetError) as caught:
        await bench.change(lambda ctx: bench.fleet.enrolments.approve(ctx, node_id))
    assert caught.value.code == "conflict"


async def test_rejected_machine_gets_the_reason(bench: FleetBench) -> None:
    machine = Machine()
    request = machine.request(await bench.token(approval=ApprovalMode.MANUAL))
    await bench.post_enrol(request)
    async with bench.database.read() as session:
        node_id = (await session.execute(select(Node.id))).scalar_one()
    await bench.change(lambda ctx: bench.fleet.enrolments.reject(ctx, node_id))

    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(request)
    assert caught.value.code == "enrolment_rejected"


async def test_enrol_of_a_known_machine_with_another_key_needs_a_person(bench: FleetBench) -> None:
    first = Machine()
    reply = await bench.post_enrol(first.request(await bench.token()))
    impostor = Machine(machine_id_hash=first.machine_id_hash)

    request = impostor.request(await bench.token(approval=ApprovalMode.AUTO))
    waiting = await bench.post_enrol(request)

    assert waiting.state is EnrolmentState.PENDING
    assert (await bench.node(reply.node_id)).state is NodeState.ACTIVE
    await bench.change(lambda ctx: bench.fleet.enrolments.approve(ctx, reply.node_id))
    renewed = await bench.post_enrol(request)
    assert (renewed.node_id, renewed.node_gen) == (reply.node_id, reply.node_gen + 1)
    async with bench.database.read() as session:
        valid = select(NodeCertificate.pem).where(NodeCertificate.revoked_at.is_(None))
        assert (await session.execute(valid)).scalars().all() == [renewed.certificate_pem]


async def test_reject_of_a_known_machine_leaves_the_node_alone(bench: FleetBench) -> None:
    first = Machine()
    reply = await bench.post_enrol(first.request(await bench.token()))
    impostor = Machine(machine_id_hash=first.machine_id_hash)
    await bench.post_enrol(impostor.request(await bench.token()))

    await bench.change(lambda ctx: bench.fleet.enrolments.reject(ctx, reply.node_id))

    assert (await bench.node(reply.node_id)).state is NodeState.ACTIVE


async def test_enrol_two_machines_of_one_name_get_two_names(bench: FleetBench) -> None:
    names = {(await bench.node((await bench.enrol()).node_id)).name for _ in range(3)}

    assert names == {"web1", "web1-2", "web1-3"}


async def test_enrol_with_an_rsa_request_is_refused(bench: FleetBench) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    request = Machine().request(await bench.token(), csr_pem=pem)

    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(request)

    assert caught.value.code == "csr_invalid"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("csr_pem", "no certificate request"),
        ("csr_pem", "x" * 20_000),
        ("sealing_public_key", b"short"),
        ("machine_id_hash", "Z" * 64),
        ("hostname", "a\nb"),
        ("capability", 0),
        ("facts", {"memory_bytes": "lots"}),
        ("facts", {"Bad Name": "x"}),
        ("facts", {"os": "x" * 1001}),
    ],
)
async def test_enrol_with_a_bad_field_names_it_and_does_not_use_the_token_up(
    bench: FleetBench, field: str, value: object
) -> None:
    token = await bench.token()

    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(Machine().request(token, **{field: value}))

    assert (getattr(caught.value, "field", None) or "").startswith(field)
    assert (await bench.post_enrol(Machine().request(token))).state is EnrolmentState.APPROVED


async def test_delete_node_makes_the_machine_a_stranger_again(bench: FleetBench) -> None:
    machine = Machine()
    agent = FakeAgent(bench, machine, await bench.post_enrol(machine.request(await bench.token())))
    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, agent.node_id))
    await bench.change(lambda ctx: bench.fleet.nodes.delete(ctx, agent.node_id))

    returned = Machine(machine_id_hash=machine.machine_id_hash)
    reply = await bench.post_enrol(returned.request(await bench.token()))

    assert reply.state is EnrolmentState.APPROVED
    assert reply.node_id != agent.node_id
