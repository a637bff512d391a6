"""Builds a controller from its settings: the only file that knows every other; nothing but commands imports it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.api.app import Application, Parts, create_app
from controller.api.handlers import (
    enrolment,
    passkeys,
    password_reset,
)
from controller.api.lifespan import Lifespan
from controller.api.openapi import render_document
from controller.background import add_background, make_hint_carrier, make_tasks
from controller.core.accounts.fleet import Reconvergence, committed_by_node, queue_reconverge
from controller.core.accounts.observe import AccountObserver
from controller.core.accounts.upkeep import UPKEEP_SECONDS as ACCOUNT_UPKEEP_SECONDS
from controller.core.accounts.upkeep import AccountUpkeep
from controller.core.audit.archives import PERIOD_SECONDS as ARCHIVE_SECONDS
from controller.core.audit.archives import AuditArchiving
from controller.core.audit.chain import record
from controller.core.audit.checkpoints import PERIOD_SECONDS, Checkpoints
from controller.core.audit.refusals import record_refusal
from controller.core.audit.witnesses import Witnesses
from controller.core.auth.attempts import AttemptRetention
from controller.core.auth.passkeys import RelyingParty
from controller.core.auth.passwords import Passwords
from controller.core.auth.sealing import Sealer
from controller.core.auth.second_factor import SecondFactors
from controller.core.auth.service import Authenticator
from controller.core.context import SYSTEM, Change, OpContext
from controller.core.domains.limits import DOMAIN_LIMITS
from controller.core.drift import DriftAdopters
from controller.core.events.publisher import EventPublisher
from controller.core.limits.registry import LimitRegistry
from controller.core.maintenance import service as controller_upkeep
from controller.core.manifest import ManifestRegistry
from controller.core.operations import Operations
from controller.core.packages.rollouts.loop import TURN_SECONDS, PackageRolloutLoop
from controller.core.parked.kinds import AccountKind, ModuleKind
from controller.core.parked.observe import ParkedObserver
from controller.core.parked.service import Parked
from controller.core.rate_limits.counters import Counters, RateLimitSamples
from controller.core.reactions import connect_reactions
from controller.core.resellers.suspension import ResellerSuspensions
from controller.core.upkeep import UPKEEP_SECONDS, DrainObserver, Upkeep
from controller.core.usage.figures import COLLECT_SECONDS, MEASURED_LIMITS
from controller.core.usage.measure import MEASURE_SECONDS, UsageLedger
from controller.db.base import Model
from controller.db.engine import Database
from controller.fleet.fleet import Fleet, FleetParts, FleetPorts
from controller.fleet.nodes.metrics import NodeHealthSamples, NodeSamples
from controller.fleet.ports import ChangeNote, UseCase
from controller.fleet.signing.client import make_signer
from controller.fleet.signing.signer import Signer
from controller.fleet.streams.router import Streams
from controller.fleet.streams.setup import make_streams
from controller.jobs.engine import JobEngine
from controller.jobs.hints import Hints
from controller.jobs.schedules import Schedule, Schedules
from controller.jobs.tasks import Tasks
from controller.lifespan import Machinery
from controller.metrics.registry import ControllerMetrics
from controller.modules.php.manifest import PhpProvider
from controller.modules.ssh.events import EVENTS as SSH_EVENTS
from controller.modules.ssh.expiry import EXPIRY_SECONDS, expire_due_keys
from controller.modules.ssh.manifest import SshContributor, SshObserver
from controller.modules.ssh.service import hand_over_keys
from controller.modules.ssh.store import SSH, SSH_KEYS
from controller.modules.web.adopt import adopt_site_drift
from controller.modules.web.clone import clone_sites
from controller.modules.web.events import EVENTS as WEB_EVENTS
from controller.modules.web.manifest import PHP, SiteContributor, SiteObserver
from controller.modules.web.parked import SiteKind
from controller.modules.web.store import CUSTOM_PHP, SITES
from controller.notice_setup import connect_mails
from controller.rate_setup import keep_usage, make_counters, make_usage
from controller.roles import ALL, Role
from controller.rollout_schedules import add_rollout_schedules, make_rollout_loop
from controller.routes import API_ROUTES, ROOT_ROUTES
from controller.rule_setup import connect_rules
from controller.setting_sources import list_settings
from controller.settings import Settings
from controller.watch import Watch
from controller.webhook_setup import connect_webhooks, make_webhooks

HEALTH_SECONDS: Final = 60.0
"""How long a node that fell silent is taken for healthy at most, beside the patience of the judgement itself."""
METADATA: Final = Model.metadata
"""All tables: the imports above bring every model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A controller that was put together; it runs while its application's lifespan does."""

    role: Role
    settings: Settings
    database: Database
    passwords: Passwords
    authenticator: Authenticator
    publisher: EventPublisher
    metrics: ControllerMetrics
    fleet: Fleet
    streams: Streams
    engine: JobEngine
    tasks: Tasks
    schedules: Schedules
    """What comes back, once in the whole controller; add to it before the lifespan starts."""
    machinery: Machinery
    """What runs while the process serves."""
    operations: Operations
    parts: Parts
    """What the application was made of; tests make others of it."""
    app: Application


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What everything else stands on."""

    role: Role
    settings: Settings
    database: Database
    hints: Hints
    publisher: EventPublisher
    metrics: ControllerMetrics
    signer: Signer
    engine: JobEngine
    schedules: Schedules
    tasks: Tasks
    counters: Counters

    async def reconverge(self, node_id: str, is_everything: bool) -> None:  # noqa: FBT001 - positional by the fleet's contract
        """Ask for a node's accounts again."""
        await queue_reconverge(self.database, self.tasks, node_id, is_everything=is_everything)


