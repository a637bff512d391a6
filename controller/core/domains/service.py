"""Use cases of domains."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from controller.core.accounts.store import lock_changeable
from controller.core.audit.chain import record
from controller.core.context import Change, OpContext
from controller.core.domains import store
from controller.core.domains.limits import require_room_for_name
from controller.core.domains.models import Domain
from controller.core.domains.names import parse_host_name
from controller.core.domains.views import DomainCreate, DomainPage, DomainView
from controller.core.fields import require_id_field, require_reference
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from shared.errors import ConflictError
from shared.types.names import DomainName


async def list_domains(ctx: OpContext, page: PageRequest, *, account_id: str | None = None) -> DomainPage:
    """Newest first; of one account or of all.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("domains", "read")
    statement = select(Domain).where(Domain.deleted_at.is_(None))
    if account_id:
        statement = statement.where(Domain.account_id == require_id_field("account_id", account_id))
    condition = contains((Domain.name,), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    return DomainPage(items=tuple(store.view_domain(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_domain(ctx: OpContext, domain_id: str) -> DomainView:
    """One domain.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("domains", "read")
    return store.view_domain(await store.get_domain(ctx.session, domain_id))


async def create_domain(ctx: FleetContext, params: DomainCreate) -> DomainView:
    """Claim a name for an account. Touches no node: it is served once a site uses it.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: The name, or one above it, is claimed already; or the account is being deleted.
        QuotaExceededError: The package allows no more names.
    """
    ctx.actor.require("domains", "write")
    name = parse_host_name("name", params.name)
    account = await require_reference("account_id", lock_changeable(ctx.session, params.account_id))
    existing = await store.require_claimable(ctx.session, name, account.id)
    if existing is not None and not existing.is_automatic:
        raise ConflictError(f"the account has the domain {name} already", code="domain_taken")
    return store.view_domain(await claim_domain(ctx, name, account.id, is_automatic=False))


async def claim_domain(ctx: FleetContext, name: DomainName, account_id: str, *, is_automatic: bool) -> Domain:
    """Make sure that the account has the name, and note it in the audit log when it did not.

    Args:
        ctx: The change that it belongs to.
        name: In its canonical form.
        account_id: Who shall have it.
        is_automatic: It came with a site and may go with it. Claiming by hand makes it stay.

    Raises:
        ConflictError: The name, or one above it, belongs to another account.
        QuotaExceededError: The package allows no more names.
    """
    domain = await store.require_claimable(ctx.session, name, account_id)
    if domain is not None and (is_automatic or not domain.is_automatic):
        return domain
    if domain is None:
        await require_room_for_name(ctx, account_id, name)
        domain = Domain(name=name, account_id=account_id, created_at=ctx.now)
        ctx.session.add(domain)
    domain.is_automatic, domain.updated_at = is_automatic, ctx.now
    await ctx.session.flush()
    after = msgspec.to_builtins(store.view_domain(domain))
    record(ctx, Change("domain.create", f"domain/{domain.id}", domain.name, after=after))
    return domain


async def delete_domain(ctx: FleetContext, domain_id: str) -> None:
    """Release a name that nothing uses.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: A site uses it, or its node still serves it.
    """
    ctx.actor.require("domains", "write")
    domain = await store.get_domain(ctx.session, domain_id)
    if domain.name in await ctx.registry.used_domains(ctx.session, domain.account_id):
        raise ConflictError(
            f"{domain.name} is in use by a site of its account",
            hint="Take it out of the site first, and wait until the node has done so.",
        )
    before = msgspec.to_builtins(store.view_domain(domain))
    domain.deleted_at = domain.updated_at = ctx.now
    await ctx.session.flush()
    record(ctx, Change("domain.delete", f"domain/{domain.id}", domain.name, before=before))
