"""A controller and its nodes as processes of their own, on one folder and one database: what faults are played on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import func, select

from agent.link.settings import NodePaths, read_agent_settings, render_agent_toml
from controller.core.accounts.models import Account
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.models import Node
from controller.jobs.models import Job
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.states import UNFINISHED
from controller.settings import Settings
from shared.protocol.frames import GATEWAY_PATH
from shared.protocol.job import ACTION_NOOP
from tests.faults.processes import Child, Zygote, spawn
from tests.faults.proxy import TcpProxy
from tests.integration.live import free_port

NODES = ("sim-1", "sim-2")
TOKEN_FILE = "admin.token"
HEARTBEAT_SECONDS = 1.0
START_SECONDS = 60.0
SETTLE_SECONDS = 90.0


@dataclass(kw_only=True)
class Controller:
    """One controller process and where it listens."""

    process: Child
    api_port: int
    gateway_port: int


@dataclass(kw_only=True)
class SimNode:
    """One node: its folder, its process, and the line to the gateway."""

    name: str
    root: Path
    proxy: TcpProxy
    process: Child | None = None

    @property
    def paths(self) -> NodePaths:
        return NodePaths(self.root)

    @property
    def node_id(self) -> str:
        return read_agent_settings(self.paths).node_id

    def describe(self) -> str:
        """What it remembers, for a test that fails."""
        with contextlib.suppress(sqlite3.Error):
            jobs = self.journal("SELECT seq, job_id, subject, state, is_stored FROM jobs ORDER BY seq DESC LIMIT 6")
            return f"--- {self.name}: {jobs} {self.spool('SELECT number, subject FROM event')} {self.spool('SELECT * FROM counter')}"
        return f"--- {self.name}: nothing to read"

    def journal(self, sql: str) -> list[tuple[Any, ...]]:
        return _query(self.paths.executor_state_dir / "journal.db", sql)

    def spool(self, sql: str) -> list[tuple[Any, ...]]:
        return _query(self.paths.spool_db, sql)


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


@dataclass
class Stage:
    """Everything a test of a fault needs."""

    zygote: Zygote
    folder: Path
    database_url: str
    token: str
    api_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    nodes: dict[str, SimNode] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    """Jobs that the API said it took."""
    controllers: list[Child] = field(default_factory=list)
    """Every controller process there ever was."""
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.database_url)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def controller(self) -> Child:
        """The newest controller."""
        return self.controllers[-1]

    # --- processes ----------------------------------------------------------------------------------------------------

    def controller_environment(self, *, fault: str = "", **settings: Any) -> dict[str, str]:
        values: dict[str, Any] = {
            "data_dir": self.data_dir,
            "database_url": self.database_url,
            "api_host": "127.0.0.1",
            "api_port": self.api_port,
            "gateway_host": "127.0.0.1",
            "gateway_port": self.gateway_port,
            "public_names": "127.0.0.1",
            "controller_url": f"https://127.0.0.1:{self.api_port}",
            "gateway_url": f"wss://127.0.0.1:{self.gateway_port}{GATEWAY_PATH}",
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "log_level": "info",
            "shutdown_seconds": 5,
        }
        known = {name: str(value) for name, value in (values | settings).items() if name in Settings.__struct_fields__}
        environment = {f"WCP360_{name.upper()}": value for name, value in known.items()}
        return environment | ({"WCP360_FAULT": fault} if fault else {})

    async def start_controller(
        self, *, fault: str = "", faketime: str = "", waits: bool = True, **settings: Any
    ) -> Child:
        """Start `wcpd run`; `faketime` is what libfaketime takes, for example `+3d`."""
        log = self.folder / f"controller-{len(self.controllers)}.log"
        environment = self.controller_environment(fault=fault, **settings)
        (self.data_dir / "controller.ready").unlink(missing_ok=True)
        if faketime:
            clock = {"LD_PRELOAD": _faketime(), "FAKETIME": faketime, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            child = spawn([_python(), "-m", "controller", "run"], env=environment | clock, log=log)
        else:
            child = self.zygote.start("controller", ["run"], env=environment, log=log)
        self.controllers.append(child)
        if waits:
            await self.wait_ready(child, settings.get("data_dir", self.data_dir))
        return child

    async def wait_ready(self, child: Child, data_dir: Path) -> None:
        """Until it serves.

        Raises:
            RuntimeError: It ended instead.
        """
        async with asyncio.timeout(START_SECONDS):
            while not (data_dir / "controller.ready").exists():
                if child.status is not None:
                    raise RuntimeError(f"the controller ended with {child.status}:\n{child.read_log()[-3000:]}")
                await asyncio.sleep(0.02)

    async def start_node(
        self, name: str, *, fault: str = "", clock: Path | None = None, dead_line: float = 90.0, pace: float = 0.0
    ) -> SimNode:
        """Start a node. `clock`: a file with its clock's offset, `+3600` for example, read again all the time."""
        node = self.nodes[name]
        arguments = [str(node.root), "--dead-line", str(dead_line), "--pace", str(pace)]
        log = self.folder / f"{name}.log"
        environment = {"WCP360_FAULT": fault} if fault else {}
        if clock is not None:
            environment |= {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "LD_PRELOAD": _faketime()}
            environment |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            argv = [_python(), "-m", "tests.faults.node_process", *arguments]
            node.process = spawn(argv, env=environment, log=log)
        else:
            node.process = self.zygote.start("node", arguments, env=environment, log=log)
        return node

    async def start_all(self, **controller: Any) -> None:
        """The controller and every node, connected."""
        await self.start_controller(**controller)
        for name in self.nodes:
            await self.start_node(name)
        await self.wait_connected(*self.nodes)

    async def restart_controller(self, **settings: Any) -> Child:
        """Kill what is left of the last one, start the next."""
        await self.controller.kill()
        return await self.start_controller(**settings)

    async def close(self) -> None:
        children = [*self.controllers, *(node.process for node in self.nodes.values() if node.process is not None)]
        for child in children:
            child.cont()
            await child.kill()
        for node in self.nodes.values():
            await node.proxy.stop()
        await self.database.close()

    # --- the operator -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self, *, port: int | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """The administrator over HTTPS, each time on a new connection."""
        tls = ssl.create_default_context(cafile=str(self.data_dir / "pki/ca.pem"))
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"https://127.0.0.1:{port or self.api_port}/api/v1"
        async with httpx.AsyncClient(base_url=url, verify=tls, headers=headers, timeout=30) as http:
            yield http

    async def ask(self, method: str, path: str, body: Any = None, *, port: int | None = None) -> httpx.Response:
        """One request, whatever the answer.

        Raises:
            httpx.HTTPError: There was none.
        """
        async with self.client(port=port) as http:
            answer = await http.request(method, path, json=body)
        with contextlib.suppress(json.JSONDecodeError):
            found = answer.json() if answer.status_code == 202 else {}
            self.accepted += [job["id"] for job in found.get("jobs", ())]
        return answer

    async def call(self, method: str, path: str, body: Any = None, *, port: int | None = None) -> Any:
        """One request that succeeds."""
        answer = await self.ask(method, path, body, port=port)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def wait_job(self, job_id: str, *, timeout_seconds: float = SETTLE_SECONDS) -> Any:
        """The job once it has ended."""
        async with asyncio.timeout(timeout_seconds):
            while not (job := await self.call("GET", f"/jobs/{job_id}"))["is_final"]:  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(0.05)
        return job

    async def request_noop(self, name: str, **options: Any) -> str:
        """A job that does nothing, written as the relay of another process would find it; its id."""
        values: dict[str, Any] = {
            "action": ACTION_NOOP,
            "args": b"",
            "resource_key": f"test/{len(self.accepted)}",
            "actor": "user/test",
            "request_id": "request-test",
        }
        async with self.database.write() as session:
            request = JobRequest(node_id=self.nodes[name].node_id, **(values | options))
            job_id = await request_job(session, request, now=utc_now())
        self.accepted.append(job_id)
        return job_id

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def wait_connected(self, *names: str, is_connected: bool = True, timeout_seconds: float = 60.0) -> None:
        """Until the database says so of these nodes."""
        ids = [self.nodes[name].node_id for name in names]
        statement = select(func.count()).select_from(Node).where(Node.id.in_(ids), Node.is_connected == is_connected)
        await self.wait_count(statement, len(ids), timeout_seconds=timeout_seconds, what=f"{names} {is_connected}")

    async def wait_count(self, statement: Any, wanted: int, *, timeout_seconds: float = 60.0, what: str = "") -> None:
        found: int | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                while found != wanted:
                    async with self.database.read() as session:
                        found = (await session.execute(statement)).scalar_one()
                    if found != wanted:
                        await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{what}: {found} instead of {wanted}\n{self.describe()}") from error

    async def settle(self, *, timeout_seconds: float = SETTLE_SECONDS) -> None:
        """Leave everything alone until nothing is going on: all connected, all jobs ended, all events committed.

        Raises:
            TimeoutError: Something goes on.
        """
        await self.wait_connected(*self.nodes, timeout_seconds=timeout_seconds)
        unfinished = select(func.count()).select_from(Job).where(Job.state.in_(UNFINISHED))
        behind = (
            select(func.count())
            .select_from(Account)
            .where(Account.observed_generation < Account.desired_generation, Account.deleted_at.is_(None))
        )
        await self.wait_count(unfinished, 0, timeout_seconds=timeout_seconds, what="unfinished jobs")
        await self.wait_count(behind, 0, timeout_seconds=timeout_seconds, what="accounts behind")
        async with asyncio.timeout(timeout_seconds):
            while any(node.spool("SELECT 1 FROM event LIMIT 1") for node in self.nodes.values()):  # noqa: ASYNC110 - files
                await asyncio.sleep(0.05)

    def describe(self) -> str:
        """What all logs complain about, for a test that fails."""
        nodes = [node.process for node in self.nodes.values() if node.process is not None]
        logs = [
            f"--- {child.name} ({child.status})\n" + "\n".join(child.list_complaints()[-12:])
            for child in [*self.controllers, *nodes]
        ]
        return "\n".join([*logs, *(node.describe() for node in self.nodes.values())])


