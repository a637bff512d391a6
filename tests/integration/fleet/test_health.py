"""Health of nodes as it arrives, is judged and is told of."""

from __future__ import annotations

from controller.fleet.nodes.pages import view_nodes
from shared.protocol.health import HealthCheck, HealthReport, ModuleHealth, NodeHealth
from tests.integration.fleet.bench import FleetBench
from tests.integration.live import wait_until


def make_report(*, is_good: bool, quarantine: str = "") -> HealthReport:
    check = HealthCheck(name="service", is_good=is_good, note="nginx.service is not running" if not is_good else "")
    module = ModuleHealth(name="web", checks=(check,), version="1.22.1", last_reload_at=1.0, units=("nginx.service",))
    return HealthReport(modules=(module,), checked_at=1.0, quarantine=quarantine)


async def status_of(bench: FleetBench, node_id: str) -> tuple[str, list[str]]:
    async with bench.database.read() as session:
        (view,) = await view_nodes(session, (await bench.node(node_id),))
    return view.health.status, [reason.code for reason in view.health.reasons]


async def test_report_over_the_wire_is_stored_judged_and_told_of(bench: FleetBench) -> None:
    agent = await bench.enrol()
    session = await agent.connect()

    await session.send(NodeHealth(report=make_report(is_good=False)))
    await wait_until(lambda: "node.health" in bench.ear.events("nodes"))

    assert await status_of(bench, agent.node_id) == ("unhealthy", ["module_unhealthy"])
    await session.close()


async def test_report_that_is_good_again_heals_the_node(still_bench: FleetBench, node_id: str) -> None:
    bench = still_bench
    async with bench.database.write() as session:
        node = await session.merge(await bench.node(node_id))
        node.is_connected = True
    await bench.fleet.health.take_report(node_id, make_report(is_good=False, quarantine="an undo failed"))
    assert await status_of(bench, node_id) == ("unhealthy", ["quarantined", "module_unhealthy"])

    await bench.fleet.health.take_report(node_id, make_report(is_good=True))

    assert await status_of(bench, node_id) == ("healthy", [])
    assert bench.ear.events("nodes").count("node.health") == 2


async def test_review_of_a_node_that_stays_away_calls_it_offline(still_bench: FleetBench, node_id: str) -> None:
    bench = still_bench
    async with bench.database.write() as session:
        node = await session.merge(await bench.node(node_id))
        node.is_connected, node.last_seen_at = False, bench.clock()
    assert await bench.fleet.health.review() == 0
    bench.clock.advance(minutes=2)

    assert await bench.fleet.health.review() == 1
    assert await bench.fleet.health.review() == 0

    assert await status_of(bench, node_id) == ("unhealthy", ["offline"])
    async with bench.database.write() as session:
        (await session.merge(await bench.node(node_id))).is_connected = True
    assert await bench.fleet.health.review() == 1
    assert await status_of(bench, node_id) == ("healthy", [])


async def test_flush_writes_a_clock_that_is_wrong_and_again_when_it_is_right(
    still_bench: FleetBench, node_id: str
) -> None:
    bench, keeper = still_bench, still_bench.fleet.health
    async with bench.database.write() as session:
        node = await session.merge(await bench.node(node_id))
        node.is_connected = True
    now = bench.clock().timestamp()
    keeper.note_heartbeat(node_id, clock=now + 1, seq_gaps=0)
    assert await keeper.flush() == 0

    keeper.note_heartbeat(node_id, clock=now - 600, seq_gaps=2)
    assert await keeper.flush() == 1
    assert await status_of(bench, node_id) == ("unhealthy", ["clock_skew", "seq_gaps"])

    keeper.note_heartbeat(node_id, clock=bench.clock().timestamp(), seq_gaps=0)
    assert await keeper.flush() == 1
    assert await status_of(bench, node_id) == ("healthy", [])
