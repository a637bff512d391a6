"""The fleet as the rest of the controller sees it: one object that bootstrap builds, starts and stops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.prepared import Driver
from controller.fleet.enrolment import renewal, tokens
from controller.fleet.enrolment.enrolment import Enrolments
from controller.fleet.enrolment.installer import InstallFiles
from controller.fleet.enrolment.tokens import NewToken, TokenParams
from controller.fleet.gateway.gateway import Gateway, GatewayOptions, GatewayParts
from controller.fleet.gateway.pings import Pings
from controller.fleet.gateway.presence import find_current, find_sample
from controller.fleet.gateway.processes import ProcessBook
from controller.fleet.gateway.quarantine import Quarantine
from controller.fleet.gateway.sessions import mark_silent
from controller.fleet.gateway.traffic import list_identities
from controller.fleet.identity.authority import Authority, ServerCertificate
from controller.fleet.identity.job_key_drill import JobKeyDrill
from controller.fleet.identity.renewal_wave import RenewalWave
from controller.fleet.identity.trust import ensure_trust_bundle
from controller.fleet.identity.trust_keeper import TrustKeeper
from controller.fleet.models import Node
from controller.fleet.nodes.drift import DriftKeeper
from controller.fleet.nodes.drift_decisions import DriftDecisions
from controller.fleet.nodes.health_keeper import HealthKeeper
from controller.fleet.nodes.hold_book import HoldBook, MarkingPublisher
from controller.fleet.nodes.maintenance import Maintenance
from controller.fleet.nodes.manifest import NodeObserver
from controller.fleet.nodes.metrics import STALE_AFTER_INTERVALS, NodeSample
from controller.fleet.nodes.nodes import Nodes
from controller.fleet.nodes.placement import Placement
from controller.fleet.ports import (
    ChangeAsSystem,
    CommittedProvider,
    FleetOp,
    Publisher,
    Reconverge,
    Recorder,
    change_nothing,
    nothing_committed,
    reconverge_nothing,
    record_nothing,
)
from controller.fleet.rollouts.loop import record_update_report
from controller.fleet.rollouts.releases import Releases
from controller.fleet.rollouts.rollouts import Rollouts
from controller.fleet.rollouts.updates import UpdateOffers
from controller.fleet.signing.signer import Signer
from controller.jobs.engine import JobEngine
from controller.jobs.hints import Channel, Hints
from controller.jobs.loops import Loops
from controller.jobs.ports import NodeIdentity
from controller.settings import Settings
from shared.errors import FleetError, NotFoundError
from shared.protocol.envelope import Envelope
from shared.protocol.health import CheckHealth
from shared.protocol.renewal import RenewalReply, RenewalRequest
from shared.specs.account import ResourceLimits
from shared.specs.manifest import DriftPolicy

_PHP_OF_SYSTEM: Final = {("debian", "12"): frozenset({"8.2"}), ("debian", "13"): frozenset({"8.4"})}
"""What Debian itself brings. Source: packages.debian.org, php-fpm."""

_log = structlog.get_logger("controller.fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPorts:
    """What the layers above give; each has a stand-in for a fleet without accounts."""

    record: Recorder = record_nothing
    committed: CommittedProvider = nothing_committed
    reconverge: Reconverge = reconverge_nothing
    change: ChangeAsSystem = change_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What the fleet stands on."""

    settings: Settings
    database: Database
    engine: JobEngine
    publisher: Publisher
    signer: Signer
    """The same one that the engine signs with."""
    ports: FleetPorts = FleetPorts()
    clock: Callable[[], datetime] = utc_now
    hints: Hints = field(default_factory=Hints)
    role: str = "all"
    """Of this process; for people."""


