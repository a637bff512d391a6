"""The change of the authority, step by step, on each kind of database."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from controller.fleet.identity.ca_models import CaPhase
from controller.fleet.identity.ca_rotation import CaRotationView, find_rotation
from shared.errors import ConflictError
from shared.protocol.enrolment import parse_enrolment_token
from shared.protocol.frames import OfferTrust
from shared.protocol.renewal import RenewCertificate, TrustReport
from tests.integration.fleet.bench import FleetBench


async def step(bench: FleetBench, name: str, *arguments: Any) -> None:
    use_case = getattr(bench.fleet.keys.rotations, name)
    await bench.change(lambda ctx: use_case(ctx, *arguments))
    await bench.fleet.keys.follow_rotation()


async def view(bench: FleetBench) -> CaRotationView:
    async with bench.database.read() as session:
        return await bench.fleet.keys.rotations.show(session, now=bench.clock())


async def test_rotation_without_nodes_goes_through_all_phases_and_leaves_one_authority(
    still_bench: FleetBench,
) -> None:
    bench = still_bench
    before = (await view(bench)).authorities[0]

    await step(bench, "start", "drill")
    for _ in range(3):
        await step(bench, "advance")

    after = await view(bench)
    assert (after.phase, after.is_open, after.is_settled, after.can_roll_back) == ("done", False, True, False)
    (authority,) = after.authorities
    assert authority.pin != before.pin
    assert authority.issues == ("nodes", "servers")
    assert authority.pin in parse_enrolment_token(await bench.token()).ca_pins


async def test_rotation_that_is_under_way_cannot_be_started_again(still_bench: FleetBench) -> None:
    await step(still_bench, "start", "")

    with pytest.raises(ConflictError):
        await step(still_bench, "start", "")


async def test_rotation_that_never_began_has_no_next_step(still_bench: FleetBench) -> None:
    for name in ("advance", "roll_back"):
        with pytest.raises(ConflictError):
            await step(still_bench, name)

    assert (await view(still_bench)).phase == "standby"


async def test_rotation_settled_twice_changes_nothing(still_bench: FleetBench) -> None:
    bench = still_bench
    await step(bench, "start", "")
    before = await view(bench)
    version = (await bench.fleet.read_trust())[0]

    await bench.fleet.keys.settle()

    assert await view(bench) == before
    assert (await bench.fleet.read_trust())[0] == version


async def test_rotation_whose_process_died_after_the_commit_is_settled_by_the_next(still_bench: FleetBench) -> None:
    """The step is in the database; signer and bundle had no time to follow."""
    bench = still_bench
    await bench.change(lambda ctx: bench.fleet.keys.rotations.start(ctx, ""))
    assert not (await view(bench)).is_settled
    with pytest.raises(ConflictError) as caught:
        await step(bench, "advance")
    assert caught.value.code == "rotation_blocked"

    await bench.fleet.keys.follow_rotation()

    assert (await view(bench)).is_settled
    assert len((await view(bench)).authorities) == 2


async def test_rotation_waits_for_a_node_until_it_has_the_bundle_and_uses_its_next_certificate(
    bench: FleetBench,
) -> None:
    agent = await bench.enrol()
    session = await agent.connect(capability=2, oldest_capability=1)
    await session.run_next()
    await step(bench, "start", "")
    await session.expect(OfferTrust)
    assert [blocker.name for blocker in (await view(bench)).blockers] == ["web1"]
    with pytest.raises(ConflictError) as caught:
        await step(bench, "advance")
    assert caught.value.code == "rotation_blocked"

    await session.send(TrustReport(bundle_version=agent.bundle.version))
    async with bench.database.read() as database_session:
        rotation = await find_rotation(database_session)
    assert rotation is not None
    assert rotation.bundle_version == agent.bundle.version
    while (await view(bench)).blocked_by:
        pass
    await step(bench, "advance")
    await session.expect(RenewCertificate)

    assert (await view(bench)).phase == CaPhase.UPDATE_CLIENTS.value
    assert "authority ca" in (await view(bench)).blockers[0].reason


async def test_rotation_names_a_node_whose_agent_is_too_old(bench: FleetBench) -> None:
    session = await (await bench.enrol()).connect()
    await session.run_next()
    await step(bench, "start", "")

    assert "too old" in (await view(bench)).blockers[0].reason


async def test_rotation_does_not_wait_for_a_node_whose_certificate_has_ended(still_bench: FleetBench) -> None:
    bench = still_bench
    await bench.enrol()
    await step(bench, "start", "")
    assert (await view(bench)).blocked_by == 1

    bench.clock.advance(days=8)

    assert (await view(bench)).blocked_by == 0


async def test_listener_has_a_certificate_of_the_new_authority_under_the_same_key(still_bench: FleetBench) -> None:
    bench = still_bench
    pin = bench.fleet.server_certificate.pin
    await step(bench, "start", "")
    for _ in range(2):
        await step(bench, "advance")

    certificate = x509.load_pem_x509_certificate(bench.fleet.server_certificate.chain_path.read_bytes())
    new = x509.load_pem_x509_certificate((await bench.signer.list_authorities()).trusted[1].pem.encode())
    assert certificate.issuer == new.subject
    assert bench.fleet.server_certificate.pin == pin


async def test_rotation_rolled_back_before_anybody_had_a_new_certificate_ends_at_once(
    still_bench: FleetBench,
) -> None:
    bench = still_bench
    before = (await view(bench)).authorities
    await step(bench, "start", "")

    await step(bench, "roll_back")
    await step(bench, "advance")

    after = await view(bench)
    assert (after.phase, after.authorities) == ("rolled_back", before)
