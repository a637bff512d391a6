"""What the controller signs about a release, and how an offer reaches a node: over real TLS, on both databases."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controller.fleet.rollouts.models import Release, RolloutNodeState, RolloutState
from controller.fleet.rollouts.releases import LIFETIME
from shared.errors import RefusedError
from shared.protocol.frames import Event, OfferUpdate
from shared.protocol.job import ErrorBody
from shared.protocol.release import ReleaseManifest, SignedRelease, open_release, open_release_keys
from shared.protocol.update import UpdateReport, UpdateState
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.rollout_bench import RolloutBench, write_bundle

OLD_BUILD = "1.0.0-aaaaaaaaaaaa"


def open_signed(bench: FleetBench, signed: SignedRelease, *, now: float | None = None) -> ReleaseManifest:
    """As a node's updater does it."""
    at = bench.clock().timestamp() if now is None else now
    roots = {bench.signer.root_kid: Ed25519PublicKey.from_public_bytes(bench.signer.root_public_key)}
    keys = open_release_keys(signed.keys, root_keys=roots, cluster_id=bench.signer.cluster_id, now=at)
    return open_release(signed.manifest, keys=keys, now=at)


async def test_release_when_registered_is_signed_so_that_a_node_believes_it(still_bench: FleetBench) -> None:
    release = await RolloutBench(still_bench).release("1.1.0")

    manifest = open_signed(still_bench, msgspec.msgpack.decode(release.signed, type=SignedRelease))

    assert (manifest.build, manifest.sha256, manifest.number) == (release.build, release.sha256, 1)


async def test_release_when_half_of_its_time_is_over_is_signed_anew(still_bench: FleetBench) -> None:
    release = await RolloutBench(still_bench).release("1.1.0")
    old = msgspec.msgpack.decode(release.signed, type=SignedRelease)
    still_bench.clock.advance(days=LIFETIME.days / 2 + 1)

    async with still_bench.database.write() as session:
        row = await session.get_one(Release, release.id)
        fresh = await still_bench.fleet.releases.ensure_signed(session, row, now=still_bench.clock())

    later = (still_bench.clock() + timedelta(days=LIFETIME.days / 2)).timestamp()
    assert open_signed(still_bench, fresh, now=later).build == release.build
    with pytest.raises(RefusedError, match="expired"):
        open_signed(still_bench, old, now=later)


async def test_release_when_the_controller_starts_registers_what_it_serves_once(still_bench: FleetBench) -> None:
    rollouts = RolloutBench(still_bench)
    use_cases = still_bench.fleet.releases
    assert await still_bench.change(use_cases.ensure_own) is None
    release = await rollouts.release("1.1.0")

    assert await still_bench.change(use_cases.ensure_own) is None

    build = write_bundle(use_cases.bundle_dir, "1.2.0")
    own = await still_bench.change(use_cases.ensure_own)
    assert (own.build, own.number) == (build, release.number + 1)


async def test_offer_when_a_node_was_asked_reaches_it_and_its_report_ends_the_rollout(bench: FleetBench) -> None:
    rollouts = RolloutBench(bench)
    release = await rollouts.release("1.1.0")
    agent = await bench.enrol()
    session = await agent.connect(capability=2, build=OLD_BUILD)
    rollout = await rollouts.begin(soak_seconds=0)
    await rollouts.turn()

    offer = await session.expect(OfferUpdate)
    assert open_signed(bench, offer.release).build == release.build
    assert offer.path == f"/bundle/releases/{release.build}.tar.gz"
    report = UpdateReport(
        attempt_id=offer.attempt_id,
        state=UpdateState.UPDATED,
        build=release.build,
        from_build=OLD_BUILD,
        finished_at=bench.clock().timestamp(),
    )
    await session.send_event(Event(number=1, kind="update", update=report))
    await session.send_event(Event(number=1, kind="update", update=report))  # twice: nothing happens
    await rollouts.turn()

    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED
    assert (await bench.node(agent.node_id)).agent_build == release.build


async def test_offer_when_the_session_breaks_is_made_again_in_the_next(bench: FleetBench) -> None:
    rollouts = RolloutBench(bench)
    await rollouts.release("1.1.0")
    agent = await bench.enrol()
    session = await agent.connect(capability=2, build=OLD_BUILD)
    await rollouts.begin()
    await rollouts.turn()
    first = await session.expect(OfferUpdate)
    await session.close()

    again = await (await agent.connect(capability=2, build=OLD_BUILD)).expect(OfferUpdate)

    assert again.attempt_id == first.attempt_id


async def test_offer_when_the_node_refuses_is_a_failure_with_its_words(bench: FleetBench) -> None:
    rollouts = RolloutBench(bench)
    release = await rollouts.release("1.1.0")
    agent = await bench.enrol()
    session = await agent.connect(capability=2, build=OLD_BUILD)
    rollout = await rollouts.begin()
    await rollouts.turn()
    offer = await session.expect(OfferUpdate)
    report = UpdateReport(
        attempt_id=offer.attempt_id,
        state=UpdateState.REFUSED,
        build=release.build,
        from_build=OLD_BUILD,
        finished_at=bench.clock().timestamp(),
        error=ErrorBody(code="no_space", message="less than 90 MiB are free in /opt/wcp360"),
    )

    await session.send_event(Event(number=1, kind="update", update=report))
    await rollouts.turn()

    (row,) = await rollouts.nodes(rollout, RolloutNodeState.FAILED)
    assert (row.error_code, row.note) == ("no_space", "refused: less than 90 MiB are free in /opt/wcp360")


async def test_offer_when_the_agent_is_of_capability_1_is_never_made(bench: FleetBench) -> None:
    rollouts = RolloutBench(bench)
    await rollouts.release("1.1.0")
    agent = await bench.enrol()
    session = await agent.connect(capability=1)
    rollout = await rollouts.begin()
    await rollouts.turn()

    (row,) = await rollouts.nodes(rollout, RolloutNodeState.SKIPPED)
    assert "run the installer" in row.note
    assert await bench.fleet.update_offers.offer_due() == 0
    assert not [frame for frame in session.passed_over if isinstance(frame, OfferUpdate)]
