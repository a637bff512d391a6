"""A fleet that is enrolled already: nodes in a controller's database, and the folders of their simulated agents.

Enrolling ten thousand nodes over HTTP would take longer than what is measured, so the enrolment's own use cases are run
here in process, many in one transaction: tokens, approvals, certificates and audit entries are those of any node.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.link.enrolment_keys import make_key_and_request
from agent.link.settings import AgentSettings, NodePaths, render_agent_toml, render_identity
from agent.simulator.agent import ensure_simulated_machine
from controller.administration import ensure_first_admin
from controller.bootstrap import build_controller
from controller.core.context import SYSTEM, Actor, Role
from controller.core.operations import FleetContext
from controller.db.migrations import runner
from controller.fleet.enrolment.tokens import TokenParams
from controller.fleet.fleet import Fleet
from controller.settings import Settings
from shared.errors import FleetError
from shared.protocol.capability import CAPABILITY_VERSION
from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest
from shared.version import __version__
from tests.e2e.fleet import free_port

PER_TRANSACTION = 100
ADMIN = Actor(kind="user", id="bench", name="bench", role=Role.ROOT)


@dataclass(frozen=True)
class Stock:
    """What a controller process and its simulated agents start from."""

    run_dir: Path
    """`data` is the controller's folder; see packaging/quickstart/process.py."""
    agents_dir: Path
    names: tuple[str, ...]
    node_ids: tuple[str, ...]
    api_port: int
    gateway_port: int
    database_url: str
    """Empty: SQLite in the data folder."""

    @property
    def settings(self) -> dict[str, str]:
        """Variables of the controller's process."""
        return {
            "WCP360_API_HOST": "127.0.0.1",
            "WCP360_GATEWAY_HOST": "127.0.0.1",
            "WCP360_PUBLIC_NAMES": "127.0.0.1",
            "WCP360_CONTROLLER_URL": f"https://127.0.0.1:{self.api_port}",
            "WCP360_GATEWAY_URL": f"wss://127.0.0.1:{self.gateway_port}/agent/v1",
            "WCP360_LOG_FORMAT": "json",
            "WCP360_LOG_LEVEL": "warning",
            **({"WCP360_DATABASE_URL": self.database_url} if self.database_url else {}),
        }


def make_stock(folder: Path, agents_dir: Path, count: int, *, database_url: str = "") -> Stock:
    """Enrol `count` nodes named sim-1 to sim-N; the folders must be empty or missing."""
    return asyncio.run(_make_stock(folder, agents_dir, count, database_url))


async def _make_stock(folder: Path, agents_dir: Path, count: int, database_url: str) -> Stock:
    api_port, gateway_port = free_port(), free_port()
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700, parents=True)
    settings = Settings(
        data_dir=data_dir,
        database_url=database_url,
        public_names=("127.0.0.1",),
        controller_url=f"https://127.0.0.1:{api_port}",
        gateway_url=f"wss://127.0.0.1:{gateway_port}/agent/v1",
    )
    await runner.upgrade(settings.effective_database_url)
    controller = build_controller(settings)
    try:
        await ensure_first_admin(controller.database, controller.passwords, data_dir)
        controller.fleet.open_keys()
        names = tuple(f"sim-{number}" for number in range(1, count + 1))
        node_ids: list[str] = []
        ca_pem = controller.fleet.authority.ca_pem
        for start in range(0, count, PER_TRANSACTION):
            chosen = names[start : start + PER_TRANSACTION]
            machines = [_Machine(agents_dir / name, name) for name in chosen]
            outcome = await controller.operations.change(
                ADMIN, f"bench-{start}", lambda ctx, machines=machines: _enrol(ctx, controller.fleet, machines)
            )
            for machine, reply in zip(machines, outcome.resource, strict=True):
                machine.store(reply, settings, ca_pem)
                node_ids.append(reply.node_id)
    finally:
        await controller.database.close()
    return Stock(folder, agents_dir, names, tuple(node_ids), api_port, gateway_port, database_url)


async def _enrol(ctx: FleetContext, fleet: Fleet, machines: list[_Machine]) -> list[EnrolmentReply]:
    replies = []
    for machine in machines:
        made = await fleet.create_token(ctx, TokenParams(name=machine.name, roles=()))
        ctx.actor = SYSTEM
        reply = await fleet.enrolments.enrol(ctx, machine.make_request(made.token), address="127.0.0.1")
        ctx.actor = ADMIN
        if isinstance(reply, FleetError):
            raise reply
        replies.append(reply)
    return replies


class _Machine:
    """The folder of one simulated agent, written as its enrolment would."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._paths = NodePaths(folder)
        for needed in (self._paths.config_dir, self._paths.tls_dir, self._paths.executor_state_dir):
            needed.mkdir(parents=True, exist_ok=True)
        self._key_pem, csr_pem = make_key_and_request(name)
        self._csr_pem = csr_pem.decode()

    def make_request(self, token: str) -> EnrolmentRequest:
        sealing = X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return EnrolmentRequest(
            token=token,
            csr_pem=self._csr_pem,
            sealing_public_key=sealing,
            machine_id_hash=ensure_simulated_machine(self._paths.machine_id).machine_id_hash,
            hostname=self.name,
            capability=CAPABILITY_VERSION,
            agent_version=__version__,
            facts={"os": "debian", "os_version": "12", "run": str(uuid.uuid4())},
        )

    def store(self, reply: EnrolmentReply, settings: Settings, ca_pem: str) -> None:
        paths = self._paths
        identity = render_identity(
            cluster_id=reply.cluster_id,
            node_id=reply.node_id,
            node_gen=reply.node_gen,
            root_keys={reply.root_key_id: reply.root_public_key},
        )
        link = AgentSettings(
            controller_url=settings.effective_controller_url,
            gateway_url=reply.gateway_url,
            ca_file=str(paths.ca_pem),
            node_id=reply.node_id,
        )
        paths.node_pem.write_bytes(self._key_pem + reply.certificate_pem.encode())
        paths.trust_bundle.write_bytes(bytes(reply.trust_bundle))
        paths.identity_json.write_bytes(identity)
        paths.ca_pem.write_text(ca_pem)
        paths.agent_toml.write_text(render_agent_toml(link))