class Fleet:
    """Satisfies controller.jobs.ports.NodeDirectory and controller.core.operations.Fleet.

    Order: build, `open_keys` (makes the keys at the first start; afterwards `server_certificate` is there for the API's
    listener), `start` before the engine's, `stop` before the engine's.
    """

    def __init__(self, parts: FleetParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self.keys = TrustKeeper(
            parts.settings, parts.database, parts.signer, parts.hints, parts.clock, record=parts.ports.record
        )
        self._placement = Placement(parts.ports.committed)
        self._loops = Loops()
        self._started_at: datetime | None = None
        self.nodes = Nodes(parts.ports.record)
        self.drift = DriftDecisions(parts.ports.record)
        self._publisher = MarkingPublisher(parts.publisher)
        self.job_keys = JobKeyDrill(parts.signer, parts.ports.record)
        self.maintenance = Maintenance(parts.ports.record)
        self.quarantine = Quarantine(parts.ports.record)
        samples = lambda: self.gateway.latest_metrics()  # noqa: E731, PLW0108 - the gateway is built after its keeper
        self.health = HealthKeeper(parts.database, self._publisher, samples, clock=parts.clock)
        self.releases = Releases(
            bundle_dir=parts.settings.effective_bundle_dir, signer=parts.signer, record=parts.ports.record
        )
        self.rollouts = Rollouts(parts.ports.record)
        self.gateway: Gateway = Gateway(_gateway_options(parts.settings), self._gateway_parts())
        self.update_offers = UpdateOffers(
            parts.database, self.releases, self.gateway.send, gateway_id=self.gateway.gateway_id, clock=parts.clock
        )
        self.hold_book = self._publisher.book = HoldBook(parts.database, self.gateway.send, clock=parts.clock)
        self.processes = ProcessBook(
            parts.database,
            process_id=self.gateway.gateway_id,
            role=parts.role,
            instance=parts.settings.instance,
            clock=parts.clock,
        )
        self.processes.count_nodes = lambda: self.connected_count
        self.keys.on_certificate.append(self.gateway.use_certificate)
        self.keys.on_wanted_issuer = RenewalWave(lambda: self.gateway.sessions, clock=parts.clock).ask
        parts.hints.on(Channel.HEALTH, self._look_at_health)
        parts.engine.attach_nodes(self)
        parts.engine.attach_courier(self.gateway.traffic)
        self.pings = Pings(parts.database, parts.engine, parts.clock)
        parts.engine.on_result(NodeObserver())
        drifts = DriftKeeper(parts.publisher, clock=parts.clock)
        parts.engine.on_result(drifts.observe_result)
        parts.engine.on_drift(drifts)
        parts.engine.on_update(partial(record_update_report, clock=parts.clock))

    # --- life ---------------------------------------------------------------------------------------------------------

    def open_keys(self) -> ServerCertificate:
        """See TrustKeeper.open."""
        return self.keys.open()

    async def start(self, *, serves_agents: bool = True) -> None:
        """Listen for agents, if this process serves them.

        Raises:
            OSError: The gateway's port is taken.
            UnavailableError: A key cannot be read.
        """
        certificate = self.open_keys()
        await self.keys.start()
        await self.processes.start()
        async with self._parts.database.write() as session:
            # What a crashed process left as connected; who really is comes back within the moment.
            lease = timedelta(seconds=2 * self._settings.heartbeat_seconds)
            await mark_silent(session, silent_since=self._parts.clock() - lease)
        if serves_agents:
            await self.gateway.start(certificate, await self.read_ca_pem())
            self.update_offers.start()
        await self.health.start()
        await self.hold_book.start()
        self._started_at = self._parts.clock()

    async def stop(self) -> None:
        """Send the agents away and close."""
        await self._loops.stop()
        await self.keys.stop()
        await self.health.stop()
        await self.hold_book.stop()
        await self.update_offers.stop()
        await self.gateway.stop()
        await self.processes.stop()

    async def renew(self) -> None:
        """See TrustKeeper.renew."""
        await self.keys.renew()

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def authority(self) -> Authority:
        """See TrustKeeper.authority."""
        return self.keys.authority

    async def read_ca_pem(self) -> str:
        """See TrustKeeper.read_ca_pem."""
        return await self.keys.read_ca_pem()

    @property
    def server_certificate(self) -> ServerCertificate:
        """For the API's listener, once the keys are open."""
        return self.keys.server_certificate

    @property
    def enrolments(self) -> Enrolments:
        """Use cases of enrolment."""
        return Enrolments(
            signer=self._parts.signer,
            gateway_url=self._settings.effective_gateway_url,
            record=self._parts.ports.record,
        )

    async def create_token(self, op: FleetOp, params: TokenParams) -> NewToken:
        """See tokens.create_token."""
        await ensure_trust_bundle(op.session, signer=self._parts.signer, now=op.now)
        return await tokens.create_token(op, params, record=self._parts.ports.record)

    async def delete_token(self, op: FleetOp, row_id: str) -> None:
        """See tokens.delete_token."""
        await tokens.delete_token(op, row_id, record=self._parts.ports.record)

    async def renew_certificate(
        self, op: FleetOp, request: RenewalRequest, *, address: str = ""
    ) -> RenewalReply | FleetError:
        """See renewal.renew_certificate."""
        record = self._parts.ports.record
        return await renewal.renew_certificate(op, request, signer=self._parts.signer, record=record, address=address)

    def offer_trust_soon(self) -> None:
        """There may be a newer trust bundle: every gateway looks now."""
        self._parts.hints.send(Channel.TRUST)

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
            publisher=self._publisher,
            reconverge=parts.ports.reconverge,
            read_trust=self.read_trust,
            health=self.health,
            quarantine=self._put_in_quarantine,
            clock=parts.clock,
            hints=parts.hints,
        )

    async def read_trust(self) -> tuple[int, Envelope]:
        """See TrustKeeper.read_trust."""
        return await self.keys.read_trust()

    def look_at_health(self, node_id: str) -> None:
        """Have the node look at its modules, whichever process holds its session."""
        self._parts.hints.send(Channel.HEALTH, (node_id,))

    def _look_at_health(self, node_ids: Sequence[str]) -> None:
        for node_id in node_ids:
            self._loops.spawn(self._ask_for_health(node_id))

    async def _ask_for_health(self, node_id: str) -> None:
        await self.gateway.send(node_id, CheckHealth())

    async def resume(self, node_id: str) -> None:
        """After a node's hold has ended: sign and send what waited, and ask again for what is behind."""
        self._parts.engine.notify()
        self.gateway.offer_soon(node_id)
        await self._parts.ports.reconverge(node_id, False)  # noqa: FBT003 - positional by contract

    async def _put_in_quarantine(self, node_id: str, reason: str) -> None:
        _log.warning("fleet.quarantine", node_id=node_id, reason=reason)
        await self._parts.ports.change(lambda op: self.quarantine.impose(op, node_id, reason))

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

    async def find_identities(self, driver: Driver, node_ids: Collection[str]) -> Mapping[str, NodeIdentity]:
        """What jobs must say about these nodes."""
        return await list_identities(driver, sorted(node_ids))

    async def is_connected(self, session: AsyncSession, node_id: str) -> bool:
        """Whether some process of the controller has a session with the node."""
        if node_id in self.gateway.connected_ids:
            return True
        return bool((await session.execute(select(Node.is_connected).where(Node.id == node_id))).scalar_one_or_none())

    async def find_current(self, session: AsyncSession, epochs: Mapping[str, int]) -> set[str]:
        """Those of the nodes whose session (node id to epoch) still counts."""
        return await find_current(session, epochs)

    async def find_sample(self, session: AsyncSession, node_id: str) -> NodeSample | None:
        """The node's last sample, whichever process holds its session; None when there is none that is fresh."""
        lifetime = timedelta(seconds=self._settings.metrics_seconds * STALE_AFTER_INTERVALS)
        held = self.gateway.find_metrics(node_id)
        return held or await find_sample(session, node_id, since=self._parts.clock() - lifetime)

    async def connected_since(self, session: AsyncSession) -> Mapping[str, datetime]:
        """Node id to the begin of its session, for the nodes connected to some process of the controller."""
        statement = select(Node.id, Node.connected_at).where(Node.is_connected.is_(True))
        return {node_id: at for node_id, at in (await session.execute(statement)).all() if at is not None}

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
        accepts_per_second=settings.gateway_accepts_per_second,
        heartbeat_seconds=settings.heartbeat_seconds,
        dead_line_seconds=settings.dead_line_seconds,
        metrics_seconds=settings.metrics_seconds,
        drift_check_seconds=settings.drift_check_seconds,
    )
