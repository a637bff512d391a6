"""What nodes say about themselves, and where it is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from controller.fleet.models import DriftCheck, DriftFindingRow
from controller.fleet.nodes.manifest import list_node_modules
from controller.fleet.nodes.views import DriftIgnore
from shared.errors import ConflictError, NotFoundError, QuotaExceededError
from shared.protocol.frames import DriftFinding, DriftReport, Event
from shared.protocol.job import ErrorBody, ResourceOutcome, ResourceReport
from shared.protocol.job import JobState as NodeJobState
from shared.specs.account import MAX_TENANT_UID, MIN_TENANT_UID, ResourceLimits
from shared.specs.base import Presence
from shared.specs.manifest import decode_manifest
from tests.integration.fleet.bench import FleetBench
from tests.integration.live import wait_until


def reports(**outcomes: ResourceOutcome) -> tuple[ResourceReport, ...]:
    return tuple(ResourceReport(key=f"module/{name}", outcome=outcome) for name, outcome in outcomes.items())


async def module_states(bench: FleetBench, node_id: str) -> dict[str, str]:
    async with bench.database.read() as session:
        return {row.name: row.observed_status for row in await list_node_modules(session, node_id)}


async def test_node_manifest_that_succeeded_is_observed(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    done = ResourceOutcome.CHANGED
    await session.finish(await session.take_job(), resources=reports(account=done, php=done, web=done))

    node = await bench.node(agent.node_id)
    assert (node.observed_generation, node.observed_status) == (1, "ok")
    assert await module_states(bench, agent.node_id) == {"account": "enabled", "php": "enabled", "web": "enabled"}
    await session.close()


async def test_node_manifest_with_a_parked_module_is_observed_but_for_that(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    error = ErrorBody(code="resources_parked", message="module/web: no packages")
    outcome = reports(account=ResourceOutcome.CHANGED, php=ResourceOutcome.CHANGED, web=ResourceOutcome.PARKED)
    await session.finish(await session.take_job(), NodeJobState.FAILED, error=error, resources=outcome)

    node = await bench.node(agent.node_id)
    assert (node.observed_generation, node.observed_status) == (1, "parked")
    assert (await module_states(bench, agent.node_id))["web"] == "parked"
    await session.close()


async def test_node_manifest_that_failed_whole_is_asked_for_again_at_the_next_connect(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    job = await session.take_job()
    await session.finish(
        job, NodeJobState.FAILED, error=ErrorBody(code="apply_failed", message="no"), is_rolled_back=True
    )
    node = await bench.node(agent.node_id)
    assert (node.observed_generation, node.observed_status) == (0, "failed")
    await session.close()

    session = await agent.connect()

    assert (await session.take_job()).generation == job.generation + 1
    await session.close()


async def test_module_verb_reaches_the_node_as_its_presence(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await session.run_next()
    await bench.change(lambda ctx: bench.fleet.nodes.set_module(ctx, agent.node_id, "web", Presence.DISABLED))

    job = await session.take_job()
    await session.finish(job, resources=reports(web=ResourceOutcome.CHANGED))

    presences = {str(spec.key): getattr(spec, "presence", None) for spec in decode_manifest(job.args).specs}
    assert presences["module/web"] is Presence.DISABLED
    assert (await module_states(bench, agent.node_id))["web"] == "disabled"
    await session.close()


async def findings(bench: FleetBench) -> dict[str, str]:
    async with bench.database.read() as session:
        return {row.key: row.summary for row in (await session.execute(select(DriftFindingRow))).scalars()}


async def test_drift_report_replaces_the_findings_of_its_subjects_only(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    async def tell(number: int, subjects: tuple[str, ...], **found: Any) -> None:
        drifted = tuple(
            DriftFinding(subject=f"account/{name}", key=f"site/{name}.example", summary=summary)
            for name, summary in found.items()
        )
        report = DriftReport(subjects=subjects, findings=drifted, checked_at=1_700_000_000.0)
        await session.send_event(Event(number=number, kind="drift", drift=report))

    await tell(1, ("account/ada", "account/bob"), ada="file is gone", bob="mode changed")
    await tell(2, ("account/ada",), ada="file is another")
    assert await findings(bench) == {"site/ada.example": "file is another", "site/bob.example": "mode changed"}
    await tell(3, ("account/ada", "account/bob"))

    assert await findings(bench) == {}
    async with bench.database.read() as db:
        assert (await db.get_one(DriftCheck, agent.node_id)).findings == 0
    assert "drift.checked" in bench.ear.events("drift")
    await session.close()


async def test_drift_report_of_an_ignored_finding_keeps_it_ignored_until_it_changes_or_the_time_is_up(
    bench: FleetBench,
) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    async def look(number: int, diff: str) -> tuple[bool, int]:
        """Whether the finding is ignored after another check, and how many the check counted as open."""
        found = (DriftFinding(subject="account/ada", key="site/ada.example", summary="edited", diff=diff),)
        report = DriftReport(subjects=("account/ada",), findings=found)
        await session.send_event(Event(number=number, kind="drift", drift=report))
        async with bench.database.read() as db:
            row = (await db.scalars(select(DriftFindingRow))).one()
            return row.is_ignored(bench.clock()), (await db.get_one(DriftCheck, agent.node_id)).findings

    async def ignore() -> None:
        async with bench.database.read() as db:
            finding_id = (await db.scalars(select(DriftFindingRow.id))).one()
        params = DriftIgnore(until=bench.clock() + timedelta(days=2), reason="hotfix")
        await bench.change(lambda ctx: bench.fleet.drift.ignore(ctx, finding_id, params))

    assert await look(1, "-a") == (False, 1)
    await ignore()
    assert await look(2, "-a") == (True, 0)
    assert await look(3, "-b") == (False, 1)
    await ignore()
    bench.clock.advance(days=2)
    assert await look(4, "-b") == (False, 1)
    await session.close()


async def test_placement_gives_each_uid_once_and_stops_at_the_end(bench: FleetBench) -> None:
    agent = await bench.enrol()
    async with bench.database.write() as session:
        given = [await bench.fleet.allocate_uid(session, agent.node_id) for _ in range(3)]
    assert given == [MIN_TENANT_UID, MIN_TENANT_UID + 1, MIN_TENANT_UID + 2]

    async with bench.database.write() as session:
        node = await bench.node(agent.node_id)
        (await session.merge(node)).next_uid = MAX_TENANT_UID
        await session.flush()
        assert await bench.fleet.allocate_uid(session, agent.node_id) == MAX_TENANT_UID
        with pytest.raises(QuotaExceededError):
            await bench.fleet.allocate_uid(session, agent.node_id)
        with pytest.raises(NotFoundError):
            await bench.fleet.allocate_uid(session, "nobody")


async def test_placement_takes_connected_nodes_with_the_role(bench: FleetBench) -> None:
    agent, other = await bench.enrol(roles=("web",)), await bench.enrol(roles=("dns",))
    sessions = [await agent.connect(), await other.connect()]

    async with bench.database.read() as db:
        limits = ResourceLimits()
        assert await bench.fleet.choose_node(db, roles=frozenset({"web"}), limits=limits) == agent.node_id
        with pytest.raises(ConflictError):
            await bench.fleet.choose_node(db, roles=frozenset({"mail"}), limits=limits)
        await bench.fleet.require_placeable(db, agent.node_id)
        with pytest.raises(NotFoundError):
            await bench.fleet.require_placeable(db, "nobody")
    for session in sessions:
        await session.close()


async def test_stop_drains_the_agents(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()
    await wait_until(lambda: agent.node_id in bench.fleet.gateway.connected_ids)

    await bench.fleet.gateway.stop()

    assert await session.wait_closed() == 1012
    assert "Drain" in [type(frame).__name__ for frame in session.passed_over]
