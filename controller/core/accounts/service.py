"""Use cases that change accounts. Each one is a new generation and a job for the account's node."""

from __future__ import annotations

from typing import Final

import msgspec

from controller.core.accounts import store
from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.observe import finish_deletion
from controller.core.accounts.views import AccountCreate, AccountSuspend, AccountUpdate, AccountView
from controller.core.audit.chain import record
from controller.core.clients.store import get_client
from controller.core.context import Change
from controller.core.fields import parse_field, require_id_field, require_reference, require_text
from controller.core.limits.check import require_fits
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.packages.store import get_package, limits_of, rules_of
from controller.fleet.models import Node, NodeState
from controller.jobs.queue import JobRequest
from shared.errors import ConflictError
from shared.protocol.job import ACTION_DRIFT, DriftRequest, JobMode
from shared.types.names import parse_unix_name

ACCOUNT_ROLES: Final = frozenset({"web"})
"""Roles that a node needs to take accounts."""


async def create_account(ctx: FleetContext, params: AccountCreate) -> AccountView:
    """Create an account on the wanted node, or on the one with the most room.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: The name is taken, or no node takes the account.
    """
    ctx.actor.require("accounts", "write")
    name = parse_field("name", parse_unix_name, params.name)
    client = await require_reference("client_id", get_client(ctx.session, params.client_id))
    package = await require_reference("package_id", get_package(ctx.session, params.package_id))
    await _require_free(ctx, name)
    node_id = await _choose_node(ctx, params.node_id, package)
    account = Account(
        name=name,
        client_id=client.id,
        package_id=package.id,
        node_id=node_id,
        uid=await ctx.fleet.allocate_uid(ctx.session, node_id),
        # A node remembers how far it has come with a name, and refuses anything older.
        desired_generation=await store.last_generation(ctx.session, name),
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(account)
    await converge_account(ctx, account, reason="create account")
    return _recorded(ctx, "account.create", account, before=None)


async def update_account(ctx: FleetContext, account_id: str, params: AccountUpdate) -> AccountView:
    """Give the account another package. The same package again changes nothing.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is being deleted.
        QuotaExceededError: It has more than the package allows.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    package = await require_reference("package_id", get_package(ctx.session, params.package_id))
    before = store.view_account(account)
    if account.package_id == package.id:
        return before
    await require_fits(ctx, account, package)
    await ctx.registry.require_fits(ctx.session, account.id, rules_of(package))
    account.package_id, account.package_version_id = package.id, None
    await converge_account(ctx, account, reason=f"package {package.name}")
    return _recorded(ctx, "account.update", account, before=before)


async def suspend_account(ctx: FleetContext, account_id: str, params: AccountSuspend) -> AccountView:
    """Stop serving; nothing is deleted.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is suspended already, or being deleted.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    reason = require_text("reason", params.reason, high=500)
    if account.state is AccountState.SUSPENDED:
        raise ConflictError(f"the account {account.name!r} is suspended already")
    before = store.view_account(account)
    account.state, account.suspension_reason, account.suspended_at = AccountState.SUSPENDED, reason, ctx.now
    await converge_account(ctx, account, reason="suspend")
    return _recorded(ctx, "account.suspend", account, before=before)


async def unsuspend_account(ctx: FleetContext, account_id: str) -> AccountView:
    """Serve again, exactly as before.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not suspended.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    if account.state is not AccountState.SUSPENDED:
        raise ConflictError(f"the account {account.name!r} is not suspended")
    before = store.view_account(account)
    account.state, account.suspension_reason, account.suspended_at = AccountState.ACTIVE, "", None
    await converge_account(ctx, account, reason="unsuspend")
    return _recorded(ctx, "account.unsuspend", account, before=before)


async def converge_again(ctx: FleetContext, account_id: str) -> AccountView:
    """Bring the node to what is wanted once more: repairs what somebody changed there. Works while deleting, too.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_account(ctx.session, account_id)
    await store.require_reachable(ctx.session, account)
    before = store.view_account(account)
    await converge_account(ctx, account, reason="repair")
    return _recorded(ctx, "account.converge", account, before=before)


async def delete_account(ctx: FleetContext, account_id: str) -> AccountView:
    """Remove everything the account has from its node; name and domains are free once the node has done it.

    A node that was revoked never answers: an account on it is gone at once, also one that waits for its deletion.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is being deleted already.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_account(ctx.session, account_id)
    node = await ctx.session.get_one(Node, account.home_node_id)
    if node.state is not NodeState.REVOKED:
        store.require_changeable(account)
    before = store.view_account(account)
    if node.state is NodeState.REVOKED:
        await ctx.registry.forget(ctx.session, account.id, ctx.now)
        await finish_deletion(ctx.session, account, ctx.now)
        await ctx.session.flush()
    else:
        account.state = AccountState.DELETING
        await converge_account(ctx, account, reason="delete account")
    return _recorded(ctx, "account.delete", account, before=before)


async def check_drift(ctx: FleetContext, account_id: str) -> AccountView:
    """Let the node compare the account with what was applied last; findings come as events.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "write")
    account = await store.get_account(ctx.session, account_id)
    request = JobRequest(
        node_id=account.home_node_id,
        action=ACTION_DRIFT,
        args=msgspec.msgpack.encode(DriftRequest(subjects=(account.subject,))),
        resource_key=account.subject,
        mode=JobMode.PLAN,
        actor=ctx.actor.reference,
        request_id=ctx.request_id[:64],
        label=f"{account.name}: look for drift",
        account_id=account.id,
    )
    await ctx.ask(request)
    return store.view_account(account)


async def _require_free(ctx: FleetContext, name: str) -> None:
    existing = await store.find_live_named(ctx.session, name)
    if existing is None:
        return
    is_leaving = existing.state is AccountState.DELETING
    raise ConflictError(
        f"there is an account named {name!r} already" if not is_leaving else f"the account {name!r} is being deleted",
        hint="Its name is free once its node has removed it." if is_leaving else "Choose another name.",
        context={"field": "name"},
    )


async def _choose_node(ctx: FleetContext, node_id: str | None, package: Package) -> str:
    if node_id is not None:
        ctx.actor.require_platform("nodes", "read")
    if node_id is None:
        return await ctx.fleet.choose_node(ctx.session, roles=ACCOUNT_ROLES, limits=limits_of(package))
    require_id_field("node_id", node_id)
    await require_reference("node_id", ctx.fleet.require_placeable(ctx.session, node_id))
    return node_id


def _recorded(ctx: FleetContext, action: str, account: Account, *, before: AccountView | None) -> AccountView:
    after = store.view_account(account)
    change = Change(
        action=action,
        target=f"account/{account.id}",
        target_name=account.name,
        before=msgspec.to_builtins(before) if before is not None else None,
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after
