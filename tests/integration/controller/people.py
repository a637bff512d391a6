"""A reseller with a client, another reseller beside it, and somebody of each role: what tests of people begin with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from sqlalchemy import select

from controller.bootstrap import Controller
from controller.core.auth.models import User
from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.tenancy.models import CustomRole, Reseller
from tests.integration.conftest import ADMIN, FAST_HASHER, PASSWORD

API: Final = "/api/v1"
SECRET: Final = "a long password of nobody"


@dataclass
class World:
    """A reseller with a client with an account, another reseller beside it, and somebody of each role."""

    controller: Controller
    http: httpx.AsyncClient
    ids: dict[str, str]
    headers: dict[str, dict[str, str]]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def ask(self, who: str, method: str, path: str, body: Any = None, *, expect: int) -> Any:
        answer = await self.http.request(method, API + path, json=body, headers=self.headers[who])
        assert answer.status_code == expect, f"{who} {method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def sign_in(self, username: str, password: str = SECRET) -> dict[str, str]:
        answer = await self.http.post(f"{API}/auth/login", json={"username": username, "password": password})
        self.http.cookies.clear()
        assert answer.status_code == 200, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}

    async def add(self, username: str, role: Role, **columns: Any) -> str:
        """Somebody who is signed in."""
        async with self.controller.database.write() as session:
            user = User(username=username, password_hash=FAST_HASHER.hash(SECRET), role=role.value, **columns)
            session.add(user)
        self.ids[username] = user.id
        self.headers[username] = await self.sign_in(username)
        return user.id

    async def add_role(self, name: str, level: Role, *permissions: str, owner: str = "platform") -> str:
        async with self.controller.database.write() as session:
            row = CustomRole(name=name, level=level.value, permissions=list(permissions), owner=owner)
            session.add(row)
        return row.id

    async def count(self, model: Any, *conditions: Any) -> int:
        async with self.controller.database.read() as session:
            return len((await session.scalars(select(model.id).where(*conditions))).all())


async def build_world(controller: Controller, http: httpx.AsyncClient) -> World:
    """Put one together."""
    ids: dict[str, str] = {}
    async with controller.database.write() as session:
        for name in ("ours", "foreign"):
            reseller = Reseller(name=name, email="r@example.com", caps={}, oversell={})
            session.add(reseller)
            await session.flush()
            client = Client(name=name, email="c@example.com", reseller_id=reseller.id)
            session.add(client)
            await session.flush()
            ids |= {f"{name} reseller": reseller.id, f"{name} client": client.id}
    built = World(controller, http, ids, {})
    built.headers["root"] = await built.sign_in(ADMIN, PASSWORD)
    await built.add("adam", Role.ADMIN)
    for name, suffix in (("ours", ""), ("foreign", ".f")):
        await built.add(f"rita{suffix}", Role.RESELLER, reseller_id=ids[f"{name} reseller"])
        await built.add(f"clara{suffix}", Role.CLIENT, client_id=ids[f"{name} client"])
        await built.add(f"mel{suffix}", Role.MEMBER, client_id=ids[f"{name} client"])
    return built


def person(role: str, **fields: Any) -> dict[str, Any]:
    return {"username": "grace", "role": role, **fields}
