"""Use cases: accounts and clients change hands. Everything that hangs on an account goes with it; its people do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import delete, select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.store import get_account, lock_changeable, view_account
from controller.core.accounts.views import AccountView
from controller.core.audit.chain import record
from controller.core.auth.models import ApiToken, User
from controller.core.clients.models import Client
from controller.core.clients.store import count_accounts, get_client, view_client
from controller.core.clients.views import ClientView
from controller.core.context import Change
from controller.core.domains.models import Domain
from controller.core.fields import require_reference
from controller.core.limits.check import require_fits
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.packages.store import get_package, rules_of
from controller.core.resellers.bounds import choose_owner, is_sold_to, require_given_out, require_sold
from controller.core.resellers.caps import require_selling, within_caps
from controller.core.resellers.models import SuspendedAccount
from controller.core.tenancy.models import AccountMember
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError, FleetError

RowId = Annotated[str, Meta(min_length=1, max_length=36, examples=["0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"])]
NewPackage = Annotated[RowId | None, Meta(description="The package it gets; null: it keeps what it has.")]


class AccountTransfer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To whom an account goes."""

    client_id: Annotated[RowId, Meta(description="Who owns it from then on.")]
    package_id: NewPackage = None


class ClientTransfer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To whom a client goes, with all its accounts and people."""

    reseller_id: Annotated[RowId | None, Meta(description="Who sells to it from then on; null: the platform itself.")]
    package_id: Annotated[
        RowId | None, Meta(description="For those of its accounts whose package is not sold there; others keep theirs.")
    ] = None


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Why the transfer would be refused."""

    code: Annotated[str, Meta(examples=["package_not_sold", "quota_exceeded", "reseller_suspended"])]
    message: str
    hint: str | None


class LostAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who can reach the account now, and could not afterwards."""

    user_id: str
    username: str
    role: str
    tokens: Annotated[int, Meta(description="API tokens of theirs, which would not reach it either.")]


class TransferPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a transfer would mean. Nothing was changed."""

    account_id: str
    client_id: Annotated[str, Meta(description="Who would own it.")]
    package_id: Annotated[str, Meta(description="The package it would have.")]
    is_possible: bool
    obstacles: Annotated[tuple[Obstacle, ...], Meta(description="What to put right first.")]
    is_between_resellers: bool
    lost_access: tuple[LostAccess, ...]
    domains: Annotated[int, Meta(description="How many domains would go with it.")]
    logins: Annotated[int, Meta(description="Logins of the former client that would be taken away: its SSH keys.")]


async def transfer_account(ctx: FleetContext, account_id: str, params: AccountTransfer) -> AccountView:
    """Give an account to another client that whoever asks can reach: a reseller's own, or any for administrators.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is that client's already, or its package is not sold there, or the reseller is suspended.
        QuotaExceededError: The new reseller may not promise so much, or the account has more than the package allows.
    """
    ctx.actor.require("accounts", "write")
    account = await lock_changeable(ctx.session, account_id)
    client = await require_reference("client_id", get_client(ctx.session, params.client_id))
    if client.id == account.client_id:
        raise ConflictError(f"the account {account.name!r} is that client's already", context={"field": "client_id"})
    former = await ctx.session.get_one(Client, account.client_id)
    before = msgspec.to_builtins(view_account(account))
    if former.reseller_id != client.reseller_id:
        await require_selling(ctx.session, client.reseller_id)
    logins = await ctx.registry.hand_over(ctx, account)
    async with within_caps(ctx, client.reseller_id):
        account.client_id, account.updated_at = client.id, ctx.now
        is_told = await _settle_package(ctx, account, client.reseller_id, params.package_id)
    if logins and not is_told:
        await converge_account(ctx, account, reason="logins of the former client")
    await _loosen(ctx, [account.id])
    await ctx.session.execute(delete(AccountMember).where(AccountMember.account_id == account.id))
    _note_account(ctx, account, before, former)
    return view_account(account)


