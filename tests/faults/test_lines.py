"""Fault 21: lines that are dead and nobody says so."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from agent.link.dial import DEAD_LINE_SECONDS
from controller.fleet.models import Node
from controller.settings import Settings
from tests.faults.invariants import check_invariants
from tests.faults.proxy import Direction, Line
from tests.faults.stage import Stage
from tests.faults.workload import Operator

SHORT_SECONDS = 3.0
"""The same timers as in production, thirty times as fast."""
NOTICED_SECONDS = 90.0

FAULTS = {
    "half open": lambda line: line.swallow(),
    "agent's words vanish": lambda line: line.swallow(Direction.UP),
    "controller's words vanish": lambda line: line.swallow(Direction.DOWN),
    "address changed under way": Line.cut_server_side,
    "reset": Line.cut,
}


def test_fault_21_dead_line_is_noticed_within_90_seconds_on_both_sides() -> None:
    """As it is shipped; the tests below only turn the same clocks faster."""
    assert DEAD_LINE_SECONDS <= NOTICED_SECONDS
    assert Settings().dead_line_seconds <= NOTICED_SECONDS


async def read_epoch(stage: Stage, name: str) -> int:
    async with stage.database.read() as session:
        statement = select(Node.session_epoch).where(Node.id == stage.nodes[name].node_id)
        return (await session.execute(statement)).scalar_one()


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_21_dead_line_under_a_running_job_is_replaced_and_nothing_runs_twice(
    stage: Stage, fault: str
) -> None:
    await stage.start_controller(dead_line_seconds=SHORT_SECONDS)
    for name in stage.nodes:
        await stage.start_node(name, dead_line=SHORT_SECONDS, pace=0.2)
    await stage.wait_connected(*stage.nodes)
    operator, node = Operator(stage), stage.nodes["sim-1"]
    site = await operator.find("/sites", "domain", "ada.example")
    before = await read_epoch(stage, "sim-1")
    await operator.move_site(site["id"], "while-the-line-dies")
    (line,) = node.proxy.open_lines

    FAULTS[fault](line)
    ping = await operator.ping("sim-1")

    assert (await stage.wait_job(ping))["state"] == "succeeded"
    assert await read_epoch(stage, "sim-1") > before
    await stage.settle()
    await check_invariants(stage)


async def test_fault_21_frames_that_are_cut_in_the_middle_are_said_again(stage: Stage, kind: str) -> None:
    """Every few hundred bytes the line breaks, wherever that is in a frame."""
    await stage.start_all()
    operator, node = Operator(stage), stage.nodes["sim-1"]
    site = await operator.find("/sites", "domain", "ada.example")
    for number, (direction, size) in enumerate([(Direction.UP, 40), (Direction.DOWN, 700), (Direction.UP, 300)]):
        await stage.wait_connected("sim-1")
        for line in node.proxy.open_lines:
            line.cut_after[direction] = size
        await operator.move_site(site["id"], f"cut-{number}")
        await stage.settle()

    await check_invariants(stage)


async def test_fault_21_slow_line_only_costs_time(stage: Stage) -> None:
    await stage.start_all()
    for node in stage.nodes.values():
        for line in node.proxy.open_lines:
            line.delay_seconds = 0.3
    operator = Operator(stage)
    site = await operator.find("/sites", "domain", "ada.example")
    for number in range(3):
        await operator.move_site(site["id"], f"slow-{number}")

    await stage.settle()
    await check_invariants(stage)
