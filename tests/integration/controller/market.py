"""Two tenants with everything, and a server that gets what they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import update

from controller.bootstrap import Controller
from controller.core.webhooks.models import DeliveryState, WebhookDelivery
from controller.db.base import utc_now
from tests.integration.conftest import ADMIN, PASSWORD, _add_admin, make_controller
from tests.integration.controller.tenants import Tenant, sell
from tests.integration.controller.test_every_route import Api
from tests.integration.controller.test_webhooks import API, Receiver


@dataclass
class Market:
    """Two resellers, each with a client and an account, and somebody's server."""

    controller: Controller
    http: httpx.AsyncClient
    receiver: Receiver
    admin: dict[str, str]
    ours: Tenant
    foreign: Tenant

    async def ask(self, method: str, path: str, headers: dict[str, str], body: Any = None, *, expect: int = 200) -> Any:
        answer = await self.http.request(method, f"{API}{path}", json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    async def add(self, headers: dict[str, str], *events: str, url: str | None = None) -> str:
        body = {"url": url or self.receiver.url, "events": list(events) or ["*"]}
        return str((await self.ask("POST", "/webhooks", headers, body, expect=201))["webhook"]["id"])

    async def log(self, webhook_id: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        """Oldest first."""
        items = (await self.ask("GET", f"/webhooks/{webhook_id}/deliveries", headers))["items"]
        return list(reversed(items))

    async def label(self, tenant: Tenant, headers: dict[str, str] | None = None) -> None:
        """A change of the tenant's account."""
        path = f"/accounts/{tenant.ids['account_id']}"
        await self.ask("PATCH", path, headers or self.admin, {"labels": {"at": utc_now().isoformat()}}, expect=202)

    async def give_away(self) -> None:
        """Our account becomes the foreign client's."""
        body = {"client_id": self.foreign.ids["client_id"], "package_id": self.foreign.ids["package_id"]}
        await self.ask("POST", f"/accounts/{self.ours.ids['account_id']}/transfer", self.admin, body, expect=202)

    async def send(self) -> None:
        """What the workers do, for all that waits."""
        async with self.controller.database.write() as session:
            waits = WebhookDelivery.state == DeliveryState.PENDING
            await session.execute(update(WebhookDelivery).where(waits).values(next_at=utc_now()))
        await self.controller.schedules._schedules["webhooks.send"].run()
        await self.controller.tasks.run_due()


@asynccontextmanager
async def open_market(database_url: str, tmp_path: Path) -> AsyncIterator[Market]:
    """It is open as long as the block."""
    loopback = ("127.0.0.0/8",)
    built = make_controller(
        database_url, tmp_path, webhook_allowed_networks=(*loopback, "10.0.0.0/8"), webhook_tenant_networks=loopback
    )
    await _add_admin(built)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    transport = httpx.ASGITransport(app=built.app.asgi)
    async with server, httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answer = await http.post(f"{API}/auth/login", json={"username": ADMIN, "password": PASSWORD})
        http.cookies.clear()
        admin = {"authorization": f"Bearer {answer.json()['token']}"}
        api = Api(built, http)
        ours, foreign = await api.fill(admin), await api.fill(admin)
        sold = [await sell(built.database, ours, "ours"), await sell(built.database, foreign, "foreign")]
        yield Market(built, http, receiver, admin, sold[0], sold[1])
    await built.database.close()
