"""One account after the model of another: its terms and settings, never its files."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from controller.core.accounts import store
from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.record import record_account
from controller.core.accounts.service import add_account
from controller.core.accounts.views import AccountClone, AccountCreate, AccountView
from controller.core.domains.models import Domain
from controller.core.domains.names import parse_host_name
from controller.core.domains.service import claim_domain
from controller.core.operations import FleetContext
from shared.errors import InvalidInputError
from shared.types.names import DomainName

Renamed = Mapping[DomainName, DomainName]


async def clone_account(ctx: FleetContext, account_id: str, params: AccountClone) -> AccountView:
    """Make an account with the package, labels and note of another, and with the sites whose domains are renamed.

    All of it or nothing, and one job for the node of the new account.

    Raises:
        ForbiddenError, NotFoundError
        InvalidInputError: Also for a domain that the other account does not have.
        ConflictError: The name or a domain is taken, or no node takes the account.
        QuotaExceededError: The package does not allow as many sites or names.
    """
    ctx.actor.require("accounts", "write")
    source = await store.lock_account(ctx.session, account_id)
    store.require_changeable(source)
    renamed = await _require_renamed(ctx, source, params.domains)
    wanted = AccountCreate(
        name=params.name,
        client_id=params.client_id or source.client_id,
        package_id=source.package_id,
        node_id=params.node_id,
        labels=source.labels,
    )
    account = await add_account(ctx, wanted)
    account.package_version_id, account.note = source.package_version_id, source.note
    await ctx.session.flush()
    served = await ctx.registry.clone(ctx, source, account, renamed)
    for old, new in renamed.items():
        if old not in served:
            await claim_domain(ctx, new, account.id, is_automatic=False)
    await converge_account(ctx, account, reason=f"clone of {source.name}")
    return record_account(ctx, "account.clone", account, before=None)


async def _require_renamed(ctx: FleetContext, source: Account, domains: Mapping[str, str]) -> Renamed:
    renamed = {parse_host_name("domains", old): parse_host_name(f"domains.{old}", new) for old, new in domains.items()}
    if len(set(renamed.values())) != len(domains):
        raise InvalidInputError("two domains cannot get one name", field="domains")
    statement = select(Domain.name).where(Domain.account_id == source.id, Domain.deleted_at.is_(None))
    known = set(await ctx.session.scalars(statement))
    for old in renamed:
        if old not in known:
            raise InvalidInputError(f"the account {source.name!r} has no domain {old}", field="domains")
    return renamed
