"""The fleet as the rest of the controller sees it: one object that bootstrap builds, starts and stops."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet import renewal, tokens
from controller.fleet.authority import Authority, ServerCertificate
from controller.fleet.drift import DriftKeeper
from controller.fleet.drift_decisions import DriftDecisions
from controller.fleet.enrolment import Enrolments
from controller.fleet.gateway import Gateway, GatewayOptions, GatewayParts
from controller.fleet.installer import InstallFiles
from controller.fleet.manifest import NodeObserver
from controller.fleet.models import Node, NodeState
from controller.fleet.nodes import Nodes
from controller.fleet.placement import Placement
from controller.fleet.ports import (
    CommittedProvider,
    FleetOp,
    Publisher,
    Reconverge,
    Recorder,
    nothing_committed,
    reconverge_nothing,
    record_nothing,
)
from controller.fleet.sessions import mark_silent
from controller.fleet.signer import LocalSigner
from controller.fleet.tokens import NewToken, TokenParams
from controller.fleet.trust import decode_envelope, ensure_trust_bundle, find_trust_bundle
from controller.jobs.engine import JobEngine
from controller.jobs.loops import Loops
from controller.jobs.ports import NodeIdentity
from controller.settings import Settings
from shared.errors import BugError, FleetError, NotFoundError
from shared.protocol.envelope import Envelope
from shared.protocol.renewal import RenewalReply, RenewalRequest
from shared.specs.account import ResourceLimits
from shared.specs.manifest import DriftPolicy

RENEWAL_SECONDS: Final = 3600.0
"""How often keys, bundle and server certificate are looked at."""
_PHP_OF_SYSTEM: Final = {("debian", "12"): frozenset({"8.2"}), ("debian", "13"): frozenset({"8.4"})}
"""What Debian itself brings. Source: packages.debian.org, php-fpm."""

_log = structlog.get_logger("controller.fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPorts:
    """What the layers above give; each has a stand-in for a fleet without accounts."""

    record: Recorder = record_nothing
    committed: CommittedProvider = nothing_committed
    reconverge: Reconverge = reconverge_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What the fleet stands on."""

    settings: Settings
    database: Database
    engine: JobEngine
    publisher: Publisher
    signer: LocalSigner
    """The same one that the engine signs with."""
    ports: FleetPorts = FleetPorts()
    clock: Callable[[], datetime] = utc_now


