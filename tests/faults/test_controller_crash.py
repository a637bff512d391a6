"""The controller really dies, at every place where it could lose or double something, and is started again.

Faults 1, 2 and 3; and every other place of controller/faults.py.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from controller.faults import EXIT_STATUS, POINTS
from tests.faults.invariants import check_invariants
from tests.faults.processes import Child, Zygote
from tests.faults.stage import Stage
from tests.faults.template import add_admin, enrol_nodes
from tests.faults.workload import Operator, work

BEFORE_SIGNING = ("change.before_commit", "change.after_commit", "sign.before_commit", "sign.after_commit")
BEFORE_ACK = ("offer.before_commit", "offer.after_commit", "offer.after_send", "ack.before_commit", "ack.after_commit")
BEFORE_RESULT = ("event.received", "event.before_commit", "event.after_commit", "event.after_ack")
AT_START = ("keyfile.before_rename", "keyfile.after_rename")
OTHERS = tuple(point for point in POINTS if point not in {*BEFORE_SIGNING, *BEFORE_ACK, *BEFORE_RESULT, *AT_START})

TIMES = (("sqlite", 1), ("sqlite", 3), pytest.param("postgresql", 2, marks=pytest.mark.postgresql))
"""On which database, and the how-manieth time that it comes to the place."""


async def survive(stage: Stage, fault: str) -> None:
    """Die at this place while everybody works, come back, finish; all invariants hold."""
    await stage.start_controller(fault=fault, waits=False)
    for name in stage.nodes:
        await stage.start_node(name)
    # What was not taken in its time (already over here) is swept, and a node that goes away is noticed: both are places to
    # die at.
    await stage.request_noop("sim-2", ttl_seconds=0)
    working = asyncio.create_task(work(stage))
    leaving = asyncio.create_task(lose_a_node(stage, until_over=stage.controller))
    try:
        assert await stage.controller.wait() == EXIT_STATUS, f"nothing came to {fault}\n{stage.describe()}"
        await stage.start_controller()
        await asyncio.gather(working, leaving)
    finally:
        working.cancel()
        leaving.cancel()

    await stage.settle()
    await check_invariants(stage)


async def lose_a_node(stage: Stage, *, until_over: Child) -> None:
    """One node is killed, started again and asked for a sign of life, until that controller is over.

    Once is not enough: how many greetings, offers and answers the controller takes in one go is up to the machine, so the
    work alone may bring it to a place only twice.
    """
    operator = Operator(stage)
    is_over = False
    while not is_over:
        await stage.wait_connected("sim-2")
        process = stage.nodes["sim-2"].process
        assert process is not None
        await process.kill()
        # One that is back before its connection is found broken takes the place of its session, and nobody leaves.
        await stage.wait_connected("sim-2", is_connected=False)
        await stage.start_node("sim-2")
        await operator.ping("sim-2")
        is_over = until_over.status is not None


@pytest.mark.parametrize(("kind", "hit"), TIMES, indirect=["kind"])
@pytest.mark.parametrize("point", BEFORE_SIGNING)
async def test_fault_01_killed_between_commit_and_hint_signs_once_and_runs_once(stage, kind, point, hit) -> None:
    await survive(stage, f"{point}:{hit}")


@pytest.mark.parametrize(("kind", "hit"), TIMES, indirect=["kind"])
@pytest.mark.parametrize("point", BEFORE_ACK)
async def test_fault_02_killed_between_offer_and_ack_offers_again_and_runs_once(stage, kind, point, hit) -> None:
    await survive(stage, f"{point}:{hit}")


@pytest.mark.parametrize(("kind", "hit"), TIMES, indirect=["kind"])
@pytest.mark.parametrize("point", BEFORE_RESULT)
async def test_fault_03_killed_around_the_commit_of_a_result_stores_it_once(stage, kind, point, hit) -> None:
    await survive(stage, f"{point}:{hit}")


@pytest.mark.parametrize("point", OTHERS)
async def test_controller_killed_at_any_other_place_loses_and_doubles_nothing(stage, point) -> None:
    await survive(stage, point)


@pytest.mark.parametrize("hit", [1, 2, 3, 5])
@pytest.mark.parametrize("point", AT_START)
async def test_controller_killed_while_it_makes_its_keys_starts_with_whole_ones(
    zygote: Zygote, memory_dir: Path, tmp_path: Path, point: str, hit: int
) -> None:
    """The very first start, with nothing there: half a key must neither be used nor stand in the way."""
    folder = Path(tempfile.mkdtemp(dir=memory_dir))
    stage = Stage(zygote, folder, f"sqlite+aiosqlite:///{folder / 'data/controller.db'}", "")
    try:
        await stage.start_controller(fault=f"{point}:{hit}", waits=False)
        assert await stage.controller.wait() == EXIT_STATUS

        await stage.start_controller()

        stage.token = await add_admin(stage.database_url, "tester")
        await enrol_nodes(stage, ("sim-1",))
    finally:
        await stage.close()
        shutil.rmtree(folder, ignore_errors=True)
