"""Two controllers in one process share the compiled routes and nothing else."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx

from controller.bootstrap import Controller
from controller.core.auth.users import create_user
from controller.core.context import Role
from tests.integration.conftest import FAST_HASHER, PASSWORD, make_controller


async def _start(sqlite_template: Path, folder: Path, username: str) -> tuple[Controller, httpx.AsyncClient]:
    """A controller whose only user signed in."""
    shutil.copyfile(sqlite_template, folder / "controller.db")
    made = make_controller(f"sqlite+aiosqlite:///{folder / 'controller.db'}", folder)
    async with made.database.write() as session:
        hashed = FAST_HASHER.hash(PASSWORD)
        await create_user(session, username, hashed, role=Role.ROOT, must_change_password=False)
    transport = httpx.ASGITransport(app=made.app.asgi)  # type: ignore[arg-type]
    http = httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360")
    answer = await http.post("/api/v1/auth/login", json={"username": username, "password": PASSWORD})
    http.cookies.clear()
    http.headers["authorization"] = f"Bearer {answer.json()['token']}"
    return made, http


async def test_two_controllers_when_asked_at_once_each_answer_with_their_own(
    sqlite_template: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, ada = await _start(sqlite_template, tmp_path / "first", "ada")
    second, bob = await _start(sqlite_template, tmp_path / "second", "bob")

    answers = await asyncio.gather(*(http.get("/api/v1/users") for _ in range(10) for http in (ada, bob)))
    stranger = await bob.get("/api/v1/users", headers={"authorization": ada.headers["authorization"]})

    assert first.app.litestar is second.app.litestar
    names = [[user["username"] for user in answer.json()["items"]] for answer in answers]
    assert names == [["ada"], ["bob"]] * 10
    assert stranger.status_code == 401
    for http in (ada, bob):
        await http.aclose()
    for controller in (first, second):
        await controller.database.close()
