"""A reseller with a client, and somebody of theirs who signs in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.context import Role
from tests.integration.conftest import FAST_HASHER
from tests.integration.controller.hosting import Hosting

API = "/api/v1"


@dataclass
class Shop:
    """What a test needs of one reseller."""

    hosting: Hosting
    id: str
    client_id: str
    headers: dict[str, str]
    """Of the reseller."""

    async def ask(self, method: str, path: str, body: Any = None, *, expect: int, **query: Any) -> Any:
        """As the reseller."""
        answer = await self.hosting.http.request(method, f"{API}{path}", json=body, params=query, headers=self.headers)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    async def add_account(self, name: str, package_id: str, *, expect: int = 202) -> Any:
        """As the reseller; the account's id, or the problem."""
        body = {"name": name, "client_id": self.client_id, "package_id": package_id}
        answer = await self.ask("POST", "/accounts", body, expect=expect)
        return answer["resource"]["id"] if expect == 202 else answer

    async def insist(self, path: str, body: Any) -> httpx.Response:
        """As the reseller, and again as long as the controller says that it has too much to do (503, Retry-After)."""
        for _attempt in range(20):
            answer = await self.hosting.http.post(f"{API}{path}", json=body, headers=self.headers)
            if answer.status_code != 503:
                break
        return answer


async def open_shop(hosting: Hosting, name: str = "shop", **terms: Any) -> Shop:
    """A new reseller with one client."""
    body = {"name": name, "email": f"{name}@example.com", **terms}
    reseller_id = (await hosting.post("/resellers", body, expect=201))["id"]
    client = {"name": f"Client of {name}", "email": f"c@{name}.example", "reseller_id": reseller_id}
    client_id = (await hosting.post("/clients", client, expect=201))["id"]
    headers = await sign_in(hosting, f"{name}.boss", Role.RESELLER, reseller_id=reseller_id)
    return Shop(hosting, reseller_id, client_id, headers)


async def sign_in(hosting: Hosting, username: str, role: Role, **columns: str) -> dict[str, str]:
    """Headers of somebody new."""
    secret = new_secret(TOKEN_PREFIX)
    async with hosting.database.write() as session:
        user = User(username=username, password_hash=FAST_HASHER.hash("a long password"), role=role.value, **columns)
        session.add(user)
        await session.flush()
        session.add(ApiToken(user_id=user.id, name=username, secret_hash=hash_secret(secret), scopes=["*"]))
    return {"authorization": f"Bearer {secret}"}
