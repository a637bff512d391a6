"""Changes that concern many accounts: some at once, the rest as a task, each account exactly once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.accounts.fleet import BATCH, queue_reconverge
from controller.core.accounts.models import Account
from controller.core.packages.service import CONVERGED_AT_ONCE
from controller.fleet.models import Heartbeat, Node, NodeState
from controller.jobs.models import Job
from controller.jobs.states import JobState
from controller.jobs.work_models import Task

ACCOUNTS = CONVERGED_AT_ONCE + BATCH + 5
"""More than the change itself takes, and more than one batch of the task."""


@pytest.fixture
async def package(controller: Controller, client: httpx.AsyncClient) -> dict[str, Any]:
    """A package with many accounts on one node."""
    node = Node(
        name="node1", state=NodeState.ACTIVE, roles=["web"], machine_id_hash="m", sealing_public_key=b"",
        facts={"os": "debian", "os_version": "12", "memory_bytes": str(2**36), "disk_bytes": str(2**42)},
        is_connected=True,
    )  # fmt: skip
    async with controller.database.write() as session:
        session.add(node)
        await session.flush()
        session.add(Heartbeat(id=node.id, at=datetime.now(UTC) + timedelta(days=1)))
    package: dict[str, Any] = (await client.post("/api/v1/packages", json={"name": "P"})).json()
    owner = (await client.post("/api/v1/clients", json={"name": "A", "email": "a@example.com"})).json()
    for number in range(ACCOUNTS):
        body = {"name": f"u{number}", "client_id": owner["id"], "package_id": package["id"], "node_id": node.id}
        assert (await client.post("/api/v1/accounts", json=body)).status_code == 202
    return package | {"node_id": node.id}


async def count_generations(controller: Controller) -> Counter[int]:
    async with controller.database.read() as session:
        return Counter((await session.scalars(select(Account.desired_generation))).all())


async def test_package_when_edited_converges_all_its_accounts_once(
    controller: Controller, client: httpx.AsyncClient, package: dict[str, Any]
) -> None:
    answer = await client.patch(f"/api/v1/packages/{package['id']}", json={"processes_max": 77})

    assert answer.status_code == 202
    assert len(answer.json()["jobs"]) == CONVERGED_AT_ONCE
    assert await count_generations(controller) == {1: ACCOUNTS - CONVERGED_AT_ONCE, 2: CONVERGED_AT_ONCE}
    assert await controller.tasks.run_due() == 1
    assert await count_generations(controller) == {2: ACCOUNTS}


async def test_package_when_its_edit_is_planned_leaves_no_task(
    controller: Controller, client: httpx.AsyncClient, package: dict[str, Any]
) -> None:
    async with controller.database.write() as session:
        await session.execute(update(Node).values(is_connected=False))  # so that the plan ends at once

    answer = await client.patch(f"/api/v1/packages/{package['id']}?dry_run=true", json={"processes_max": 77})

    assert answer.status_code == 503
    async with controller.database.read() as session:
        assert (await session.scalars(select(Task))).all() == []


async def test_node_that_comes_back_is_asked_for_what_is_behind_and_no_more(
    controller: Controller, package: dict[str, Any]
) -> None:
    node_id = package["node_id"]
    async with controller.database.write() as session:
        await session.execute(update(Job).values(state=JobState.EXPIRED))
        names = [f"u{number}" for number in range(3)]
        await session.execute(update(Account).values(observed_generation=1))
        await session.execute(update(Account).where(Account.name.in_(names)).values(observed_generation=0))

    await queue_reconverge(controller.database, controller.tasks, node_id, is_everything=False)
    await queue_reconverge(controller.database, controller.tasks, node_id, is_everything=False)
    assert await controller.tasks.run_due() == 1
    await queue_reconverge(controller.database, controller.tasks, node_id, is_everything=False)
    assert await controller.tasks.run_due() == 0

    assert await count_generations(controller) == {1: ACCOUNTS - 3, 2: 3}


async def test_node_that_lost_its_journal_is_asked_for_everything(
    controller: Controller, package: dict[str, Any]
) -> None:
    await queue_reconverge(controller.database, controller.tasks, package["node_id"], is_everything=True)
    assert await controller.tasks.run_due() == 1
    assert await count_generations(controller) == {2: ACCOUNTS}
