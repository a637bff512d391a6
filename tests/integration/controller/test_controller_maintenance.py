"""The controller's maintenance: reading goes on, changes are refused, whichever process is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.clients import service as clients
from controller.core.clients.models import Client
from controller.core.clients.views import ClientCreate
from controller.core.context import SYSTEM, Actor, Role
from controller.core.maintenance import service
from controller.core.maintenance.gate import OVERRIDE_HEADER, MaintenanceError
from controller.core.maintenance.models import ControllerMaintenance
from controller.maintenance_command import render_view, run_verb
from tests.integration.conftest import ADMIN, PASSWORD, make_controller

API = "/api/v1"
BODY = {"name": "Ada", "email": "ada@example.com"}
OVERRIDE = {OVERRIDE_HEADER: "yes"}
SecondProcess = Callable[[], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def second(client: httpx.AsyncClient, database_url: str, tmp_path: Path) -> SecondProcess:
    """Another process of the same controller."""

    @asynccontextmanager
    async def open_second() -> AsyncIterator[httpx.AsyncClient]:
        other = make_controller(database_url, tmp_path)
        transport = httpx.ASGITransport(app=other.app.asgi)
        try:
            async with httpx.AsyncClient(
                transport=transport, base_url="https://controller.test:8360", headers=client.headers
            ) as http:
                yield http
        finally:
            await other.database.close()

    return open_second


async def start(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{API}/maintenance", json={"reason": "database upgrade", **body})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def count_clients(controller: Controller) -> int:
    async with controller.database.read() as session:
        return len((await session.scalars(select(Client.id))).all())


async def list_actions(controller: Controller) -> list[tuple[str, str]]:
    async with controller.database.read() as session:
        found = select(AuditEntry.action, AuditEntry.actor_name).where(AuditEntry.action.startswith("maintenance."))
        return [(row[0], row[1]) for row in await session.execute(found.order_by(AuditEntry.number))]


async def test_change_during_maintenance_is_refused_with_its_end(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    ends_at = (datetime.now(UTC) + timedelta(minutes=10)).replace(microsecond=0)

    await start(client, ends_at=ends_at.isoformat())
    answer = await client.post(f"{API}/clients", json=BODY)

    assert (answer.status_code, answer.json()["code"]) == (503, "maintenance")
    assert f"{ends_at:%Y-%m-%dT%H:%M:%SZ}: database upgrade" in answer.json()["detail"]
    assert 590 <= int(answer.headers["retry-after"]) <= 600
    assert await count_clients(controller) == 0


async def test_reading_and_dry_runs_during_maintenance_go_on(client: httpx.AsyncClient) -> None:
    await start(client)

    assert (await client.get(f"{API}/clients")).status_code == 200
    assert (await client.post(f"{API}/clients?dry_run=true", json=BODY)).status_code == 200
    assert (await client.get(f"{API}/maintenance")).json()["is_active"] is True


async def test_every_process_knows_of_the_maintenance_at_once(client: httpx.AsyncClient, second: SecondProcess) -> None:
    async with second() as other:
        await start(client)
        refused = await other.post(f"{API}/clients", json=BODY)
        await other.delete(f"{API}/maintenance")
        taken = await client.post(f"{API}/clients", json=BODY)

    assert (refused.status_code, taken.status_code) == (503, 201)


async def test_maintenance_when_its_time_is_over_ends_by_itself_and_is_audited(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await start(client, ends_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    async with controller.database.write() as session:
        await session.execute(update(ControllerMaintenance).values(ends_at=datetime.now(UTC) - timedelta(seconds=1)))

    answer = await client.post(f"{API}/clients", json=BODY)
    shown = (await client.get(f"{API}/maintenance")).json()
    said = await service.end_if_over(controller.operations)

    assert (answer.status_code, shown["is_active"]) == (201, False)
    assert said == "maintenance of the controller has ended"
    assert await service.end_if_over(controller.operations) is None
    assert await list_actions(controller) == [("maintenance.start", ADMIN), ("maintenance.end", "controller")]


async def test_root_with_the_header_may_change_and_without_it_may_not(client: httpx.AsyncClient) -> None:
    await start(client)

    assert (await client.post(f"{API}/clients", json=BODY)).status_code == 503
    assert (await client.post(f"{API}/clients", json=BODY, headers=OVERRIDE)).status_code == 201
    assert (await client.post(f"{API}/clients", json=BODY)).status_code == 503


async def test_an_administrator_who_is_not_root_with_the_header_may_not_change(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    secret = new_secret(TOKEN_PREFIX)
    async with controller.database.write() as session:
        user = User(username="grace", password_hash="-", role=Role.ADMIN.value)
        session.add(user)
        await session.flush()
        session.add(ApiToken(user_id=user.id, name="robot", secret_hash=hash_secret(secret), scopes=["*"]))
    await start(client)

    headers = OVERRIDE | {"authorization": f"Bearer {secret}"}
    answer = await client.post(f"{API}/clients", json=BODY, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (503, "maintenance")


async def test_change_that_was_let_in_before_the_maintenance_is_refused_in_its_transaction(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    """What the guard lets pass a moment too early, the transaction refuses."""
    await start(client)
    person = Actor(kind="user", id="1", name="ada", role=Role.ROOT)

    with pytest.raises(MaintenanceError, match="in maintenance"):
        await controller.operations.change(
            person, "r", lambda ctx: clients.create_client(ctx, ClientCreate(name="A", email="a@example.com"))
        )

    assert await count_clients(controller) == 0


async def test_what_the_controller_does_by_itself_goes_on(client: httpx.AsyncClient, controller: Controller) -> None:
    await start(client)

    await controller.operations.change(
        SYSTEM, "r", lambda ctx: clients.create_client(ctx, ClientCreate(name="A", email="a@example.com"))
    )

    assert await count_clients(controller) == 1


async def test_signing_in_during_maintenance_works_and_a_new_machine_waits(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    await start(client)

    login = await anonymous_client.post(f"{API}/auth/login", json={"username": ADMIN, "password": PASSWORD})
    anonymous_client.cookies.clear()
    enrol = await anonymous_client.post(f"{API}/enrol", json={})

    assert login.status_code == 200
    assert (enrol.status_code, enrol.json()["code"]) == (503, "maintenance")


@pytest.mark.parametrize("body", [{"reason": ""}, {"reason": "x", "ends_at": "2020-01-01T00:00:00Z"}, {}])
async def test_start_with_a_bad_body_changes_nothing(client: httpx.AsyncClient, body: dict[str, str]) -> None:
    answer = await client.post(f"{API}/maintenance", json=body)

    assert answer.status_code == 400
    assert (await client.get(f"{API}/maintenance")).json()["is_active"] is False


async def test_start_as_a_dry_run_begins_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{API}/maintenance?dry_run=true", json={"reason": "drill"})

    assert answer.json()["changes"][0]["action"] == "maintenance.start"
    assert (await client.post(f"{API}/clients", json=BODY)).status_code == 201


async def test_end_of_none_is_a_conflict(client: httpx.AsyncClient) -> None:
    assert (await client.delete(f"{API}/maintenance")).status_code == 409


async def test_wcpd_sets_and_ends_it_for_a_running_controller(client: httpx.AsyncClient, database_url: str) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    started = await run_verb(database_url, "start", reason="restore", until=until)
    refused = await client.post(f"{API}/clients", json=BODY)
    ended = await run_verb(database_url, "end", reason="", until=None)

    assert (started.started_by, refused.status_code) == ("controller", 503)
    assert render_view(ended) == "the controller takes changes"
    assert (await client.post(f"{API}/clients", json=BODY)).status_code == 201
