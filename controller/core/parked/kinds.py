"""The ways out that need no module: the account with what stands on its package, and the node's own modules."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.converge import converge_account
from controller.core.accounts.deletion import forget_deletion, note_deletion
from controller.core.accounts.lifting import require_may_lift
from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.service import converge_again
from controller.core.accounts.store import lock_account
from controller.core.accounts.suspension import forget_suspension
from controller.core.limits.check import require_fits
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.packages.terms import limits_of, rules_of, terms_of
from controller.core.parked.models import ParkedResource
from controller.core.policies.book import read_policies
from controller.fleet.fleet import Fleet
from controller.jobs.models import Job
from shared.errors import ConflictError
from shared.protocol.job import ACTION_CONVERGE, JobMode, JobResult, ResourceOutcome
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import NODE_SUBJECT, Manifest, decode_manifest
from shared.specs.module import ModuleSpec

LOOK_BACK: Final = 50
"""Jobs of a node among which its last good manifest is looked for."""


def refuse_discard(reason: str, hint: str) -> ConflictError:
    """Why a change cannot be given up."""
    return ConflictError(f"this change cannot be given up: {reason}", code="not_discardable", hint=hint)


class AccountKind:
    """The account itself, and what its package decides (its PHP): both are tried again with its next generation."""

    async def retry(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Converge the account."""
        await converge_again(ctx, _require_account(row))

    async def discard(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Want the package and the state again that the node has; an account that it never had is deleted."""
        ctx.actor.require("accounts", "write")
        account = await lock_account(ctx.session, _require_account(row))
        applied = await _find_applied(ctx.session, account)
        if applied is None:
            note_deletion(ctx, account)
            account.state, account.purge_at = AccountState.DELETING, None
        else:
            rules = await read_policies(ctx.session)
            _want_state(ctx, account, applied, grace_days=rules.deletion_grace_days)
            await _restore_package(ctx, account, applied)
        await converge_account(ctx, account, reason="give up a change")


async def _restore_package(ctx: FleetContext, account: Account, applied: Manifest) -> None:
    spec = next((spec for spec in applied.specs if isinstance(spec, AccountSpec)), None)
    current = await terms_of(ctx.session, account)
    if spec is None or limits_of(current) == spec.limits:
        return
    packages = (await ctx.session.scalars(select(Package).order_by(Package.id))).all()
    same = next((package for package in packages if limits_of(package) == spec.limits), None)
    if same is None:
        raise refuse_discard(
            f"no package has the limits any more that {account.name} has on its node",
            f"Change the package {current.name!r}, or give the account another: wcp360 accounts update.",
        )
    await require_fits(ctx, account, same)
    await ctx.registry.require_fits(ctx.session, account.id, rules_of(same))
    account.package_id, account.package_version_id = same.id, None


async def _find_applied(session: AsyncSession, account: Account) -> Manifest | None:
    """What the node has of the account; None: nothing."""
    if account.observed_generation == 0:
        return None
    statement = select(Job.args).where(
        Job.account_id == account.id,
        Job.node_id == account.node_id,
        Job.action == ACTION_CONVERGE,
        Job.mode == JobMode.APPLY,
        Job.generation == account.observed_generation,
    )
    args = (await session.scalars(statement.order_by(Job.id.desc()).limit(1))).first()
    if args is None:
        raise refuse_discard("the job that brought about what the node has is forgotten", "Change the account instead.")
    return decode_manifest(args)


def _want_state(ctx: FleetContext, account: Account, applied: Manifest, *, grace_days: int) -> None:
    """Want the state again that the node has, if whoever asks may end what was meant to be in its place."""
    is_deleted = account.deletion_asked_at is not None
    if applied.presence is Presence.ENABLED:
        if is_deleted:
            require_may_lift(ctx.actor, account.restorable_by, account, "deletion")
        if account.suspended_at is not None:
            require_may_lift(ctx.actor, account.liftable_by, account, "suspension")
        forget_deletion(account)
        forget_suspension(account)
        account.state = AccountState.ACTIVE
    elif applied.presence is Presence.ABSENT:
        account.state = AccountState.DELETING
    elif is_deleted:  # it lay in the trash, or does: out of service either way, and nothing is lost for now
        account.state = AccountState.TRASHED
        account.purge_at = max(account.purge_at or ctx.now, ctx.now + timedelta(days=grace_days))
    else:
        account.state = AccountState.SUSPENDED


def _require_account(row: ParkedResource) -> str:
    if row.account_id is None:
        raise ConflictError(f"{row.key} belongs to no account")
    return row.account_id


class ModuleKind:
    """A module of a node, and the node's manifest as a whole."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def retry(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Send the node's manifest again."""
        await self._fleet.nodes.repair(ctx, row.node_id)

    async def discard(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Want as much of the module again, with the settings, as the node has."""
        applied = await _find_module(ctx.session, row)
        presence, settings = (applied.presence, applied.settings) if applied is not None else (Presence.ABSENT, {})
        name = row.key.partition("/")[2]
        if not name:
            raise refuse_discard("the whole node failed, not one module", "Retry it when its reason is gone.")
        await self._fleet.nodes.set_module(ctx, row.node_id, name, presence, dict(settings))


async def _find_module(session: AsyncSession, row: ParkedResource) -> ModuleSpec | None:
    """The module as the node took it last: in the newest manifest that did not park it."""
    statement = select(Job).where(
        Job.node_id == row.node_id,
        Job.resource_key == NODE_SUBJECT,
        Job.action == ACTION_CONVERGE,
        Job.mode == JobMode.APPLY,
        Job.result.is_not(None),
    )
    for job in await session.scalars(statement.order_by(Job.id.desc()).limit(LOOK_BACK)):
        if row.key not in _settled_keys(job):
            continue
        specs = decode_manifest(job.args).specs
        return next((spec for spec in specs if isinstance(spec, ModuleSpec) and spec.key == row.key), None)
    return None


def _settled_keys(job: Job) -> frozenset[str]:
    if job.result is None:
        return frozenset()
    result = msgspec.msgpack.decode(job.result, type=JobResult)
    good = (ResourceOutcome.UNCHANGED, ResourceOutcome.CHANGED, ResourceOutcome.REMOVED)
    return frozenset(report.key for report in result.resources if report.outcome in good and not result.is_rolled_back)