class Fleet:
    """Satisfies controller.jobs.ports.NodeDirectory and controller.core.operations.Fleet.

    Order: build, `open_keys` (makes the keys at the first start; afterwards `server_certificate` is there for the API's
    listener), `start` before the engine's, `stop` before the engine's.
    """

    def __init__(self, parts: FleetParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._authority: Authority | None = None
        self._server_certificate: ServerCertificate | None = None
        self._placement = Placement(parts.ports.committed)
        self._loops = Loops()
        self._started_at: datetime | None = None
        self.nodes = Nodes(parts.ports.record)
        self.drift = DriftDecisions(parts.ports.record)
        self.gateway = Gateway(_gateway_options(parts.settings), self._gateway_parts())
        parts.engine.attach_nodes(self)
        parts.engine.on_result(NodeObserver())
        drifts = DriftKeeper(parts.publisher, clock=parts.clock)
        parts.engine.on_result(drifts.observe_result)
        parts.engine.on_drift(drifts)

    # --- life ---------------------------------------------------------------------------------------------------------

    def open_keys(self) -> ServerCertificate:
        """Read or make the authority, the signer's keys and the server certificate. Again: renews what is due.

        Raises:
            UnavailableError: A key cannot be read.
        """
        self._parts.signer.open()
        if self._authority is None:
            self._authority = Authority.open_or_create(self._settings.data_dir / "pki", now=self._parts.clock())
        names = self._settings.effective_public_names
        self._server_certificate = self._authority.ensure_server_certificate(names, now=self._parts.clock())
        return self._server_certificate

    async def start(self) -> None:
        """Listen for agents.

        Raises:
            OSError: The gateway's port is taken.
            UnavailableError: A key cannot be read.
        """
        certificate = self.open_keys()
        await self._ensure_trust()
        async with self._parts.database.write() as session:
            # What a crashed process left as connected; who really is comes back within the moment.
            lease = timedelta(seconds=2 * self._settings.heartbeat_seconds)
            await mark_silent(session, silent_since=self._parts.clock() - lease)
        await self.gateway.start(certificate, str(self.authority.ca_path))
        self._started_at = self._parts.clock()
        self._loops.spawn(self._run_renewal(), name="fleet-renewal")

    async def stop(self) -> None:
        """Send the agents away and close."""
        await self._loops.stop()
        await self.gateway.stop()

    async def _run_renewal(self) -> None:
        while await self._loops.pause(RENEWAL_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.renew()
            except (FleetError, SQLAlchemyError, OSError) as error:
                _log.warning("fleet.renewal_failed", error=str(error))

    async def renew(self) -> None:
        """Renew what is due: server certificate, job key, trust bundle."""
        before = self._server_certificate
        content = before.chain_path.read_bytes() if before is not None else b""
        certificate = self.open_keys()
        if certificate.chain_path.read_bytes() != content:
            self.gateway.use_certificate(certificate)
        version = (await self.read_trust())[0]
        newest, envelope = await self._ensure_trust()
        if newest > version:
            await self.gateway.offer_trust(newest, envelope)

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def authority(self) -> Authority:
        """The certificate authority, once the keys are open."""
        if self._authority is None:
            raise BugError("the fleet's keys were not opened")
        return self._authority

    @property
    def server_certificate(self) -> ServerCertificate:
        """For the API's listener, once the keys are open."""
        if self._server_certificate is None:
            raise BugError("the fleet's keys were not opened")
        return self._server_certificate

    @property
    def enrolments(self) -> Enrolments:
        """Use cases of enrolment."""
        return Enrolments(
            authority=self.authority,
            signer=self._parts.signer,
            gateway_url=self._settings.effective_gateway_url,
            record=self._parts.ports.record,
        )

    async def create_token(self, op: FleetOp, params: TokenParams) -> NewToken:
        """See tokens.create_token."""
        record = self._parts.ports.record
        return await tokens.create_token(op, params, ca_pin=self.authority.ca_pin, record=record)

    async def delete_token(self, op: FleetOp, row_id: str) -> None:
        """See tokens.delete_token."""
        await tokens.delete_token(op, row_id, record=self._parts.ports.record)

    async def renew_certificate(self, op: FleetOp, request: RenewalRequest) -> RenewalReply:
        """See renewal.renew_certificate."""
        cluster_id, record = self._parts.signer.cluster_id, self._parts.ports.record
        return await renewal.renew_certificate(
            op, request, authority=self.authority, cluster_id=cluster_id, record=record
        )

    @property
    def install_files(self) -> InstallFiles:
        """What a machine fetches to become a node."""
        return InstallFiles(
            bundle_dir=self._settings.effective_bundle_dir,
            controller_url=self._settings.effective_controller_url,
            server_pin=self.server_certificate.pin,
        )

    def _gateway_parts(self) -> GatewayParts:
        parts = self._parts
        return GatewayParts(
            database=parts.database,
            engine=parts.engine,
            publisher=parts.publisher,
            reconverge=parts.ports.reconverge,
            read_trust=self.read_trust,
            clock=parts.clock,
        )

    async def read_trust(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force."""
        async with self._parts.database.read() as session:
            row = await find_trust_bundle(session)
        return (row.version, decode_envelope(row.envelope)) if row is not None else await self._ensure_trust()

    async def _ensure_trust(self) -> tuple[int, Envelope]:
        async with self._parts.database.write() as session:
            row = await ensure_trust_bundle(
                session, authority=self.authority, signer=self._parts.signer, now=self._parts.clock()
            )
            return row.version, decode_envelope(row.envelope)

    # --- for health checks --------------------------------------------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Whether agents can connect."""
        return self._started_at is not None

    @property
    def connected_count(self) -> int:
        """Agents connected to this process."""
        return len(self.gateway.connected_ids)

    # --- controller.jobs.ports.NodeDirectory --------------------------------------------------------------------------

    async def find_identity(self, session: AsyncSession, node_id: str) -> NodeIdentity | None:
        """What a job must say about its node."""
        found = (await session.execute(select(Node.node_gen, Node.state).where(Node.id == node_id))).first()
        return NodeIdentity(found[0], found[1] is NodeState.ACTIVE) if found is not None else None

    async def is_connected(self, session: AsyncSession, node_id: str) -> bool:
        """Whether some process of the controller has a session with the node."""
        if node_id in self.gateway.connected_ids:
            return True
        return bool((await session.execute(select(Node.is_connected).where(Node.id == node_id))).scalar_one_or_none())

    def connected_since(self) -> Mapping[str, datetime]:
        """Node id to the begin of its session, for the nodes connected to this process."""
        return self.gateway.connected_since()

    def offer_soon(self, node_id: str) -> None:
        """A hint: there is something to send to this node."""
        self.gateway.offer_soon(node_id)

    # --- controller.core.operations.Fleet -----------------------------------------------------------------------------

    async def choose_node(self, session: AsyncSession, *, roles: frozenset[str], limits: ResourceLimits) -> str:
        """See Placement.choose_node."""
        return await self._placement.choose_node(session, roles=roles, limits=limits)

    async def require_placeable(self, session: AsyncSession, node_id: str) -> None:
        """See Placement.require_placeable."""
        await self._placement.require_placeable(session, node_id)

    async def allocate_uid(self, session: AsyncSession, node_id: str) -> int:
        """See Placement.allocate_uid."""
        return await self._placement.allocate_uid(session, node_id)

    async def drift_policy(self, session: AsyncSession, node_id: str) -> DriftPolicy:
        """What the node does about drift.

        Raises:
            NotFoundError: There is no such node.
        """
        policy = (await session.execute(select(Node.drift_policy).where(Node.id == node_id))).scalar_one_or_none()
        if policy is None:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        return policy

    async def php_versions(self, session: AsyncSession, node_id: str) -> frozenset[str] | None:
        """PHP versions that the node's system brings; None when that is not known."""
        facts = (await session.execute(select(Node.facts).where(Node.id == node_id))).scalar_one_or_none() or {}
        if "php_versions" in facts:
            return frozenset(version for version in facts["php_versions"].replace(",", " ").split() if version)
        return _PHP_OF_SYSTEM.get((facts.get("os", ""), facts.get("os_version", "")))


def _gateway_options(settings: Settings) -> GatewayOptions:
    return GatewayOptions(
        host=settings.gateway_host,
        port=settings.gateway_port,
        heartbeat_seconds=settings.heartbeat_seconds,
        metrics_seconds=settings.metrics_seconds,
        drift_check_seconds=settings.drift_check_seconds,
    )
