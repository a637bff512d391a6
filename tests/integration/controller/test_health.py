"""Health endpoints and metrics."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from controller.api.app import create_app
from controller.api.handlers.health import Probes
from controller.bootstrap import Controller
from shared.version import __version__


async def test_healthz_answers_without_credentials(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.get("/healthz")

    assert answer.json() == {"status": "live", "version": __version__}


async def test_readyz_when_the_database_answers_says_so(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.get("/readyz")

    assert answer.json()["checks"]["database"] == "ok"


async def test_readyz_when_a_check_fails_names_it_and_nothing_more(controller: Controller) -> None:
    async def broken() -> None:
        raise OSError("password of the database is hunter2")

    async def fine() -> None:
        return

    probes = Probes({"signer": broken, "database": fine}, controller.parts.probes.render_metrics)
    app = create_app(dataclasses.replace(controller.parts, probes=probes))
    transport = httpx.ASGITransport(app=app.asgi)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test") as http:
        answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"status": "not_ready", "checks": {"signer": "failed", "database": "ok"}}


async def test_metrics_count_requests_by_route_and_not_by_address(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    await client.delete("/api/v1/tokens/one")
    await client.delete("/api/v1/tokens/two")
    await client.get("/made/up/address")

    text = (await anonymous_client.get("/metrics")).text

    assert 'wcp360_http_requests_total{method="DELETE",route="/api/v1/tokens/{token_id}",status="404"} 2.0' in text
    assert "/made/up" not in text
    assert 'route="(no route)"' in text
    assert "wcp360_nodes_connected 0.0" in text


@pytest.mark.parametrize(("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 401)])
async def test_metrics_without_a_token_are_for_this_machine_only(app: object, peer: str, status: int) -> None:
    transport = httpx.ASGITransport(app=app, client=(peer, 4711))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test") as http:
        answer = await http.get("/metrics")

    assert answer.status_code == status


async def test_metrics_from_elsewhere_with_a_token_are_shown(app: object, client: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app=app, client=("192.0.2.7", 4711))  # type: ignore[arg-type]
    secret = (await client.post("/api/v1/tokens", json={"name": "prometheus", "scopes": ["metrics:read"]})).json()
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test") as http:
        answer = await http.get("/metrics", headers={"authorization": f"Bearer {secret['secret']}"})

    assert answer.status_code == 200
