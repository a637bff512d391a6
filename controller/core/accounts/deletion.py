"""Use cases that delete an account: into the trash, out of it again, and for good."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts import store
from controller.core.accounts.certificate import gather_content, hash_certificate
from controller.core.accounts.converge import converge_account
from controller.core.accounts.lifting import lifter_like, require_may_lift
from controller.core.accounts.manifest import compile_account
from controller.core.accounts.models import Account, AccountState, DeletionCertificate
from controller.core.accounts.record import record_account
from controller.core.accounts.views import AccountView
from controller.core.domains.store import free_account_domains
from controller.core.operations import FleetContext
from controller.core.policies.book import read_policies
from controller.fleet.models import Node, NodeState
from controller.jobs.models import Job
from shared.errors import ConflictError, InvalidInputError


async def delete_account(ctx: FleetContext, account_id: str, *, grace_days: int | None = None) -> AccountView:
    """Take the account out of service, and remove it for good when the grace period is over.

    Args:
        ctx: The change.
        account_id: Of an account, with `grace_days` 0 also of one in the trash.
        grace_days: 0: remove everything at once; name and domains are free when the node has done it. None: as the
            policy `deletion_grace_days` says.

    A node that was revoked never answers: an account on it is gone at once, also one that waits for its deletion.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is being deleted already, or in the trash.
    """
    ctx.actor.require("accounts", "write")
    days = await read_grace(ctx, grace_days)
    account = await store.lock_account(ctx.session, account_id)
    is_at_once = days == 0 or await _is_node_revoked(ctx, account)
    if not is_at_once:
        store.require_changeable(account)
    before = store.view_account(account)
    if account.deletion_asked_at is None:
        note_deletion(ctx, account)
    if is_at_once:
        await _remove(ctx, account)
        return record_account(ctx, "account.delete", account, before=before)
    trash(account, purge_at=ctx.now + timedelta(days=days))
    await converge_account(ctx, account, reason="take out of service")
    return record_account(ctx, "account.trash", account, before=before)


async def read_grace(ctx: FleetContext, grace_days: int | None) -> int:
    """How many days a deletion can be taken back; None: as the policy says.

    Raises:
        InvalidInputError: More than the policy `deletion_grace_days_max` allows, or fewer than none.
    """
    rules = await read_policies(ctx.session)
    days = rules.deletion_grace_days if grace_days is None else grace_days
    if not 0 <= days <= rules.deletion_grace_days_max:
        raise InvalidInputError(
            f"grace_days must be between 0 and {rules.deletion_grace_days_max}",
            field="grace_days",
            hint="The policy deletion_grace_days_max says how many there may be.",
        )
    return days


async def restore_account(ctx: FleetContext, account_id: str) -> AccountView:
    """Take an account out of the trash: it is as it was before it was deleted, a suspension included.

    Raises:
        ForbiddenError: Also when only others may take the deletion back (`not_liftable`).
        NotFoundError
        ConflictError: It is not in the trash.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_account(ctx.session, account_id)
    if account.state is not AccountState.TRASHED:
        raise ConflictError(f"the account {account.name!r} is not in the trash")
    await store.require_reachable(ctx.session, account)
    require_may_lift(ctx.actor, account.restorable_by, account, "deletion")
    before = store.view_account(account)
    account.state = account.state_before_trash or AccountState.ACTIVE
    forget_deletion(account)
    await converge_account(ctx, account, reason="restore")
    return record_account(ctx, "account.restore", account, before=before)


async def purge_account(ctx: FleetContext, account_id: str) -> AccountView | None:
    """Remove an account whose grace period is over; None: it was restored or purged meanwhile.

    Raises:
        NotFoundError: It is gone.
    """
    account = await store.lock_account(ctx.session, account_id)
    is_due = account.state is AccountState.TRASHED and account.purge_at is not None and account.purge_at <= ctx.now
    if not is_due:
        return None
    before = store.view_account(account)
    await _remove(ctx, account)
    return record_account(ctx, "account.delete", account, before=before)


def note_deletion(ctx: FleetContext, account: Account) -> None:
    """Who wants it deleted, for its certificate."""
    account.deletion_asked_at, account.deletion_asked_by = ctx.now, ctx.actor.reference[:100]
    account.deletion_asked_by_name = ctx.actor.name[:200]
    account.restorable_by = lifter_like(ctx.actor)


def trash(account: Account, *, purge_at: datetime) -> None:
    """It is in the trash until then."""
    account.state_before_trash = account.state
    account.state, account.purge_at = AccountState.TRASHED, purge_at


def forget_deletion(account: Account) -> None:
    """Nobody wants it deleted any more."""
    account.deletion_asked_at = account.purge_at = account.state_before_trash = account.restorable_by = None
    account.deletion_asked_by = account.deletion_asked_by_name = ""


async def _remove(ctx: FleetContext, account: Account) -> None:
    """Let the node remove everything. One that was revoked never answers, so there it is gone now."""
    if await _is_node_revoked(ctx, account):
        policy = await ctx.fleet.drift_policy(ctx.session, account.home_node_id)
        manifest = await compile_account(ctx.session, ctx.registry, account, drift_policy=policy)
        resources = [spec.key for spec in manifest.specs]
        await certify(ctx.session, account, resources, None, ctx.now)
        await ctx.registry.forget(ctx.session, account.id, ctx.now)
        await finish_deletion(ctx.session, account, ctx.now)
        await ctx.session.flush()
        return
    store.require_not_deleting(account)
    account.state, account.purge_at = AccountState.DELETING, None
    await converge_account(ctx, account, reason="delete account")


async def certify(
    session: AsyncSession, account: Account, resources: Collection[str], job: Job | None, now: datetime
) -> None:
    """Write down what goes, before anything of it is let go of. The audit log holds its hash a moment later."""
    content = await gather_content(session, account, resources, job, now.isoformat())
    row = DeletionCertificate(account_id=account.id, content=content, created_at=now, updated_at=now)
    row.content_hash = hash_certificate(content)
    session.add(row)


async def finish_deletion(session: AsyncSession, account: Account, now: datetime) -> None:
    """Let go of what core keeps for an account of which nothing is left: its name, its node, its domains."""
    account.state, account.deleted_at, account.updated_at = AccountState.DELETED, now, now
    account.node_id = account.purge_at = None
    await free_account_domains(session, account.id, now)


async def _is_node_revoked(ctx: FleetContext, account: Account) -> bool:
    node = await ctx.session.get_one(Node, account.home_node_id)
    return node.state is NodeState.REVOKED
