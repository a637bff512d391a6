"""A real controller and simulated nodes with the real link, one by one: for faults of identity."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from sqlalchemy import select

from agent.bootstrap import build_registry
from agent.link.enrolment_keys import make_key_and_request
from agent.link.settings import NodePaths, read_agent_settings
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.db.base import utc_now
from controller.fleet.enrolment.enrolment import certificate_row
from controller.fleet.identity.authority import parse_csr
from controller.fleet.models import Node, NodeCertificate
from tests.integration.live import LiveController, wait_until

DAY = timedelta(days=1)


@dataclass
class IdentityNode:
    """One simulated node; enrolled, and not started."""

    live: LiveController
    name: str
    folder: Path
    fleet: SimulatedFleet = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = self._make()

    def _make(self, token: str = "") -> SimulatedFleet:
        plan = FleetPlan(
            controller_url=self.live.api_url,
            names=(self.name,),
            state_dir=self.folder,
            tokens=(token,) if token else (),
        )
        return SimulatedFleet(plan, build_registry())

    async def enrol(self, token: str) -> None:
        self.fleet = self._make(token)
        await self.fleet.enrol()

    @property
    def paths(self) -> NodePaths:
        return self.fleet.paths_of(self.name)

    @property
    def node_id(self) -> str:
        return read_agent_settings(self.paths).node_id

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.paths.node_pem.read_bytes())

    @property
    def state(self) -> str:
        status = self.fleet.agents[0].status if self.fleet.agents else None
        return "" if status is None else status.state.value

    @property
    def last_error(self) -> str:
        status = self.fleet.agents[0].status if self.fleet.agents else None
        return "" if status is None else status.last_error

    def start(self) -> None:
        """As after a boot: with a new boot id."""
        self.fleet = self._make()
        self.fleet.start()

    async def connect(self) -> None:
        self.start()
        await wait_until(lambda: self.state == "connected")

    async def stop(self) -> None:
        await self.fleet.stop()
        self.fleet.agents.clear()

    def clone(self, name: str, *, has_own_machine_id: bool = False) -> IdentityNode:
        """A copy of the whole disk, as it is now."""
        shutil.copytree(self.folder / self.name, self.folder / name)
        copy = IdentityNode(self.live, name, self.folder)
        if has_own_machine_id:
            copy.paths.machine_id.write_text(f"{uuid.uuid4().hex}\n")
        return copy

    @property
    def machine_id_hash(self) -> str:
        return hashlib.sha256(self.paths.machine_id.read_bytes().strip()).hexdigest()

    async def age(self, age: timedelta) -> None:
        """Its certificate is one that the controller issued this long ago, and that it has used."""
        key_pem, csr_pem = make_key_and_request(self.name)
        issued = self.live.controller.fleet.authority.issue_node_certificate(
            parse_csr(csr_pem.decode()), cluster_id="c", node_id=self.node_id, now=utc_now() - age
        )
        async with self.live.controller.database.write() as session:
            for old in (await session.execute(self._certificates())).scalars():
                await session.delete(old)
            row = certificate_row(self.node_id, issued)
            row.used_at = utc_now() - age
            session.add(row)
        self.paths.node_pem.write_bytes(key_pem + issued.pem.encode())

    def _certificates(self) -> Any:
        return select(NodeCertificate).where(NodeCertificate.node_id == self.node_id).order_by(NodeCertificate.id)

    async def certificates(self) -> list[NodeCertificate]:
        async with self.live.controller.database.read() as session:
            return list((await session.execute(self._certificates())).scalars())

    async def row(self) -> Node:
        async with self.live.controller.database.read() as session:
            return (await session.execute(select(Node).where(Node.id == self.node_id))).scalar_one()


@dataclass
class IdentityBench:
    """The controller, its administrator, and the nodes."""

    live: LiveController
    http: httpx.AsyncClient
    folder: Path
    nodes: list[IdentityNode] = field(default_factory=list)

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = await self.http.post(f"/api/v1{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def get(self, path: str) -> Any:
        answer = await self.http.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def token(self, **options: Any) -> str:
        return str((await self.post("/enrolment-tokens", options, status=201))["token"])

    async def enrol(self, name: str) -> IdentityNode:
        node = IdentityNode(self.live, name, self.folder)
        await node.enrol(await self.token(name=name))
        self.nodes.append(node)
        return node

    def adopt(self, node: IdentityNode) -> IdentityNode:
        """Stop this one at the end, too."""
        self.nodes.append(node)
        return node

    async def ping(self, node: IdentityNode) -> dict[str, Any]:
        """A signed job there and back; returns it when it has ended."""
        job_id = (await self.post(f"/nodes/{node.node_id}/ping", status=202))["jobs"][0]["id"]
        return await self.wait_job(job_id)

    async def wait_job(self, job_id: str) -> dict[str, Any]:
        job = await self.live.controller.engine.wait(job_id, 20.0)
        assert job is not None, await self.get(f"/jobs/{job_id}")
        found: dict[str, Any] = await self.get(f"/jobs/{job_id}")
        return found

    async def audit_actions(self) -> list[str]:
        return [entry["action"] for entry in (await self.get("/audit?limit=200"))["items"]]

    async def close(self) -> None:
        for node in self.nodes:
            await node.stop()
        await self.http.aclose()
