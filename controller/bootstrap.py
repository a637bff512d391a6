"""Builds a controller from its settings: the only file that knows every other; nothing but commands imports it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from litestar import Litestar
from sqlalchemy import func, select, text

from controller.api.app import Application, Parts, create_app
from controller.api.handlers import (
    accounts,
    audit,
    clients,
    domains,
    drift,
    enrolment,
    jobs,
    modules,
    nodes,
    packages,
)
from controller.api.handlers.health import Probes
from controller.api.openapi import render_document
from controller.core.accounts.fleet import Reconverger, committed_by_node
from controller.core.accounts.observe import AccountObserver
from controller.core.audit.chain import record
from controller.core.auth.passwords import Passwords
from controller.core.auth.service import Authenticator
from controller.core.context import Change, OpContext
from controller.core.drift import DriftAdopters
from controller.core.events.publisher import EventPublisher
from controller.core.manifest import ManifestRegistry
from controller.core.operations import Operations
from controller.db.base import Model
from controller.db.engine import Database
from controller.fleet.fleet import Fleet, FleetParts, FleetPorts
from controller.fleet.metrics import NodeSamples
from controller.fleet.ports import ChangeNote
from controller.fleet.signer import LocalSigner
from controller.jobs.engine import JobEngine
from controller.jobs.models import Job
from controller.metrics.registry import ControllerMetrics
from controller.modules.php.manifest import PhpProvider
from controller.modules.web import api as web_api
from controller.modules.web.adopt import adopt_site_drift
from controller.modules.web.manifest import PHP, SiteContributor, SiteObserver
from controller.settings import Settings
from shared.errors import UnavailableError

METADATA: Final = Model.metadata
"""All tables: the imports above bring every model."""

_API_ROUTES: Final = (
    *packages.ROUTES,
    *clients.ROUTES,
    *accounts.ROUTES,
    *domains.ROUTES,
    *web_api.ROUTES,
    *nodes.ROUTES,
    *enrolment.ROUTES,
    *jobs.ROUTES,
    *drift.ROUTES,
    *modules.ROUTES,
    *audit.ROUTES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A controller that was put together; it runs while its application's lifespan does."""

    settings: Settings
    database: Database
    passwords: Passwords
    authenticator: Authenticator
    publisher: EventPublisher
    metrics: ControllerMetrics
    fleet: Fleet
    engine: JobEngine
    operations: Operations
    parts: Parts
    """What the application was made of; tests make others of it."""
    app: Application


def build_controller(settings: Settings, *, passwords: Passwords | None = None) -> Controller:
    """Put a controller together. Makes the keys at the first start; opens no connection and no port.

    Raises:
        UnavailableError: A key file cannot be read.
    """
    database = Database(settings.effective_database_url)
    hasher = passwords or Passwords()
    publisher = EventPublisher()
    metrics = ControllerMetrics()
    signer = LocalSigner(settings.data_dir / "pki")
    engine = JobEngine(database, signer, publisher=publisher)

    async def reconverge(node_id: str, is_everything: bool) -> None:  # noqa: FBT001 - positional by the fleet's contract
        await Reconverger(operations)(node_id, is_everything)

    ports = FleetPorts(record=_record_note, committed=committed_by_node, reconverge=reconverge)
    fleet = Fleet(
        FleetParts(settings=settings, database=database, engine=engine, publisher=publisher, signer=signer, ports=ports)
    )
    fleet.open_keys()
    metrics.registry.register(NodeSamples(fleet.gateway.latest_metrics))
    registry = ManifestRegistry(contributors=(SiteContributor(),), providers={PHP: PhpProvider()})
    operations = Operations(database, registry=registry, fleet=fleet, engine=engine, publisher=publisher)
    engine.on_result(AccountObserver(observers=(SiteObserver(),)))
    authenticator = Authenticator(database, hasher, session_hours=settings.session_hours)
    watch = _Watch(database, fleet, signer, publisher, metrics)
    parts = Parts(
        operations=operations,
        authenticator=authenticator,
        publisher=publisher,
        probes=Probes(watch.checks(), watch.render_metrics),
        metrics=metrics.http,
        own_origin=settings.effective_controller_url,
        api_routes=_API_ROUTES,
        root_routes=enrolment.ROOT_ROUTES,
        dependencies={
            "fleet": fleet,
            "engine": engine,
            "enrol_limiter": enrolment.make_enrol_limiter(),
            "adopters": DriftAdopters({"site": adopt_site_drift}),
        },
        lifespan=(_running(fleet, engine, metrics),),
    )
    return Controller(
        settings=settings,
        database=database,
        passwords=hasher,
        authenticator=authenticator,
        publisher=publisher,
        metrics=metrics,
        fleet=fleet,
        engine=engine,
        operations=operations,
        parts=parts,
        app=create_app(parts),
    )


def render_openapi() -> bytes:
    """The OpenAPI document of this release; needs no database and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="wcp-openapi-") as folder:
        return render_document(build_controller(Settings(data_dir=Path(folder))).app.litestar)


def _record_note(ctx: OpContext, note: ChangeNote) -> None:
    """The fleet stands below core, so its notes are turned into core's changes here."""
    record(
        ctx,
        Change(
            action=note.action,
            target=note.target,
            target_name=note.target_name,
            before=note.before,
            after=note.after,
        ),
    )


def _running(fleet: Fleet, engine: JobEngine, metrics: ControllerMetrics) -> Any:
    """The lifespan: what runs while the API serves. The gateway first, so that results find the engine's observers."""

    @asynccontextmanager
    async def run(_app: Litestar) -> AsyncIterator[None]:
        lag = asyncio.create_task(metrics.watch_event_loop(), name="event-loop-lag")
        await fleet.start()
        try:
            await engine.start()
            yield
        finally:
            lag.cancel()
            await fleet.stop()
            await engine.stop()

    return run


@dataclass(frozen=True, slots=True)
class _Watch:
    """What health checks and metrics look at."""

    database: Database
    fleet: Fleet
    signer: LocalSigner
    publisher: EventPublisher
    metrics: ControllerMetrics

    def checks(self) -> dict[str, Any]:
        return {"database": self._check_database, "signer": self._check_signer, "gateway": self._check_gateway}

    async def render_metrics(self) -> bytes:
        self.metrics.set_jobs(await self._count_jobs())
        self.metrics.set_connected(node_count=self.fleet.connected_count, listener_count=self.publisher.listener_count)
        return self.metrics.render()

    async def _count_jobs(self) -> Mapping[str, int]:
        async with self.database.read() as session:
            rows = (await session.execute(select(Job.state, func.count()).group_by(Job.state))).all()
        return {state.value: count for state, count in rows}

    async def _check_database(self) -> None:
        async with self.database.read() as session:
            await session.execute(text("SELECT 1"))

    async def _check_signer(self) -> None:
        if not await self.signer.current_job_keys():
            raise UnavailableError("no job key is valid now")

    async def _check_gateway(self) -> None:
        if not self.fleet.is_listening:
            raise UnavailableError("the agents' gateway does not listen")
