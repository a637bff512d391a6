"""Each feature that this release obeys refuses whoever does not have it, the same way: `feature_disabled`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from controller.core.auth.users import create_user, find_user
from controller.core.context import ALL_TENANTS, Actor, Role
from controller.modules.web.logs import LogKind, LogWish, plan_log_stream
from shared.errors import ForbiddenError
from tests.integration.conftest import FAST_HASHER
from tests.integration.controller.hosting import Hosting

PASSWORD = "a long password"
TENANT = Actor(kind="user", id="1", name="ada", role=Role.CLIENT, reach=ALL_TENANTS)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@laptop"


async def ask_ssh(hosting: Hosting, account_id: str, _site_id: str) -> str:
    body = {"account_id": account_id, "name": "desk", "public_key": KEY}
    return _code_of(await hosting.http.post("/api/v1/ssh-keys", json=body))


async def ask_custom_php(hosting: Hosting, _account_id: str, site_id: str) -> str:
    return _code_of(await hosting.http.patch(f"/api/v1/sites/{site_id}/php-settings", json={"max_input_vars": 2000}))


async def ask_api(hosting: Hosting, account_id: str, _site_id: str) -> str:
    account = await hosting.get(f"/accounts/{account_id}")
    async with hosting.database.write() as session:
        await create_user(session, "grace", FAST_HASHER.hash(PASSWORD), role=Role.CLIENT, must_change_password=False)
        user = await find_user(session, "grace")
        assert user is not None
        user.client_id = account["client_id"]
    transport = httpx.ASGITransport(app=hosting.app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        signed_in = await http.post("/api/v1/auth/login", json={"username": "grace", "password": PASSWORD})
        headers = {"authorization": f"Bearer {signed_in.json()['token']}"}
        return _code_of(await http.post("/api/v1/tokens", json={"name": "deploy"}, headers=headers))


async def ask_advanced_logs(hosting: Hosting, _account_id: str, site_id: str) -> str:
    wish = LogWish(kind=LogKind.ERROR, lines=10, cursor="", is_following=False)
    try:
        await hosting.operations.read(TENANT, "r", lambda ctx: plan_log_stream(ctx, site_id, wish))
    except ForbiddenError as error:
        return error.code
    return ""


def _code_of(answer: httpx.Response) -> str:
    """Of the refusal; empty: there was none."""
    return "" if answer.is_success else str(answer.json()["code"])


ASKS: dict[str, Callable[[Hosting, str, str], Awaitable[str]]] = {
    "ssh": ask_ssh,
    "custom_php": ask_custom_php,
    "api": ask_api,
    "advanced_logs": ask_advanced_logs,
}
"""Feature to something that needs it. A module that obeys another one adds a line here."""


async def test_every_feature_that_the_controller_obeys_is_asked_for_here(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/features")

    assert {item["key"] for item in answer.json()["items"] if item["is_obeyed"]} == set(ASKS)


@pytest.mark.parametrize("key", ASKS)
@pytest.mark.parametrize(("is_on", "code"), [(True, ""), (False, "feature_disabled")])
async def test_feature_when_off_is_refused_and_when_on_is_not(
    hosting: Hosting, key: str, code: str, *, is_on: bool
) -> None:
    account_id = await hosting.add_account("ada", flags={key: is_on})
    site_id = await hosting.add_site(account_id, "example.com", php_version="8.2")

    answered: Any = await ASKS[key](hosting, account_id, site_id)

    assert answered == code
