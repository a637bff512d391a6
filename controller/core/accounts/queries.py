"""Use cases that only read accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Select, and_, select, union

from controller.core.accounts import store
from controller.core.accounts.labels import MAX_VALUE_LENGTH, may_see_notes, require_label_key
from controller.core.accounts.manifest import compile_account
from controller.core.accounts.models import Account, AccountLabel, AccountProof, AccountState
from controller.core.accounts.views import (
    AccountDriftList,
    AccountDriftView,
    AccountPage,
    AccountView,
    ManifestView,
    ProofList,
    ProofView,
)
from controller.core.clients.models import Client
from controller.core.context import Actor, OpContext
from controller.core.domains.models import Domain
from controller.core.fields import require_id_field, require_text
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from controller.fleet.models import DriftFindingRow
from shared.errors import InvalidInputError
from shared.specs.manifest import manifest_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFilter:
    """Which accounts are wanted; None: all."""

    client_id: str | None = None
    package_id: str | None = None
    node_id: str | None = None
    state: str | None = None
    label: str | None = None
    """KEY=VALUE, or KEY for those that have it with any value."""


async def list_accounts(ctx: OpContext, page: PageRequest, wanted: AccountFilter) -> AccountPage:
    """Newest first; deleted ones only when their state is asked for.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("accounts", "read")
    statement = select_accounts(ctx.actor, wanted, page.search)
    found = await fetch_page(ctx.session, statement, page)
    return AccountPage(items=tuple(store.view_account(row) for row in found.rows), next_cursor=found.next_cursor)


def select_accounts(actor: Actor, wanted: AccountFilter, search: str | None) -> Select[Account]:
    """The accounts that are wanted, in no order.

    Raises:
        InvalidInputError: A part of the filter is none.
    """
    statement = select(Account)
    for name in ("client_id", "package_id", "node_id"):
        value = getattr(wanted, name)
        if value:
            statement = statement.where(getattr(Account, name) == require_id_field(name, value))
    if wanted.state:
        statement = statement.where(Account.state == _parse_state(wanted.state))
    else:
        statement = statement.where(Account.deleted_at.is_(None))
    if wanted.label:
        statement = statement.where(Account.id.in_(_select_labelled(wanted.label)))
    condition = _contains_anywhere(actor, search)
    return statement if condition is None else statement.where(condition)


def _select_labelled(raw: str) -> Select[str]:
    key, has_value, value = raw.partition("=")
    statement = select(AccountLabel.account_id).where(AccountLabel.key == require_label_key(key, field="label"))
    if not has_value:
        return statement
    return statement.where(AccountLabel.value == require_text("label", value, high=MAX_VALUE_LENGTH))


def _contains_anywhere(actor: Actor, search: str | None) -> ColumnElement[bool] | None:
    """In the name, a domain, the client's name or a label; for those who may read it also in the note.

    What is found is found once, as a set, and not anew for each account.
    """
    client, value = contains((Client.name,), search), contains((AccountLabel.value,), search)
    if search is None or client is None or value is None:
        return None
    # These are lower case already: to compare them as they are takes a third of the time, and there are many.
    lower = search.strip().lower()
    name, domain, key = (
        column.contains(lower, autoescape=True) for column in (Account.name, Domain.name, AccountLabel.key)
    )
    own = [name]
    if may_see_notes(actor) and (note := contains((Account.note,), search)) is not None:
        own.append(and_(Account.note != "", note))
    # Each place by its own index (revision 0004), and the accounts by their ids: of several conditions with OR between
    # them no index is used at all.
    found = (
        *(select(Account.id).where(condition) for condition in own),
        select(Domain.account_id).where(domain, Domain.deleted_at.is_(None)),
        select(Account.id).join(Client, Client.id == Account.client_id).where(client),
        select(AccountLabel.account_id).where(key),
        select(AccountLabel.account_id).where(value),
    )
    return Account.id.in_(union(*found))


async def show_account(ctx: OpContext, account_id: str) -> AccountView:
    """One account.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    return store.view_account(await store.get_account(ctx.session, account_id))


async def show_manifest(ctx: FleetContext, account_id: str) -> ManifestView:
    """What the account's node is told, compiled now.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    account = await store.get_account(ctx.session, account_id)
    policy = await ctx.fleet.drift_policy(ctx.session, account.home_node_id)
    manifest = await compile_account(ctx.session, ctx.registry, account, drift_policy=policy)
    return ManifestView(
        subject=manifest.subject,
        generation=manifest.generation,
        digest=manifest_digest(manifest),
        presence=manifest.presence.value,
        drift_policy=manifest.drift_policy.value,
        specs=tuple(msgspec.to_builtins(spec) for spec in manifest.specs),
        held=manifest.held,
    )


async def show_proofs(ctx: OpContext, account_id: str) -> ProofList:
    """Every limit of the account as it was read back last.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    account = await store.get_account(ctx.session, account_id)
    statement = (
        select(AccountProof)
        .where(AccountProof.account_id == account.id)
        .order_by(AccountProof.resource, AccountProof.limit_name)
    )
    rows = await ctx.session.scalars(statement)
    return ProofList(items=tuple(_view_proof(row) for row in rows))


async def list_drift(ctx: OpContext, account_id: str) -> AccountDriftList:
    """What the last comparison found.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    account = await store.get_account(ctx.session, account_id)
    statement = (
        select(DriftFindingRow)
        .where(DriftFindingRow.node_id == account.home_node_id, DriftFindingRow.subject == account.subject)
        .order_by(DriftFindingRow.key)
    )
    rows = await ctx.session.scalars(statement)
    return AccountDriftList(items=tuple(_view_finding(row, now=ctx.now) for row in rows))


def _parse_state(raw: str) -> AccountState:
    try:
        return AccountState(raw)
    except ValueError as error:
        known = ", ".join(state.value for state in AccountState)
        raise InvalidInputError(f"state must be one of {known}", field="state") from error


def _view_proof(row: AccountProof) -> ProofView:
    return ProofView(
        resource=row.resource,
        limit=row.limit_name,
        wanted=row.wanted,
        enforced=row.enforced,
        is_proven=row.wanted == row.enforced,
        source=row.source,
        generation=row.generation,
        read_at=row.read_at,
    )


def _view_finding(row: DriftFindingRow, *, now: datetime) -> AccountDriftView:
    return AccountDriftView(
        id=row.id,
        key=row.key,
        summary=row.summary,
        diff=row.diff,
        is_repaired=row.is_repaired,
        found_at=row.found_at,
        checked_at=row.checked_at,
        is_ignored=row.is_ignored(now),
        ignored_until=row.ignored_until,
        ignored_by=row.ignored_by,
        ignore_reason=row.ignore_reason,
    )
