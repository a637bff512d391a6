"""Prestaged enrolment: the one request that a token is for is known by its hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.link.enrolment_keys import ensure_node_keys, prepare_request
from agent.link.settings import NodePaths
from controller.fleet.identity.authority import csr_digest, parse_csr
from controller.fleet.models import ApprovalMode
from shared.errors import FleetError, InvalidInputError
from shared.protocol.enrolment import EnrolmentState
from tests.integration.fleet.agent import Machine
from tests.integration.fleet.bench import FleetBench


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    return still_bench


def prepared(machine: Machine) -> tuple[str, str]:
    """A request and its hash; a request is different each time it is made."""
    pem = machine.csr_pem()
    return pem, csr_digest(parse_csr(pem))


async def test_prestaged_machine_becomes_a_node_without_another_yes(bench: FleetBench) -> None:
    machine = Machine()
    pem, csr_hash = prepared(machine)
    token = await bench.token(approval=ApprovalMode.PRESTAGED, csr_hash=csr_hash.upper())

    reply = await bench.post_enrol(machine.request(token, csr_pem=pem))

    assert reply.state is EnrolmentState.APPROVED


async def test_prestaged_token_with_another_request_is_refused_and_counted(bench: FleetBench) -> None:
    _, csr_hash = prepared(Machine())
    token = await bench.token(approval=ApprovalMode.PRESTAGED, csr_hash=csr_hash)

    for _ in range(5):
        with pytest.raises(FleetError) as caught:
            await bench.post_enrol(Machine().request(token))
        assert caught.value.code == "csr_not_expected"
    with pytest.raises(FleetError) as caught:
        await bench.post_enrol(Machine().request(token))

    assert caught.value.code == "token_unknown"


async def test_prestaged_machine_that_was_a_node_gets_a_new_generation_at_once(bench: FleetBench) -> None:
    before = await bench.enrol()
    again = Machine(machine_id_hash=before.machine.machine_id_hash)
    pem, csr_hash = prepared(again)
    token = await bench.token(approval=ApprovalMode.PRESTAGED, csr_hash=csr_hash)

    reply = await bench.post_enrol(again.request(token, csr_pem=pem))

    assert (reply.node_id, reply.node_gen) == (before.node_id, 2)


async def test_known_machine_with_another_key_waits_and_gets_a_new_generation_with_the_approval(
    bench: FleetBench,
) -> None:
    before = await bench.enrol()
    again = Machine(machine_id_hash=before.machine.machine_id_hash)
    reply = await bench.post_enrol(again.request(await bench.token()))
    assert reply.state is EnrolmentState.PENDING
    assert (await bench.node(before.node_id)).node_gen == 1

    await bench.change(lambda ctx: bench.fleet.enrolments.approve(ctx, before.node_id))

    assert (await bench.node(before.node_id)).node_gen == 2


@pytest.mark.parametrize(
    "options",
    [
        {"approval": ApprovalMode.PRESTAGED},
        {"approval": ApprovalMode.PRESTAGED, "csr_hash": "abc"},
        {"approval": ApprovalMode.AUTO, "csr_hash": "0" * 64},
    ],
)
async def test_token_whose_hash_does_not_fit_its_approval_is_refused(
    bench: FleetBench, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await bench.token(**options)

    assert caught.value.field == "csr_hash"


def test_machine_that_prepared_shows_the_hash_of_the_request_that_it_sends(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path)

    shown = prepare_request(paths, hostname="web1", owner=None)
    sent = ensure_node_keys(paths, token_id="0" * 16, hostname="web1", owner=None)

    assert shown == csr_digest(parse_csr(sent.csr_pem))
    assert shown == prepare_request(paths, hostname="web1", owner=None)
    assert paths.pending_key.stat().st_mode & 0o777 == 0o600
