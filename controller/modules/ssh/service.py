"""Use cases of SSH keys. Each change is a new generation of the key's account and a job for its node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET
from sqlalchemy import select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.store import lock_changeable
from controller.core.audit.chain import record
from controller.core.auth.networks import parse_networks
from controller.core.context import Change, OpContext
from controller.core.fields import not_found, require_id_field, require_reference, require_text
from controller.core.limits.check import require_feature, require_programs, require_room
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from controller.fleet.models import Node
from controller.fleet.nodes.manifest import is_known
from controller.modules.ssh import store
from controller.modules.ssh.models import SshKeyRow
from controller.modules.ssh.public_keys import parse_public_key
from controller.modules.ssh.views import SshKeyCreate, SshKeyPage, SshKeyUpdate, SshKeyView
from shared.errors import ConflictError, InvalidInputError, QuotaExceededError
from shared.specs.ssh_access import LATEST_EXPIRY, MAX_SSH_KEYS

NOUN = "ssh-keys"


async def list_keys(ctx: OpContext, page: PageRequest, account_id: str | None) -> SshKeyPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    statement = select(SshKeyRow)
    if account_id:
        statement = statement.where(SshKeyRow.account_id == require_id_field("account_id", account_id))
    condition = contains((SshKeyRow.name, SshKeyRow.fingerprint), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    return SshKeyPage(items=tuple(store.view_key(row, ctx.now) for row in found.rows), next_cursor=found.next_cursor)


async def show_key(ctx: OpContext, key_id: str) -> SshKeyView:
    """One key.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "read")
    return store.view_key(await store.get_key(ctx.session, key_id), ctx.now)


