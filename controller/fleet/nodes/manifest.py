"""The node's own manifest: which modules it has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Node, NodeModule
from controller.jobs.models import Job
from controller.jobs.queue import JobRequest
from shared.errors import InvalidInputError
from shared.protocol.job import ACTION_CONVERGE, JobResult, JobState, ResourceOutcome
from shared.specs.base import Presence
from shared.specs.manifest import NODE_SUBJECT, Manifest, decode_manifest, encode_manifest
from shared.specs.module import ModuleSpec
from shared.types.names import ResourceKey

ROLES: Final = ("web", "database", "mail", "dns", "backup")
MODULES_OF_ROLE: Final[dict[str, tuple[str, ...]]] = {
    "web": ("account", "php", "ssh", "web"),
    "database": ("account",),
    "mail": ("account",),
    "dns": (),
    "backup": (),
}
"""Modules that a role brings, as far as this release has them."""

MODULES: Final[dict[str, str]] = {
    "account": "Unix users, homes with enforced sizes, slices with limits.",
    "php": "A PHP-FPM master per account and version, asleep while nobody asks.",
    "ssh": "Logins of accounts by SSH keys, inside their slices.",
    "web": "Web sites, served by nginx.",
}
"""Every module of this release, with what it is for."""

SINCE_CAPABILITY: Final[dict[str, int]] = {"ssh": 2}
"""Modules that the oldest agents do not know; those are not told of them (shared.protocol.capability)."""

NODE_JOB_SECONDS: Final = 1800
"""Installing Debian packages takes its time."""


def require_roles(roles: Iterable[str]) -> list[str]:
    """The roles in their fixed order, each once.

    Raises:
        InvalidInputError: There is no such role.
    """
    wanted = set(roles)
    unknown = sorted(wanted - set(ROLES))
    if unknown:
        raise InvalidInputError(
            f"{unknown[0][:40]!r} is not a role", field="roles", hint=f"Known roles: {', '.join(ROLES)}."
        )
    return [role for role in ROLES if role in wanted]


async def list_node_modules(session: AsyncSession, node_id: str) -> list[NodeModule]:
    """Rows of a node's modules, by name."""
    statement = select(NodeModule).where(NodeModule.node_id == node_id).order_by(NodeModule.name)
    return list((await session.execute(statement)).scalars())


async def ensure_role_modules(session: AsyncSession, node: Node) -> bool:
    """Add the modules of the node's roles that its agent knows and that have no row, enabled; True: there were some."""
    present = {row.name for row in await list_node_modules(session, node.id)}
    wanted = dict.fromkeys(name for role in node.roles for name in MODULES_OF_ROLE[role])
    missing = [name for name in wanted if name not in present and is_known(name, node)]
    session.add_all(NodeModule(node_id=node.id, name=name, presence=Presence.ENABLED, settings={}) for name in missing)
    await session.flush()
    return bool(missing)


def is_known(module: str, node: Node) -> bool:
    """Whether the node's agent is new enough for the module."""
    return node.capability >= SINCE_CAPABILITY.get(module, 0)


async def compile_node_manifest(session: AsyncSession, node: Node) -> Manifest:
    """What the node itself must have, at its present generation."""
    specs = tuple(
        ModuleSpec(name=row.name, presence=row.presence, settings=dict(row.settings))
        for row in await list_node_modules(session, node.id)
        if is_known(row.name, node)
    )
    return Manifest(
        subject=NODE_SUBJECT, generation=max(node.desired_generation, 1), specs=specs, drift_policy=node.drift_policy
    )


async def next_node_request(
    session: AsyncSession, node: Node, *, actor: str, request_id: str, reason: str
) -> JobRequest:
    """Raise the node's generation and return the job that brings it about; the caller asks for it."""
    node.desired_generation += 1
    await session.flush()
    manifest = await compile_node_manifest(session, node)
    return JobRequest(
        node_id=node.id,
        action=ACTION_CONVERGE,
        args=encode_manifest(manifest),
        resource_key=NODE_SUBJECT,
        generation=manifest.generation,
        actor=actor,
        request_id=request_id[:64],
        label=f"{node.name}: {reason} (generation {manifest.generation})",
        max_runtime_seconds=NODE_JOB_SECONDS,
    )


class NodeObserver:
    """Writes what a node said about its own manifest into the observed columns."""

    async def __call__(self, session: AsyncSession, job: Job, result: JobResult) -> None:
        """A result observer of the job engine; other jobs are none of its business."""
        if job.action != ACTION_CONVERGE or job.resource_key != NODE_SUBJECT:
            return
        node = (await session.execute(select(Node).where(Node.id == job.node_id))).scalar_one_or_none()
        if node is None or job.generation < node.observed_generation:
            return
        at = (
            datetime.fromtimestamp(result.finished_at, tz=job.created_at.tzinfo)
            if result.finished_at
            else job.created_at
        )
        is_parked = any(report.outcome is ResourceOutcome.PARKED for report in result.resources)
        # A job whose only fault are parked modules ends as failed, and everything else of it was applied.
        is_only_parked = result.state is JobState.FAILED and not result.is_rolled_back and is_parked
        is_applied = result.state is JobState.SUCCEEDED or is_only_parked
        node.observed_status = "failed" if not is_applied else "parked" if is_parked else "ok"
        node.observed_at = at
        if is_applied:
            node.observed_generation = job.generation
        await _observe_modules(session, job, result, at)


async def _observe_modules(session: AsyncSession, job: Job, result: JobResult, at: datetime) -> None:
    rows = {f"module/{row.name}": row for row in await list_node_modules(session, job.node_id)}
    wanted = {spec.key: spec for spec in decode_manifest(job.args).specs}
    for report in result.resources:
        row = rows.get(report.key)
        spec = wanted.get(ResourceKey(report.key))
        if row is None or not isinstance(spec, ModuleSpec):
            continue
        row.observed_generation = job.generation
        row.observed_at = at
        row.observed_note = report.error.message if report.error else report.note
        row.observed_status = _status_of(report.outcome, spec.presence)
    await session.flush()


def _status_of(outcome: ResourceOutcome, presence: Presence) -> str:
    """A module is what was asked for unless the node parked it."""
    return "parked" if outcome in (ResourceOutcome.PARKED, ResourceOutcome.HELD) else presence.value
