"""The real application with a fleet and an engine of its own, so that a test says what the nodes answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.api.app import Parts, create_app
from controller.api.handlers import (
    account_life,
    accounts,
    attention,
    audit,
    billing,
    branding,
    bulk_accounts,
    bulk_packages,
    clients,
    domains,
    package_rollouts,
    package_versions,
    packages,
    parked,
    policies,
    reseller_usage,
    resellers,
    transfers,
    usage,
)
from controller.api.handlers.health import Probes
from controller.core.accounts.fleet import committed_by_node
from controller.core.accounts.observe import AccountObserver
from controller.core.api_usage.recorder import UsageRecorder
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.models import AuditEntry, AuditHead
from controller.core.auth.passwords import Passwords
from controller.core.auth.service import Authenticator
from controller.core.auth.users import create_user
from controller.core.context import Actor, Role
from controller.core.domains.limits import DOMAIN_LIMITS
from controller.core.events.publisher import EventPublisher
from controller.core.limits.registry import LimitRegistry
from controller.core.manifest import ManifestRegistry
from controller.core.operations import Operations
from controller.core.parked.kinds import AccountKind
from controller.core.parked.observe import ParkedObserver
from controller.core.parked.service import Parked
from controller.core.usage.figures import MEASURED_LIMITS
from controller.db.engine import Database
from controller.fleet.models import Node, NodeState
from controller.fleet.nodes.placement import Placement
from controller.fleet.signing.signer import LocalSigner
from controller.jobs.models import Job
from controller.jobs.queue import JobRequest
from controller.jobs.states import JobState as ControllerJobState
from controller.metrics.registry import ControllerMetrics
from controller.modules.php.manifest import PhpProvider
from controller.modules.ssh import api as ssh_keys
from controller.modules.ssh.manifest import SshContributor, SshObserver
from controller.modules.ssh.service import hand_over_keys
from controller.modules.ssh.store import SSH, SSH_KEYS
from controller.modules.web import api as sites
from controller.modules.web import php_settings_api
from controller.modules.web.clone import clone_sites
from controller.modules.web.manifest import SiteContributor, SiteObserver
from controller.modules.web.parked import SiteKind
from controller.modules.web.store import CUSTOM_PHP, SITES
from shared.errors import AgentOfflineError
from shared.protocol.capability import CAPABILITY_VERSION
from shared.protocol.job import (
    ChangeKind,
    ErrorBody,
    JobResult,
    JobState,
    PlannedChange,
    Proof,
    ResourceOutcome,
    ResourceReport,
)
from shared.specs.manifest import DriftPolicy, Manifest, decode_manifest
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.conftest import FAST_HASHER

ADMIN = Actor(kind="user", id="admin", name="admin", role=Role.ROOT)


class FakeFleet(Placement):
    """The real placement; the nodes themselves are rows and nothing else."""

    async def drift_policy(self, session: AsyncSession, node_id: str) -> DriftPolicy:
        return (await session.get_one(Node, node_id)).drift_policy

    async def php_versions(self, session: AsyncSession, node_id: str) -> frozenset[str] | None:
        return frozenset({"8.2"})


@dataclass
class FakeEngine:
    """Plans by a rule of its own: one written file for each spec."""

    is_offline: bool = False
    notified: int = 0
    planned: list[JobRequest] = field(default_factory=list)

    def notify(self) -> None:
        self.notified += 1

    async def run_plan(self, request: JobRequest, timeout_seconds: float) -> JobResult:
        assert timeout_seconds > 0
        self.planned.append(request)
        if self.is_offline:
            raise AgentOfflineError("the node is not connected")
        changes = tuple(
            PlannedChange(
                resource=spec.key,
                action="write_file",
                kind=ChangeKind.CREATE,
                target=f"/etc/{spec.key}",
                reason="it is missing",
                diff="--- a\n+++ b\n",
            )
            for spec in decode_manifest(request.args).specs
        )
        return JobResult(job_id="plan", state=JobState.SUCCEEDED, changes=changes, reloads=("nginx.service",))


@dataclass
class Hosting:
    """A controller's core with everything a test needs to look into it."""

    database: Database
    engine: FakeEngine
    operations: Operations
    publisher: EventPublisher
    observer: AccountObserver
    checkpoints: Checkpoints
    app: Any
    http: httpx.AsyncClient

    async def post(self, path: str, body: Any = None, *, expect: int, **query: Any) -> Any:
        return await self._send("POST", path, body, expect, query)

    async def patch(self, path: str, body: Any, *, expect: int, **query: Any) -> Any:
        return await self._send("PATCH", path, body, expect, query)

    async def get(self, path: str, *, expect: int = 200, **query: Any) -> Any:
        return await self._send("GET", path, None, expect, query)

    async def delete(self, path: str, *, expect: int, **query: Any) -> Any:
        return await self._send("DELETE", path, None, expect, query)

    async def wrong_fields(self, method: str, path: str, cases: list[tuple[Any, str]]) -> list[str]:
        """Cases that are not answered with 400 and exactly the expected field; one line for each."""
        wrong = []
        for sent, field_name in cases:
            where = {"params": sent} if method == "GET" else {"json": sent}
            answer = await self.http.request(method, f"/api/v1{path}", **where)
            fields = [error["field"] for error in answer.json().get("errors", ())]
            if answer.status_code != 400 or fields != [field_name]:
                wrong.append(f"{sent!r:.100}: {answer.status_code} {fields}, not {field_name}")
        return wrong

    async def _send(self, method: str, path: str, body: Any, expect: int, query: dict[str, Any]) -> Any:
        answer = await self.http.request(method, f"/api/v1{path}", json=body, params=query)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    async def add_node(self, name: str = "node1", **columns: Any) -> str:
        node = Node(
            name=name,
            state=NodeState.ACTIVE,
            roles=["web"],
            is_connected=True,
            machine_id_hash=name,
            capability=CAPABILITY_VERSION,
            sealing_public_key=b"",
            facts={"os": "debian", "os_version": "12"},
            **columns,
        )
        async with self.database.write() as session:
            session.add(node)
        return node.id

    async def add_package(self, name: str = "Starter", **limits: Any) -> str:
        return str((await self.post("/packages", {"name": name, **limits}, expect=201))["id"])

    async def add_client(self) -> str:
        body = {"name": "Ada Lovelace", "email": "ada@example.com"}
        return str((await self.post("/clients", body, expect=201))["id"])

    async def add_account(self, name: str = "ada", **limits: Any) -> str:
        """An account with a client and a package of its own; node_id may be among the limits."""
        node = {"node_id": limits.pop("node_id")} if "node_id" in limits else {}
        body = {
            "name": name,
            "client_id": await self.add_client(),
            "package_id": await self.add_package(f"of {name}", **limits),
            **node,
        }
        return str((await self.post("/accounts", body, expect=202))["resource"]["id"])

    async def add_site(self, account_id: str, domain: str, **fields: Any) -> str:
        body = {"account_id": account_id, "domain": domain, **fields}
        return str((await self.post("/sites", body, expect=202))["resource"]["id"])

    async def last_job(self, account_id: str, generation: int | None = None) -> Job:
        statement = select(Job).where(Job.account_id == account_id).order_by(Job.id.desc()).limit(1)
        if generation is not None:
            statement = statement.where(Job.generation == generation)
        async with self.database.read() as session:
            return (await session.scalars(statement)).one()

    async def last_manifest(self, account_id: str) -> Manifest:
        return decode_manifest((await self.last_job(account_id)).args)

    async def finish(
        self,
        account_id: str,
        *,
        parked: dict[str, str] | None = None,
        error: ErrorBody | None = None,
        proofs: tuple[Proof, ...] = (),
        generation: int | None = None,
    ) -> None:
        """The node's answer to the account's latest job (or the one of a generation): all but the parked is applied."""
        job = await self.last_job(account_id, generation)
        reports = [
            ResourceReport(key=spec.key, outcome=ResourceOutcome.CHANGED)
            if spec.key not in (parked or {})
            else ResourceReport(
                key=spec.key,
                outcome=ResourceOutcome.PARKED,
                error=ErrorBody(code="config_refused", message=(parked or {})[spec.key]),
            )
            for spec in decode_manifest(job.args).specs
        ]
        if parked:  # as the agent says it: the job failed, and all but the parked was applied
            error = ErrorBody(code="resources_parked", message=next(iter(parked.values())))
        result = JobResult(
            job_id=job.id,
            state=JobState.FAILED if error else JobState.SUCCEEDED,
            generation=job.generation,
            resources=() if error and not parked else tuple(reports),
            error=error,
            is_rolled_back=error is not None and not parked,
            proofs=proofs,
        )
        async with self.database.write() as session:
            row = await session.get_one(Job, job.id)
            row.state = ControllerJobState.FAILED if error else ControllerJobState.SUCCEEDED
            row.result = msgspec.msgpack.encode(result)
            await self.observer(session, row, result)
            await ParkedObserver()(session, row, result)

    async def count(self, model: Any) -> int:
        async with self.database.read() as session:
            return len((await session.scalars(select(model))).all())


