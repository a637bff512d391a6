"""Accounts that stop with their reseller, and come back with it: exactly those."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from controller.bootstrap import Controller
from controller.fleet.models import Heartbeat, Node, NodeState

API = "/api/v1"
NAMES = ("ada", "bob", "eve")


@pytest.fixture
async def made(controller: Controller, client: httpx.AsyncClient) -> dict[str, Any]:
    """A reseller with three accounts, one of which is suspended already; and an account of somebody else."""
    node = Node(
        name="node1", state=NodeState.ACTIVE, roles=["web"], machine_id_hash="m", sealing_public_key=b"",
        facts={"os": "debian", "os_version": "12", "memory_bytes": str(2**36), "disk_bytes": str(2**42)},
        is_connected=True,
    )  # fmt: skip
    async with controller.database.write() as session:
        session.add(node)
        await session.flush()
        session.add(Heartbeat(id=node.id, at=datetime.now(UTC) + timedelta(days=1)))
    reseller = await send(client, "/resellers", {"name": "Shop", "email": "a@example.com"})
    package = await send(client, "/packages", {"name": "P"})
    ids: dict[str, Any] = {"reseller": reseller["id"]}
    for names, reseller_id in ((NAMES, reseller["id"]), (("foreign",), None)):
        owner = await send(client, "/clients", {"name": "A", "email": "a@example.com", "reseller_id": reseller_id})
        for name in names:
            body = {"name": name, "client_id": owner["id"], "package_id": package["id"]}
            ids[name] = (await send(client, "/accounts", body))["resource"]["id"]
    await send(client, f"/accounts/{ids['eve']}/suspend", {"reason": "by hand"})
    return ids


async def send(client: httpx.AsyncClient, path: str, body: Any = None) -> Any:
    answer = await client.post(f"{API}{path}", json=body)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def states(client: httpx.AsyncClient, ids: dict[str, Any]) -> dict[str, str]:
    names = (*NAMES, "foreign")
    return {name: (await client.get(f"{API}/accounts/{ids[name]}")).json()["state"] for name in names}


async def test_accounts_of_a_suspended_reseller_come_back_unless_somebody_else_suspended_them(
    controller: Controller, client: httpx.AsyncClient, made: dict[str, Any]
) -> None:
    path = f"/resellers/{made['reseller']}"
    await send(client, f"{path}/suspend", {"reason": "unpaid", "with_accounts": True})
    await controller.tasks.run_due()
    during = await states(client, made)
    await send(client, f"/accounts/{made['bob']}/unsuspend")
    await send(client, f"/accounts/{made['bob']}/suspend", {"reason": "by hand"})
    await send(client, f"{path}/unsuspend")
    await controller.tasks.run_due()

    assert during == {"ada": "suspended", "bob": "suspended", "eve": "suspended", "foreign": "active"}
    assert await states(client, made) == {"ada": "active", "bob": "suspended", "eve": "suspended", "foreign": "active"}


async def test_suspension_that_is_lifted_before_its_task_ran_suspends_nothing(
    controller: Controller, client: httpx.AsyncClient, made: dict[str, Any]
) -> None:
    path = f"/resellers/{made['reseller']}"
    await send(client, f"{path}/suspend", {"with_accounts": True})
    await send(client, f"{path}/unsuspend")
    await controller.tasks.run_due()

    assert (await states(client, made))["ada"] == "active"


async def test_reseller_suspended_again_before_its_accounts_came_back_keeps_them_suspended(
    controller: Controller, client: httpx.AsyncClient, made: dict[str, Any]
) -> None:
    path = f"/resellers/{made['reseller']}"
    await send(client, f"{path}/suspend", {"with_accounts": True})
    await controller.tasks.run_due()
    await send(client, f"{path}/unsuspend")
    await send(client, f"{path}/suspend", {"with_accounts": True})
    await controller.tasks.run_due()
    during = await states(client, made)
    await send(client, f"{path}/unsuspend")
    await controller.tasks.run_due()

    assert (during["ada"], during["bob"]) == ("suspended", "suspended")
    assert await states(client, made) == {"ada": "active", "bob": "active", "eve": "suspended", "foreign": "active"}
