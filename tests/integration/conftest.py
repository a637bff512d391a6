"""Fixtures of a whole controller: a migrated database of each kind, the application, clients, a real server."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher

from controller.bootstrap import Controller, build_controller
from controller.core.auth.attempts import Device
from controller.core.auth.passwords import Passwords
from controller.core.auth.users import create_user
from controller.core.context import Role
from controller.db.engine import Database
from controller.db.migrations import runner
from controller.logs import configure_logging
from controller.settings import Settings
from tests.integration.live import LiveController, free_port, serve_controller
from tests.integration.postgresql import PostgresCluster, find_binaries, start_cluster

ADMIN = "admin"
PASSWORD = "correct horse battery staple"

# Cheap on purpose: tests sign in hundreds of times, and the parameters are the library's business.
FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    configure_logging("warning", "json")


@pytest.fixture(scope="session", autouse=True)
def imports_for_good() -> None:
    """As controller.serve.tune_process: the collector walked through every library and every test, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file; tests copy it."""
    path = tmp_path_factory.mktemp("template") / "controller.db"
    asyncio.run(runner.upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """A throwaway PostgreSQL with a migrated template database."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    with start_cluster(binaries) as cluster:
        cluster.create_database("wcp_template")
        asyncio.run(runner.upgrade(cluster.url("wcp_template")))
        yield cluster


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "controller.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own."""
    with postgres_cluster.lend("wcp_template") as name:
        yield postgres_cluster.url(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs the test once for each kind of database."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    with cluster.lend_empty() as name:
        yield cluster.url(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database, opened."""
    opened = Database(database_url)
    yield opened
    await opened.close()


def make_controller(database_url: str, data_dir: Path, **overrides: object) -> Controller:
    """A controller with cheap passwords; nothing listens until its lifespan starts."""
    values: dict[str, object] = {
        "data_dir": data_dir,
        "database_url": database_url,
        "public_names": ("controller.test",),
        "controller_url": "https://controller.test:8360",
        "gateway_url": "wss://controller.test:8443/agent/v1",
    }
    return build_controller(Settings(**(values | overrides)), passwords=Passwords(FAST_HASHER))  # type: ignore[arg-type]


async def _add_admin(controller: Controller) -> None:
    async with controller.database.write() as session:
        hashed = FAST_HASHER.hash(PASSWORD)
        await create_user(session, ADMIN, hashed, role=Role.ROOT, must_change_password=False)


@asynccontextmanager
async def running_controller(database_url: str, data_dir: Path, **overrides: object) -> AsyncIterator[LiveController]:
    """A controller with one administrator that serves on free ports of 127.0.0.1, until the block ends."""
    api_port, gateway_port = free_port(), free_port()
    values: dict[str, object] = {
        "api_host": "127.0.0.1",
        "api_port": api_port,
        "gateway_host": "127.0.0.1",
        "gateway_port": gateway_port,
        "public_names": ("127.0.0.1",),
        "controller_url": f"https://127.0.0.1:{api_port}",
        "gateway_url": f"wss://127.0.0.1:{gateway_port}/agent/v1",
    }
    built = make_controller(database_url, data_dir, **(values | overrides))
    await _add_admin(built)
    device = Device(address="127.0.0.1", user_agent="tests")
    try:
        async with serve_controller(built) as server:
            token = (await built.authenticator.sign_in(ADMIN, PASSWORD, device)).secret
            yield LiveController(built, server, token)
    finally:
        await built.database.close()


@pytest.fixture
async def live_controller(sqlite_url: str, tmp_path: Path) -> AsyncIterator[LiveController]:
    """A controller that serves, on SQLite."""
    async with running_controller(sqlite_url, tmp_path) as running:
        yield running


@pytest.fixture
async def controller(database_url: str, tmp_path: Path) -> AsyncIterator[Controller]:
    """A controller with one administrator; nothing listens."""
    built = make_controller(database_url, tmp_path)
    await _add_admin(built)
    yield built
    await built.database.close()


@pytest.fixture
def app(controller: Controller) -> object:
    """The ASGI application."""
    return controller.app.asgi


@pytest.fixture
async def anonymous_client(app: object) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody; the transport is in process."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        yield http


@pytest.fixture
async def client(app: object) -> AsyncIterator[httpx.AsyncClient]:
    """The administrator, with a bearer token."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answer = await http.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        http.cookies.clear()
        http.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield http