async def build_hosting(database: Database, pki_dir: Path) -> Hosting:
    """Put one together on a migrated database, signed in as an administrator."""
    signer = LocalSigner(pki_dir)
    signer.open()
    checkpoints = Checkpoints(database, signer)
    passwords = Passwords(FAST_HASHER)
    authenticator = Authenticator(database, passwords)
    publisher, engine, metrics = EventPublisher(), FakeEngine(), ControllerMetrics()
    operations = Operations(
        database,
        registry=ManifestRegistry(
            [SiteContributor(), SshContributor()],
            {"php": PhpProvider()},
            LimitRegistry((*DOMAIN_LIMITS, *MEASURED_LIMITS, SITES, SSH_KEYS), (SSH, CUSTOM_PHP)),
            (clone_sites,),
            (hand_over_keys,),
        ),
        fleet=FakeFleet(committed_by_node),
        engine=engine,
        publisher=publisher,
    )

    async def render_metrics() -> bytes:
        return await metrics.render()

    parts = Parts(
        operations=operations,
        authenticator=authenticator,
        publisher=publisher,
        probes=Probes({}, render_metrics),
        metrics=metrics.http,
        own_origin="https://controller.test:8360",
        usage=UsageRecorder(database),
        api_routes=[
            *packages.ROUTES, *package_versions.ROUTES, *package_rollouts.ROUTES, *bulk_packages.ROUTES, *usage.ROUTES, *resellers.ROUTES, *reseller_usage.ROUTES, *branding.ROUTES, *transfers.ROUTES, *clients.ROUTES, *accounts.ROUTES, *domains.ROUTES,
            *account_life.ROUTES, *bulk_accounts.ROUTES,
            *audit.ROUTES, *sites.ROUTES, *php_settings_api.ROUTES, *ssh_keys.ROUTES, *parked.ROUTES, *attention.ROUTES, *billing.ROUTES,
            *policies.ROUTES,
        ],
        root_routes=branding.ROOT_ROUTES,
        dependencies={
            "parked": Parked({"site": SiteKind(), "account": AccountKind(), "php_pool": AccountKind(), "ssh_access": AccountKind()}),
            "checkpoints": checkpoints,
        },
    )  # fmt: skip
    app = create_app(parts)
    async with database.write() as session:
        await create_user(
            session, "root", FAST_HASHER.hash("a long password"), role=Role.ROOT, must_change_password=False
        )
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app.asgi),
        base_url="https://controller.test:8360",
    )
    answer = await http.post("/api/v1/auth/login", json={"username": "root", "password": "a long password"})
    http.cookies.clear()
    async with unguarded_audit(database) as session:  # signing in is audited too; these tests begin with an empty log
        await session.execute(delete(AuditEntry))
        await session.execute(delete(AuditHead))
    http.headers["authorization"] = f"Bearer {answer.json()['token']}"
    return Hosting(
        database=database,
        engine=engine,
        operations=operations,
        publisher=publisher,
        observer=AccountObserver([SiteObserver(), SshObserver()]),
        checkpoints=checkpoints,
        app=app,
        http=http,
    )