def build_controller(settings: Settings, *, passwords: Passwords | None = None, role: Role = ALL) -> Controller:
    """Put a process of a controller together: all parts; its role says which of them run.

    Makes the keys at the first start; opens no connection and no port.

    Raises:
        UnavailableError: A key file cannot be read.
    """
    base = _lay_base(settings, role)
    database, publisher, metrics, schedules, tasks = (
        base.database, base.publisher, base.metrics, base.schedules, base.tasks,
    )  # fmt: skip
    hasher = passwords or Passwords()
    fleet, operations = _build_fleet(base)
    _connect(base, fleet, operations)
    webhooks = make_webhooks(settings, database, operations, (*WEB_EVENTS, *SSH_EVENTS))
    reactions = connect_reactions(operations, base.engine)
    connect_webhooks(webhooks, operations, reactions, tasks, schedules)
    connect_rules(operations, reactions, tasks, schedules, webhooks.catalogue)
    streams = make_streams(settings, database, base.signer, fleet)
    authenticator = _make_authenticator(base, hasher)
    mails = connect_mails(settings, operations, hasher, authenticator, tasks, schedules)
    usage = make_usage(database, schedules)
    watch = Watch(role=role, database=database, fleet=fleet, signer=base.signer, publisher=publisher, metrics=metrics)
    machinery = Machinery(
        role=role, hints=base.hints, fleet=fleet, engine=base.engine, schedules=schedules, tasks=tasks, metrics=metrics,
        witnesses=Witnesses(operations, base.signer, fleet.gateway),
    )  # fmt: skip
    parts = Parts(
        operations=operations,
        authenticator=authenticator,
        publisher=publisher,
        probes=watch.make_probes(),
        metrics=metrics.http,
        own_origin=settings.effective_controller_url,
        usage=usage,
        counters=base.counters,
        api_routes=API_ROUTES,
        root_routes=ROOT_ROUTES,
        dependencies=_list_dependencies(base, fleet, streams) | webhooks.dependencies | mails,
        lifespan=(machinery.running, _keep_token_uses(authenticator), keep_usage(usage, base.counters)),
    )
    return Controller(
        role=role,
        settings=settings,
        database=database,
        passwords=hasher,
        authenticator=authenticator,
        publisher=publisher,
        metrics=metrics,
        fleet=fleet,
        streams=streams,
        engine=base.engine,
        schedules=schedules,
        tasks=tasks,
        machinery=machinery,
        operations=operations,
        parts=parts,
        app=create_app(parts),
    )


def _make_authenticator(base: _Base, hasher: Passwords) -> Authenticator:
    attempts = AttemptRetention(base.database)
    base.schedules.add(Schedule(name="sign-ins.forget", every_seconds=3600.0, run=attempts.run))
    return Authenticator(
        base.database,
        hasher,
        factors=SecondFactors(
            Sealer(base.settings.effective_secrets_key_file), RelyingParty.of(base.settings.effective_controller_url)
        ),
        publisher=base.publisher,
    )


def _lay_base(settings: Settings, role: Role) -> _Base:
    database = Database(settings.effective_database_url)
    hints = Hints(make_hint_carrier(settings))
    publisher = EventPublisher(hints)
    signer = make_signer(settings)
    return _Base(
        role=role,
        settings=settings,
        database=database,
        hints=hints,
        publisher=publisher,
        metrics=ControllerMetrics(),
        signer=signer,
        engine=JobEngine(database, signer, publisher=publisher, hints=hints),
        schedules=Schedules(database),
        tasks=make_tasks(settings, database, hints),
        counters=make_counters(settings),
    )


def _build_fleet(base: _Base) -> tuple[Fleet, Operations]:
    """The two know each other: use cases place accounts on nodes, and the fleet acts through use cases."""

    async def change_as_system(use_case: UseCase) -> None:
        await operations.change(SYSTEM, "fleet", use_case)

    fleet = Fleet(
        FleetParts(
            settings=base.settings,
            database=base.database,
            engine=base.engine,
            publisher=base.publisher,
            signer=base.signer,
            ports=FleetPorts(
                record=_record_note, committed=committed_by_node, reconverge=base.reconverge, change=change_as_system
            ),
            hints=base.hints,
            role=base.role.name,
        )
    )
    fleet.open_keys()
    limits = LimitRegistry((*DOMAIN_LIMITS, *MEASURED_LIMITS, SITES, SSH_KEYS), (SSH, CUSTOM_PHP))
    registry = ManifestRegistry(
        (SiteContributor(), SshContributor()), {PHP: PhpProvider()}, limits, (clone_sites,), (hand_over_keys,)
    )
    operations = Operations(base.database, registry=registry, fleet=fleet, engine=base.engine, publisher=base.publisher)
    kinds = (*Reconvergence(operations).kinds(), *ResellerSuspensions(operations).kinds())
    operations.attach_tasks(base.tasks, kinds)
    return fleet, operations


