"""Maintenance and drain: what waits, what goes on, and that nothing is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from controller.core.audit.models import AuditEntry
from controller.core.upkeep import DrainObserver, Upkeep
from controller.fleet.models import Node
from controller.fleet.nodes.placement import Placement
from controller.fleet.ports import nothing_committed
from controller.jobs.holds import HoldKind, find_hold, release_job
from controller.jobs.results import Observers
from controller.jobs.states import JobState
from controller.jobs.views import render_jobs
from shared.errors import ConflictError, InvalidInputError
from shared.protocol.health import Quiet
from shared.protocol.job import ACTION_DRIFT, JobMode
from shared.protocol.job import JobState as NodeJobState
from shared.specs.account import ResourceLimits
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.steps import bring_to_node, converge, offer_all, report


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    """Nothing runs but what the test calls."""
    return still_bench


async def start(bench: FleetBench, node_id: str, *, minutes: float | None = None) -> None:
    until = bench.clock() + timedelta(minutes=minutes) if minutes is not None else None
    await bench.change(lambda ctx: bench.fleet.maintenance.start(ctx, node_id, reason="new disk", until=until))


async def end(bench: FleetBench, node_id: str) -> list[str]:
    ids: list[str] = await bench.change(lambda ctx: bench.fleet.maintenance.end(ctx, node_id))
    return ids


async def drain(bench: FleetBench, node_id: str, *, minutes: float | None = None, is_cancelling: bool = False) -> None:
    deadline = bench.clock() + timedelta(minutes=minutes) if minutes is not None else None
    await bench.change(
        lambda ctx: bench.fleet.maintenance.drain(
            ctx, node_id, reason="kernel update", deadline=deadline, is_cancelling=is_cancelling
        )
    )


def upkeep_of(bench: FleetBench) -> Upkeep:
    async def reconverge(node_id: str, is_everything: bool) -> None:
        bench.reconverged.append((node_id, is_everything))

    return Upkeep(bench.database, bench.operations, bench.fleet.maintenance, bench.ear, reconverge)


async def offered_ids(bench: FleetBench, node_id: str) -> list[str]:
    return [offer.job_id for offer in await offer_all(bench, node_id)]


async def waits_for(bench: FleetBench, job_id: str) -> str:
    async with bench.database.read() as session:
        return (await render_jobs(session, [job_id]))[0].waits_for


async def test_maintenance_lets_changes_wait_and_says_why(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id, minutes=30)
    job_id = await converge(bench, node_id, 1)

    await bench.engine.relay_once()

    assert (await bench.job(job_id)).state is JobState.REQUESTED
    words = await waits_for(bench, job_id)
    assert "node in maintenance until" in words
    assert "by admin: new disk" in words


async def test_maintenance_when_it_ends_lets_work_flow(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id)
    job_id = await converge(bench, node_id, 1)
    await bench.engine.relay_once()

    assert await end(bench, node_id) == []
    await bench.engine.relay_once()

    assert await offered_ids(bench, node_id) == [job_id]


async def test_maintenance_holds_back_what_was_signed_before(bench: FleetBench, node_id: str) -> None:
    job_id = await converge(bench, node_id, 1)
    await bench.engine.relay_once()
    await start(bench, node_id)

    assert await offered_ids(bench, node_id) == []
    await end(bench, node_id)

    assert await offered_ids(bench, node_id) == [job_id]


async def test_maintenance_lets_pings_dry_runs_and_drift_checks_pass(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id)
    await converge(bench, node_id, 1)
    plan = await converge(bench, node_id, 2, mode=JobMode.PLAN)
    ping = await bench.request(node_id)
    look = await bench.request(node_id, action=ACTION_DRIFT)

    await bench.engine.relay_once()

    assert sorted(await offered_ids(bench, node_id)) == sorted([plan, ping, look])


async def test_maintenance_longer_than_a_jobs_time_loses_no_change(bench: FleetBench, node_id: str) -> None:
    signed = await converge(bench, node_id, 1, ttl_seconds=60, resource_key="account/ada")
    await bench.engine.relay_once()
    await start(bench, node_id)
    unsigned = await converge(bench, node_id, 1, ttl_seconds=60, resource_key="account/bob")
    bench.clock.advance(hours=2)

    assert await bench.engine.sweep_once() == []
    again = await end(bench, node_id)
    await bench.engine.relay_once()

    assert (await bench.job(signed)).state is JobState.EXPIRED
    assert (await bench.job(again[0])).retry_of == signed
    assert sorted(await offered_ids(bench, node_id)) == sorted([*again, unsigned])


async def test_maintenance_ends_by_itself_at_its_time(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id, minutes=10)
    job_id = await converge(bench, node_id, 1)
    upkeep = upkeep_of(bench)

    assert await upkeep.run() is None
    bench.clock.advance(minutes=11)
    assert "has ended" in (await upkeep.run() or "")
    await bench.engine.relay_once()

    assert await offered_ids(bench, node_id) == [job_id]
    assert bench.reconverged == [(node_id, False)]
    async with bench.database.read() as session:
        actions = list(await session.scalars(select(AuditEntry.action).order_by(AuditEntry.number.desc()).limit(2)))
    assert actions == ["node.end_maintenance", "node.start_maintenance"]


async def test_maintenance_when_prolonged_does_not_end_at_the_old_time(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id, minutes=10)
    await start(bench, node_id, minutes=60)
    bench.clock.advance(minutes=11)

    assert await upkeep_of(bench).run() is None


async def test_placement_passes_a_held_node_by(bench: FleetBench) -> None:
    agents = [await bench.enrol(name=name, roles=["web"]) for name in ("web1", "web2")]
    async with bench.database.write() as session:
        await session.execute(update(Node).values(is_connected=True))
    await start(bench, agents[0].node_id)
    placement = Placement(nothing_committed)

    async with bench.database.write() as session:
        chosen = await placement.choose_node(session, roles=frozenset({"web"}), limits=ResourceLimits())
        with pytest.raises(ConflictError, match="in maintenance"):
            await placement.require_placeable(session, agents[0].node_id)

    assert chosen == agents[1].node_id


async def test_maintenance_of_a_bad_end_names_the_field(bench: FleetBench, node_id: str) -> None:
    for minutes in (-1.0, 60.0 * 24 * 91):
        with pytest.raises(InvalidInputError) as caught:
            await start(bench, node_id, minutes=minutes)
        assert caught.value.field == "until"
    with pytest.raises(ConflictError, match="not in maintenance"):
        await end(bench, node_id)


async def test_drain_waits_for_what_runs_and_then_says_drained(bench: FleetBench, node_id: str) -> None:
    running = await converge(bench, node_id, 1)
    await bring_to_node(bench, node_id, running)

    await drain(bench, node_id)
    later = await converge(bench, node_id, 2)
    await bench.engine.relay_once()

    async with bench.database.read() as session:
        hold = await find_hold(session, node_id, HoldKind.DRAIN)
    assert hold is not None
    assert hold.settled_at is None
    assert (await bench.node(node_id)).is_cordoned
    assert (await bench.job(later)).state is JobState.REQUESTED

    observers = Observers(results=[DrainObserver(bench.ear)])
    await report(bench, node_id, running, NodeJobState.SUCCEEDED, observers=observers)

    async with bench.database.read() as session:
        hold = await find_hold(session, node_id, HoldKind.DRAIN)
    assert hold is not None
    assert hold.settled_at is not None
    assert "node.drained" in bench.ear.events("nodes")


async def test_drain_past_its_deadline_is_told_once_and_cancels_if_wished(bench: FleetBench, node_id: str) -> None:
    running = await converge(bench, node_id, 1)
    await bring_to_node(bench, node_id, running)
    await drain(bench, node_id, minutes=5, is_cancelling=True)
    bench.clock.advance(minutes=6)
    upkeep = upkeep_of(bench)

    await upkeep.run()
    await upkeep.run()

    assert bench.ear.events("nodes").count("node.drain_overdue") == 1
    assert (await bench.job(running)).cancel_requested_at is not None


async def test_undrain_restores_how_placement_saw_the_node(bench: FleetBench, node_id: str) -> None:
    await drain(bench, node_id)
    await bench.change(lambda ctx: bench.fleet.maintenance.undrain(ctx, node_id))
    assert not (await bench.node(node_id)).is_cordoned

    await bench.change(lambda ctx: bench.fleet.nodes.cordon(ctx, node_id, is_cordoned=True))
    await drain(bench, node_id)
    await bench.change(lambda ctx: bench.fleet.maintenance.undrain(ctx, node_id))
    assert (await bench.node(node_id)).is_cordoned


async def test_drain_within_maintenance_ends_only_with_the_last_of_both(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id)
    await drain(bench, node_id)
    job_id = await converge(bench, node_id, 1)
    await end(bench, node_id)
    await bench.engine.relay_once()
    assert (await bench.job(job_id)).state is JobState.REQUESTED

    await bench.change(lambda ctx: bench.fleet.maintenance.undrain(ctx, node_id))
    await bench.engine.relay_once()

    assert (await bench.job(job_id)).state is JobState.QUEUED


async def test_held_node_that_goes_away_is_told_of_as_expected(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id)
    await bench.fleet.hold_book.refresh()

    marked = bench.fleet.hold_book.mark("nodes", "node.disconnected", {"id": node_id})

    assert marked["is_muted"] is True
    assert marked["muted_by"] == "maintenance"
    assert "is_muted" not in bench.fleet.hold_book.mark("nodes", "node.disconnected", {"id": "another"})


async def test_held_node_is_told_not_to_repair_by_itself(still_bench: FleetBench) -> None:
    bench = still_bench
    await bench.fleet.start()
    try:
        agent = await bench.enrol()
        await start(bench, agent.node_id, minutes=30)
        session = await agent.connect()

        quiet = await session.expect(Quiet)
        assert quiet.until > 0
        await end(bench, agent.node_id)

        assert (await session.expect(Quiet)).until == 0.0
        await session.close()
    finally:
        await bench.fleet.stop()


async def test_job_of_a_held_node_can_be_let_through(bench: FleetBench, node_id: str) -> None:
    await start(bench, node_id)
    job_id = await converge(bench, node_id, 1)
    async with bench.database.write() as session:
        assert await release_job(session, job_id, now=bench.clock())
        assert not await release_job(session, job_id, now=bench.clock())

    await bench.engine.relay_once()

    assert await offered_ids(bench, node_id) == [job_id]
