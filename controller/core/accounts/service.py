"""Use cases that change accounts. Each one is a new generation and a job for the account's node."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET
from sqlalchemy import select

from controller.core.accounts import store
from controller.core.accounts.converge import converge_account
from controller.core.accounts.labels import set_labels
from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.record import record_account
from controller.core.accounts.views import AccountCreate, AccountUpdate, AccountView
from controller.core.clients.store import get_client
from controller.core.fields import parse_field, require_id_field, require_reference
from controller.core.limits.check import require_fits
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.packages.store import get_package, limits_of, rules_of
from controller.core.resellers.bounds import require_given_out, require_sold
from controller.core.resellers.caps import find_reseller_id, require_selling, within_caps
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
        ConflictError: The name is taken, no node takes the account, or its reseller or its package is suspended.
        QuotaExceededError: Its reseller may not promise so much.
    """
    ctx.actor.require("accounts", "write")
    account = await add_account(ctx, params)
    await converge_account(ctx, account, reason="create account")
    return record_account(ctx, "account.create", account, before=None)


async def add_account(ctx: FleetContext, params: AccountCreate) -> Account:
    """A new account's row, with its place on a node; the caller converges it and notes the change.

    Raises:
        InvalidInputError
        ConflictError: The name is taken, the package is suspended, or no node takes the account.
    """
    name = parse_field("name", parse_unix_name, params.name)
    client = await require_reference("client_id", get_client(ctx.session, params.client_id))
    package = await require_reference("package_id", get_package(ctx.session, params.package_id))
    require_sold(package, client.reseller_id, field="package_id")
    require_given_out(package, field="package_id")
    await require_selling(ctx.session, client.reseller_id)
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
    async with within_caps(ctx, client.reseller_id):
        ctx.session.add(account)
        await set_labels(ctx, account, params.labels)
    return account


async def update_account(ctx: FleetContext, account_id: str, params: AccountUpdate) -> AccountView:
    """Give the account another package or other labels. The same again changes nothing.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is being deleted, or the package is suspended.
        QuotaExceededError: It has more than the package allows, or its reseller may not promise so much.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    before = store.view_account(account)
    if params.labels is not UNSET and params.labels != account.labels:
        await set_labels(ctx, account, params.labels)
    if params.package_id is not UNSET and params.package_id != account.package_id:
        await _change_package(ctx, account, params.package_id)
    if store.view_account(account) == before:
        return before
    return record_account(ctx, "account.update", account, before=before)


async def _change_package(ctx: FleetContext, account: Account, package_id: str) -> None:
    package = await require_reference("package_id", get_package(ctx.session, package_id))
    if account.package_id == package.id:
        return
    reseller_id = await find_reseller_id(ctx.session, account.client_id)
    require_sold(package, reseller_id, field="package_id")
    require_given_out(package, field="package_id")
    await require_fits(ctx, account, package)
    await ctx.registry.require_fits(ctx.session, account.id, rules_of(package))
    async with within_caps(ctx, reseller_id):
        account.package_id, account.package_version_id = package.id, None
    await converge_account(ctx, account, reason=f"package {package.name}")


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
    return record_account(ctx, "account.converge", account, before=before)


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
    message, hint = f"there is an account named {name!r} already", "Choose another name."
    if await ctx.session.scalar(select(Account.id).where(Account.id == existing.id)) is None:
        pass  # somebody else's: that the name is taken is all that anybody learns
    elif existing.state is AccountState.DELETING:
        message, hint = f"the account {name!r} is being deleted", "Its name is free once its node has removed it."
    elif existing.state is AccountState.TRASHED:
        message = f"the account {name!r} is in the trash"
        hint = "Restore it, or remove it for good: wcp360 accounts delete --grace-days 0."
    raise ConflictError(message, hint=hint, context={"field": "name"})


async def _choose_node(ctx: FleetContext, node_id: str | None, package: Package) -> str:
    if node_id is not None:
        ctx.actor.require_platform("nodes", "read")
    if node_id is None:
        return await ctx.fleet.choose_node(ctx.session, roles=ACCOUNT_ROLES, limits=limits_of(package))
    require_id_field("node_id", node_id)
    await require_reference("node_id", ctx.fleet.require_placeable(ctx.session, node_id))
    return node_id