async def preview_transfer(ctx: FleetContext, account_id: str, params: AccountTransfer) -> TransferPreview:
    """What `transfer_account` would do; run it as a dry run only.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("accounts", "write")
    account = await get_account(ctx.session, account_id)
    client = await require_reference("client_id", get_client(ctx.session, params.client_id))
    former = await ctx.session.get_one(Client, account.client_id)
    lost = await _list_lost(ctx, account, former, client)
    domains = await ctx.session.scalars(
        select(Domain.id).where(Domain.account_id == account.id, Domain.deleted_at.is_(None))
    )
    known = {
        "account_id": account.id,
        "client_id": client.id,
        "package_id": params.package_id or account.package_id,
        "is_between_resellers": former.reseller_id != client.reseller_id,
        "lost_access": lost,
        "domains": len(domains.all()),
        "logins": await ctx.registry.hand_over(ctx, account),
    }
    obstacles: tuple[Obstacle, ...] = ()
    try:
        await transfer_account(ctx, account_id, params)
    except FleetError as error:
        obstacles = (Obstacle(code=error.code, message=error.message, hint=error.hint),)
    ctx.job_ids.clear()  # no node is asked: that is what a dry run of the transfer itself is for
    return msgspec.convert({**known, "is_possible": not obstacles, "obstacles": obstacles}, TransferPreview)


async def transfer_client(ctx: FleetContext, client_id: str, params: ClientTransfer) -> ClientView:
    """Give a client with all its accounts to another reseller, or take it over.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is that reseller's already, a package is not sold there, or the reseller is suspended.
        QuotaExceededError: The new reseller may not promise so much.
    """
    ctx.actor.require_platform("clients", "write")
    client = await get_client(ctx.session, client_id)
    owner = await choose_owner(ctx.session, ctx.actor, params.reseller_id)
    if owner == client.reseller_id:
        raise ConflictError(f"the client {client.name!r} is sold to by them already", context={"field": "reseller_id"})
    former = client.reseller_id
    ids = await ctx.session.scalars(
        select(Account.id).where(Account.client_id == client.id, Account.deleted_at.is_(None)).order_by(Account.id)
    )
    accounts = [await lock_changeable(ctx.session, account_id) for account_id in ids.all()]
    counts = await count_accounts(ctx.session, [client.id])
    before = msgspec.to_builtins(view_client(client, counts.get(client.id, 0)))
    async with within_caps(ctx, owner):
        client.reseller_id, client.updated_at = owner, ctx.now
        for account in accounts:
            package = await ctx.session.get_one(Package, account.package_id)
            if params.package_id is None or not is_sold_to(package, owner):
                await _settle_package(ctx, account, owner, params.package_id)
    await _loosen(ctx, [account.id for account in accounts])
    view = view_client(client, counts.get(client.id, 0))
    after = msgspec.to_builtins(view)
    record(ctx, Change("client.transfer", f"client/{client.id}", client.name, before=before, after=after))
    if former is not None:  # theirs no more, so they are told in an entry of their own
        lost = {"client": client.name, "accounts": [account.name for account in accounts]}
        record(ctx, Change("reseller.lose_client", f"reseller/{former}", client.name, before=lost))
    return view


async def _loosen(ctx: FleetContext, account_ids: Sequence[str]) -> None:
    """What the suspension of the former reseller stopped is the new owner's to start: its end does not reach here."""
    await ctx.session.execute(delete(SuspendedAccount).where(SuspendedAccount.account_id.in_(account_ids)))


async def _settle_package(ctx: FleetContext, account: Account, reseller_id: str | None, package_id: str | None) -> bool:
    """Leave the account its package where that is sold, or give it another one; whether its node is told."""
    if package_id is None:
        statement = select(Package).where(Package.id == account.package_id).execution_options(**EVERYBODY)
        kept = (await ctx.session.scalars(statement)).one()
        if not is_sold_to(kept, reseller_id):
            raise ConflictError(
                f"the package {kept.name!r} of the account {account.name!r} is not sold there",
                code="package_not_sold",
                hint="Name another one with package_id.",
            )
        return False
    package = await require_reference("package_id", get_package(ctx.session, package_id))
    require_sold(package, reseller_id, field="package_id")
    if package.id == account.package_id:
        return False
    require_given_out(package, field="package_id")
    await require_fits(ctx, account, package)
    await ctx.registry.require_fits(ctx.session, account.id, rules_of(package))
    account.package_id, account.package_version_id = package.id, None
    await converge_account(ctx, account, reason=f"package {package.name}")
    return True


def _note_account(ctx: FleetContext, account: Account, before: dict[str, object], former: Client) -> None:
    """One entry for whose it is now, one for whose it was: neither is told who the other is."""
    target = f"account/{account.id}"
    after = msgspec.to_builtins(view_account(account))
    known = {name: value for name, value in before.items() if name != "client_id"}
    record(ctx, Change("account.transfer", target, account.name, before=known, after=after))
    lost = {"client_id": former.id, "package_id": before["package_id"], "name": account.name}
    record(ctx, Change("account.lose", target, account.name, before=lost))


async def _list_lost(ctx: FleetContext, account: Account, former: Client, client: Client) -> tuple[LostAccess, ...]:
    members = select(AccountMember.user_id).where(AccountMember.account_id == account.id)
    is_lost = User.id.in_(members) | ((User.client_id == former.id) & (User.role == "client"))
    if former.reseller_id is not None and former.reseller_id != client.reseller_id:
        is_lost = is_lost | (User.reseller_id == former.reseller_id)
    users: Sequence[User] = (await ctx.session.scalars(select(User).where(is_lost).order_by(User.username))).all()
    found = []
    for user in users:
        tokens = await ctx.session.scalars(
            select(ApiToken.id).where(ApiToken.user_id == user.id, ApiToken.revoked_at.is_(None))
        )
        found.append(LostAccess(user_id=user.id, username=user.username, role=user.role, tokens=len(tokens.all())))
    return tuple(found)