def _python() -> str:
    return sys.executable


def _faketime() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "faketime is not installed"
    return str(found[0])


async def open_stage(zygote: Zygote, template: Path, folder: Path, database_url: str) -> Stage:
    """A copy of a prepared fleet, on ports of its own, with a line that can be cut before each node. Nothing runs."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    stage = Stage(zygote, folder, database_url, (folder / TOKEN_FILE).read_text())
    for name in NODES:
        proxy = TcpProxy(stage.gateway_port)
        await proxy.start()
        root = folder / "nodes" / name
        adopt_node(root, api_port=stage.api_port, gateway_port=proxy.port)
        stage.nodes[name] = SimNode(name=name, root=root, proxy=proxy)
    return stage


def adopt_node(root: Path, *, api_port: int, gateway_port: int) -> None:
    """Point an enrolled agent at these ports."""
    paths = NodePaths(root)
    settings = msgspec.structs.replace(
        read_agent_settings(paths),
        controller_url=f"https://127.0.0.1:{api_port}",
        gateway_url=f"wss://127.0.0.1:{gateway_port}{GATEWAY_PATH}",
        ca_file=str(paths.ca_pem),
    )
    paths.agent_toml.write_text(render_agent_toml(settings))


def read_lines(values: Mapping[str, Any]) -> str:
    """For messages."""
    return "\n".join(f"{name}: {value}" for name, value in values.items())