def _connect(base: _Base, fleet: Fleet, operations: Operations) -> None:
    """Who watches what, and what comes back."""
    database, publisher, schedules = base.database, base.publisher, base.schedules
    base.metrics.add_lines(NodeSamples(fleet.gateway.latest_metrics))
    base.metrics.add_lines(NodeHealthSamples(fleet.health.list_judged))
    base.metrics.add_lines(RateLimitSamples(base.counters))
    base.engine.on_refusal(record_refusal)
    accounts = AccountObserver(observers=(SiteObserver(), SshObserver()))
    for observer in (accounts, ParkedObserver(), DrainObserver(publisher)):
        base.engine.on_result(observer)
    add_rollout_schedules(schedules, make_rollout_loop(database, operations, fleet, publisher), operations, fleet)
    schedules.add(
        Schedule(name="ssh-keys.expire", every_seconds=EXPIRY_SECONDS, run=lambda: expire_due_keys(operations))
    )
    package_loop = PackageRolloutLoop(operations, publisher)
    schedules.add(Schedule(name="packages.rollouts", every_seconds=TURN_SECONDS, run=package_loop.turn))
    ledger = UsageLedger(operations, fleet.find_sample)
    schedules.add(Schedule(name="usage.collect", every_seconds=COLLECT_SECONDS, run=ledger.collect))
    schedules.add(Schedule(name="usage.measure", every_seconds=MEASURE_SECONDS, run=ledger.run))
    account_upkeep = AccountUpkeep(operations)
    schedules.add(Schedule(name="accounts.upkeep", every_seconds=ACCOUNT_UPKEEP_SECONDS, run=account_upkeep.run))
    schedules.add(
        Schedule(
            name="controller.maintenance",
            every_seconds=controller_upkeep.UPKEEP_SECONDS,
            run=lambda: controller_upkeep.end_if_over(operations),
        )
    )
    _add_upkeep(schedules, fleet, Upkeep(database, operations, fleet.maintenance, publisher, base.reconverge))
    checkpoints = _make_checkpoints(base)
    archiving = AuditArchiving(operations, checkpoints)
    schedules.add(Schedule(name="audit.archive", every_seconds=ARCHIVE_SECONDS, run=archiving.run))
    schedules.add(Schedule(name="audit.checkpoint", every_seconds=PERIOD_SECONDS, run=checkpoints.make))
    add_background(schedules, base.tasks, database, base.settings, publisher)


def _make_checkpoints(base: _Base) -> Checkpoints:
    return Checkpoints(base.database, base.signer)


def _list_dependencies(base: _Base, fleet: Fleet, streams: Streams) -> dict[str, Any]:
    """What handlers can ask for, by the name of their parameter."""
    return {
        "settings_in_force": list_settings(base.settings),
        "controller_url": base.settings.effective_controller_url,
        "fleet": fleet,
        "engine": base.engine,
        "schedules": base.schedules,
        "tasks": base.tasks,
        "streams": streams,
        "reset_throttle": password_reset.ResetThrottle(base.counters),
        "passkey_limiter": passkeys.make_passkey_limiter(base.counters),
        "enrol_limiter": enrolment.make_enrol_limiter(base.counters),
        "renewal_limits": enrolment.RenewalLimits(base.counters),
        "adopters": DriftAdopters({"site": adopt_site_drift}),
        "parked": _make_parked(fleet),
        "checkpoints": _make_checkpoints(base),
    }


def render_openapi() -> bytes:
    """The OpenAPI document of this release; needs no database and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="wcp-openapi-") as folder:
        return render_document(build_controller(Settings(data_dir=Path(folder))).app.litestar)


def _make_parked(fleet: Fleet) -> Parked:
    account, module = AccountKind(), ModuleKind(fleet)
    return Parked(
        {
            "site": SiteKind(),
            "account": account,
            "php_pool": account,
            "ssh_access": account,
            "module": module,
            "node": module,
        }
    )


def _add_upkeep(schedules: Schedules, fleet: Fleet, upkeep: Upkeep) -> None:
    async def review_health() -> str | None:
        changed = await fleet.health.review()
        return f"{changed} judgements changed" if changed else None

    schedules.add(Schedule(name="nodes.upkeep", every_seconds=UPKEEP_SECONDS, run=upkeep.run))
    schedules.add(Schedule(name="nodes.health", every_seconds=HEALTH_SECONDS, run=review_health))


def _keep_token_uses(authenticator: Authenticator) -> Lifespan:
    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        yield
        await authenticator.identities.write_uses()

    return run


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