async def create_key(ctx: FleetContext, params: SshKeyCreate) -> SshKeyView:
    """Let a key open an account.

    Raises:
        ForbiddenError: Not permitted, or the account's package has no SSH (`feature_disabled`) or
            lets nobody start programs (`programs_restricted`).
        InvalidInputError: The key is none, or not one that may log in; `field` names what is wrong.
        ConflictError: The account has the key already (`ssh_key_exists`), is being deleted, or its node's agent does
            not know of keys (`outdated_agent`).
        QuotaExceededError: The package allows no more keys.
    """
    ctx.actor.require(NOUN, "write")
    key = parse_public_key(params.public_key)
    name = require_text("name", params.name, low=1, high=100)
    networks = _parse_networks(params.allowed_networks)
    expires_at = _parse_expiry(params.expires_at, ctx.now)
    account = await require_reference("account_id", lock_changeable(ctx.session, params.account_id))
    await require_feature(ctx, account, store.FEATURE)
    await require_programs(ctx, account, "log in over SSH")
    await _require_known(ctx, account.home_node_id)
    present = await store.list_of_account(ctx.session, account.id)
    if any(row.fingerprint == key.fingerprint for row in present):
        raise ConflictError(
            f"the account has the key {key.fingerprint} already",
            code="ssh_key_exists",
            hint="Change its name or its end with update, or delete it first.",
        )
    if len(present) >= MAX_SSH_KEYS:
        raise QuotaExceededError(f"an account has at most {MAX_SSH_KEYS} SSH keys", hint="Delete one that nobody uses.")
    await require_room(ctx, account, store.SSH_KEYS.key)
    row = SshKeyRow(
        account_id=account.id,
        name=name,
        key_type=key.key_type,
        blob=key.blob,
        fingerprint=key.fingerprint,
        comment=key.comment,
        expires_at=expires_at,
        allowed_networks=networks,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(row)
    await ctx.session.flush()
    return await _include(ctx, account, row, action="ssh_key.create", before=None)


async def update_key(ctx: FleetContext, key_id: str, params: SshKeyUpdate) -> SshKeyView:
    """Name a key anew, or let it end at another time.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Its account is being deleted.
    """
    ctx.actor.require(NOUN, "write")
    row, account = await _lock_key(ctx, key_id)
    before = store.view_key(row, ctx.now)
    if params.name is not UNSET:
        row.name = require_text("name", params.name, low=1, high=100)
    if params.expires_at is not UNSET:
        row.expires_at = _parse_expiry(params.expires_at, ctx.now)
        row.expired_at = None
    row.updated_at = ctx.now
    return await _include(ctx, account, row, action="ssh_key.update", before=before)


async def delete_key(ctx: FleetContext, key_id: str) -> SshKeyView:
    """Let a key open nothing any more.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: Its account is being deleted.
    """
    ctx.actor.require(NOUN, "write")
    row, account = await _lock_key(ctx, key_id)
    before = store.view_key(row, ctx.now)
    await ctx.session.delete(row)
    await converge_account(ctx, account, reason=f"delete SSH key {row.name}")
    record(ctx, Change("ssh_key.delete", f"ssh_key/{row.id}", row.name, before=msgspec.to_builtins(before)))
    return before


async def hand_over_keys(ctx: FleetContext, account: Account) -> int:
    """An account goes to another client: whose keys open it now, open it no more; how many there were.

    Whoever calls converges the account. The entries are the former client's, whose keys they were.
    """
    rows = await store.list_of_account(ctx.session, account.id)
    for row in rows:
        before = {**msgspec.to_builtins(store.view_key(row, ctx.now)), "client_id": account.client_id}
        await ctx.session.delete(row)
        record(ctx, Change("ssh_key.delete", f"ssh_key/{row.id}", row.name, before=before))
    await ctx.session.flush()
    return len(rows)


async def expire_keys(ctx: FleetContext, account_id: str) -> int:
    """Take the keys of an account off its node whose time is over; how many there were.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: The account is being deleted.
    """
    ctx.actor.require(NOUN, "write")
    account = await lock_changeable(ctx.session, account_id)
    rows = [row for row in await store.list_of_account(ctx.session, account.id) if is_due(row, ctx.now)]
    for row in rows:
        row.expired_at = ctx.now
        view = msgspec.to_builtins(store.view_key(row, ctx.now))
        record(ctx, Change("ssh_key.expire", f"ssh_key/{row.id}", row.name, after=view))
    if rows:
        await converge_account(ctx, account, reason="expired SSH keys")
    return len(rows)


def is_due(row: SshKeyRow, now: datetime) -> bool:
    """Whether its time is over and its node still has it."""
    return row.expired_at is None and row.expires_at is not None and row.expires_at <= now


def _parse_expiry(at: datetime | None, now: datetime) -> datetime | None:
    if at is None:
        return None
    if at <= now or at.timestamp() > LATEST_EXPIRY:
        raise InvalidInputError("the end of a key lies in the future", field="expires_at")
    return at.replace(microsecond=0)


def _parse_networks(raw: Sequence[str]) -> list[str]:
    if any("%" in text for text in raw):  # sshd knows no zones, and would drop the whole list
        raise InvalidInputError("a network has no zone (%)", field="allowed_networks")
    return parse_networks(raw, field="allowed_networks")


async def _lock_key(ctx: FleetContext, key_id: str) -> tuple[SshKeyRow, Account]:
    """The account's lock first, then what somebody may have written meanwhile."""
    row = await store.get_key(ctx.session, key_id)
    account = await lock_changeable(ctx.session, row.account_id)
    fresh = await ctx.session.get(SshKeyRow, row.id, populate_existing=True)
    if fresh is None:
        raise not_found("SSH key", key_id)
    return fresh, account


async def _include(
    ctx: FleetContext, account: Account, row: SshKeyRow, *, action: str, before: SshKeyView | None
) -> SshKeyView:
    """Converge the account with its keys as they are wanted now, and note the change."""
    await converge_account(ctx, account, reason=f"{action.partition('.')[2]} SSH key {row.name}")
    after = store.view_key(row, ctx.now)
    change = Change(
        action=action,
        target=f"ssh_key/{row.id}",
        target_name=row.name,
        before=msgspec.to_builtins(before) if before is not None else None,
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after


async def _require_known(ctx: FleetContext, node_id: str) -> None:
    node = await ctx.session.get_one(Node, node_id)
    if not is_known("ssh", node):
        raise ConflictError(
            f"the agent of the node {node.name} is too old for SSH keys",
            code="outdated_agent",
            hint="Update it: wcp360 rollouts create, or run its installer again.",
        )
