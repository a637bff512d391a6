"""One controller in several real processes on one database, behind a balancer, with a simulated fleet of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.auth.users import create_user
from controller.core.context import Role
from controller.db.engine import Database
from shared.protocol.frames import GATEWAY_PATH
from tests.faults.processes import Child, Zygote, spawn
from tests.integration.live import free_port
from tests.integration.scale.balancer import Balancer

START_SECONDS = 90.0


@dataclass
class Member:
    """One process of the controller."""

    role: str
    instance: str
    child: Child
    api_port: int
    gateway_port: int
    ready_path: Path

    @property
    def status_port(self) -> int:
        """Where it answers about its health; the API's own port where there is one."""
        return int(json.loads(self.ready_path.read_text())["api_port"])

    @property
    def serves_api(self) -> bool:
        return self.role in ("api", "run")

    @property
    def serves_agents(self) -> bool:
        return self.role in ("gateway", "run")


@dataclass
class Deployment:
    """What an operator has: processes, two balancers, one address for each."""

    zygote: Zygote
    folder: Path
    database_url: str
    settings: dict[str, Any] = field(default_factory=dict)
    """More settings, for all processes."""
    api: Balancer = field(default_factory=Balancer)
    gateway: Balancer = field(default_factory=Balancer)
    members: dict[str, Member] = field(default_factory=dict)
    token: str = ""
    nodes: Child | None = None
    signer: Child | None = None
    socket_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="wcp-scale-", dir="/tmp")))
    """A socket's path has at most 107 bytes, and pytest's folders have long names."""
    database: Database = field(init=False)
    _ports: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = Database(self.database_url)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    # --- processes ----------------------------------------------------------------------------------------------------

    async def start(self, role: str, instance: str = "1", **settings: Any) -> Member:
        """Start `wcpd ROLE` and wait until it serves; the same name gets the same ports again."""
        name = f"{role}-{instance}"
        api_port, gateway_port = self._ports.setdefault(name, (free_port(), free_port()))
        ready = self.data_dir / ("controller.ready" if role == "run" else f"{name}.ready")
        data_dir = self.data_dir
        if role == "run":  # each has a folder of its own, as on two machines; the keys are shared
            data_dir = self.folder / f"data-{instance}"
            data_dir.mkdir(mode=0o700, exist_ok=True)
            if not (data_dir / "pki").exists():
                (data_dir / "pki").symlink_to(self.data_dir / "pki")
            ready = data_dir / "controller.ready"
        ready.unlink(missing_ok=True)
        environment = self._environment(data_dir, api_port, gateway_port, instance, settings)
        child = self.zygote.start("controller", [role], env=environment, log=self.folder / f"{name}.log")
        member = Member(role, instance, child, api_port, gateway_port, ready)
        async with asyncio.timeout(START_SECONDS):
            while not ready.exists():
                if child.status is not None:
                    raise RuntimeError(f"{name} ended with {child.status}:\n{child.read_log()[-3000:]}")
                await asyncio.sleep(0.02)
        self.members[name] = member
        self._balance()
        return member

    def _environment(
        self, data_dir: Path, api_port: int, gateway_port: int, instance: str, settings: dict[str, Any]
    ) -> dict[str, str]:
        values: dict[str, Any] = {
            "data_dir": data_dir,
            "database_url": self.database_url,
            "api_host": "127.0.0.1",
            "api_port": api_port,
            "gateway_host": "127.0.0.1",
            "gateway_port": gateway_port,
            "public_names": "127.0.0.1",
            "controller_url": f"https://127.0.0.1:{self.api.port}",
            "gateway_url": f"wss://127.0.0.1:{self.gateway.port}{GATEWAY_PATH}",
            "heartbeat_seconds": 1,
            "metrics_seconds": 1,
            "shutdown_seconds": 5,
            "instance": instance,
        }
        known = {**values, **self.settings, **settings}
        return {f"WCP360_{name.upper()}": str(value) for name, value in known.items()}

    def _balance(self) -> None:
        """The balancers know who is there, as they do by their health checks."""
        alive = [member for member in self.members.values() if member.child.status is None]
        self.api.backends = [member.api_port for member in alive if member.serves_api]
        self.gateway.backends = [member.gateway_port for member in alive if member.serves_agents]

    async def restart(self, name: str, *, kills: bool = False) -> Member:
        """End one process, in order or by SIGKILL, and start it again."""
        member = self.members[name]
        others = [other for other in self.members.values() if other is not member]
        self.api.backends = [other.api_port for other in others if other.serves_api] or self.api.backends
        await (member.child.kill() if kills else member.child.terminate())
        return await self.start(member.role, member.instance)

    async def start_signer(self) -> Child:
        """The process that holds the keys; all others ask it from now on."""
        path = self.socket_dir / "signer.sock"
        environment = {"WCP360_DATA_DIR": str(self.data_dir), "WCP360_SIGNER_SOCKET": str(path)}
        self.signer = self.zygote.start("controller", ["signer"], env=environment, log=self.folder / "signer.log")
        self.settings["signer_socket"] = path
        async with asyncio.timeout(START_SECONDS):
            while "signer.ready" not in self.signer.read_log():
                if self.signer.status is not None:
                    raise RuntimeError(f"the signer ended with {self.signer.status}:\n{self.signer.read_log()[-3000:]}")
                await asyncio.sleep(0.02)
        return self.signer

    async def restart_signer(self, *, kills: bool = False) -> None:
        """End the signer and start another one."""
        assert self.signer is not None
        await (self.signer.kill() if kills else self.signer.terminate())
        self.signer.log.rename(self.signer.log.with_suffix(".old.log"))
        await self.start_signer()

    async def start_nodes(self, count: int) -> Child:
        """Enrol and run simulated agents in a process of their own."""
        tokens = [
            (await self.call("POST", "/enrolment-tokens", {"name": f"sim-{n}"}))["token"] for n in range(1, count + 1)
        ]
        argv = [sys.executable, "-m", "agent", "simulate", "--controller", f"https://127.0.0.1:{self.api.port}"]
        argv += ["--count", str(count), "--state-dir", str(self.folder / "fleet")]
        self.nodes = spawn(argv, env={"WCP360_TOKENS": ",".join(tokens)}, log=self.folder / "fleet.log")
        return self.nodes

    async def close(self) -> None:
        children = [member.child for member in self.members.values()]
        for child in [*children, *(child for child in (self.nodes, self.signer) if child is not None)]:
            child.cont()
            await child.kill()
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        await self.api.stop()
        await self.gateway.stop()
        await self.database.close()

    # --- the operator -------------------------------------------------------------------------------------------------

    async def add_admin(self) -> None:
        """An administrator with a token."""
        self.token = new_secret(TOKEN_PREFIX)
        async with self.database.write() as session:
            user: User = await create_user(session, "operator", "!", role=Role.ROOT, must_change_password=False)
            session.add(ApiToken(user_id=user.id, name="t", secret_hash=hash_secret(self.token), scopes=["*"]))

    @asynccontextmanager
    async def client(self, *, port: int | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """The administrator over HTTPS, through the balancer or at one replica."""
        tls = ssl.create_default_context(cafile=str(self.data_dir / "pki/ca.pem"))
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"https://127.0.0.1:{port or self.api.port}/api/v1"
        async with httpx.AsyncClient(base_url=url, verify=tls, headers=headers, timeout=30) as http:
            yield http

    async def ask(self, method: str, path: str, body: Any = None, *, port: int | None = None) -> httpx.Response:
        async with self.client(port=port) as http:
            return await http.request(method, path, json=body)

    async def call(self, method: str, path: str, body: Any = None, *, port: int | None = None) -> Any:
        """One request that succeeds."""
        answer = await self.ask(method, path, body, port=port)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def wait_job(self, job_id: str, *, timeout_seconds: float = 60.0) -> Any:
        """The job once it has ended."""
        async with asyncio.timeout(timeout_seconds):
            while not (job := await self.call("GET", f"/jobs/{job_id}"))["is_final"]:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.05)
        return job

    async def wait_nodes(self, count: int, *, timeout_seconds: float = 90.0) -> list[Any]:
        """The fleet once so many nodes are connected."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                nodes = (await self.call("GET", "/nodes?limit=200"))["items"]
                if sum(node["is_connected"] for node in nodes) == count:
                    return list(nodes)
                await asyncio.sleep(0.1)

    async def wait_processes(self, *roles: str, timeout_seconds: float = 60.0) -> None:
        """Until exactly processes of these roles are shown as alive; one that was killed is until its lease ends."""
        found: list[str] = []
        try:
            async with asyncio.timeout(timeout_seconds):
                while found != sorted(roles):
                    items = (await self.call("GET", "/processes"))["items"]
                    found = sorted(item["role"] for item in items if item["is_alive"])
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise AssertionError(f"{found} instead of {sorted(roles)}") from error

    def describe(self) -> str:
        """The end of every log, for the message of a failed test."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


@asynccontextmanager
async def deployment(zygote: Zygote, folder: Path, database_url: str, **settings: Any) -> AsyncIterator[Deployment]:
    """A deployment with an administrator and no process yet."""
    made = Deployment(zygote, folder, database_url, settings)
    made.data_dir.mkdir(mode=0o700, exist_ok=True)
    (made.data_dir / "pki").mkdir(mode=0o700, exist_ok=True)
    await made.api.start()
    await made.gateway.start()
    await made.add_admin()
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            await made.close()


def read_journal_counts(folder: Path) -> dict[str, int]:
    """Node's folder name to the number of jobs in its journal."""
    counts = {}
    for path in sorted(folder.glob("fleet/*/**/journal.db")):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            name = path.relative_to(folder / "fleet").parts[0]
            counts[name] = int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
    return counts
