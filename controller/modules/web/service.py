"""Use cases of sites. Each change is a new generation of the site's account and a job for its node."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.store import lock_changeable
from controller.core.audit.chain import record
from controller.core.context import Change, OpContext, Role
from controller.core.domains.names import parse_host_name
from controller.core.domains.service import claim_domain
from controller.core.fields import not_found, require_id_field, require_reference
from controller.core.limits.check import require_room
from controller.core.operations import FleetContext
from controller.core.packages.terms import rules_of, terms_of
from controller.core.paging import PageRequest, contains, fetch_page
from controller.modules.web import store
from controller.modules.web.manifest import require_php_allowed
from controller.modules.web.models import Site
from controller.modules.web.values import SiteValues, applied_of, parse_values, set_values, values_of
from controller.modules.web.views import SiteCreate, SitePage, SiteUpdate, SiteView
from shared.errors import ConflictError, ForbiddenError, InvalidInputError
from shared.types.names import DomainName


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFilter:
    """Which sites are wanted; None: all."""

    account_id: str | None = None
    is_parked: bool | None = None


async def list_sites(ctx: OpContext, page: PageRequest, wanted: SiteFilter) -> SitePage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("sites", "read")
    statement = select(Site).where(Site.deleted_at.is_(None))
    if wanted.account_id:
        statement = statement.where(Site.account_id == require_id_field("account_id", wanted.account_id))
    if wanted.is_parked is not None:
        statement = statement.where(Site.parked_at.is_not(None) if wanted.is_parked else Site.parked_at.is_(None))
    condition = contains((Site.domain,), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    owners = select(Account).where(Account.id.in_({site.account_id for site in found.rows}))
    accounts = {account.id: account for account in await ctx.session.scalars(owners)}
    items = tuple(store.view_site(site, accounts[site.account_id]) for site in found.rows)
    return SitePage(items=items, next_cursor=found.next_cursor)


async def show_site(ctx: OpContext, site_id: str) -> SiteView:
    """One site.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("sites", "read")
    site = await store.get_site(ctx.session, site_id)
    return store.view_site(site, await ctx.session.get_one(Account, site.account_id))


async def create_site(ctx: FleetContext, params: SiteCreate) -> SiteView:
    """Add a site to an account, and claim its host names where they are free.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: A name is hosted already, or the account is being deleted.
        QuotaExceededError: The package does not allow another site, or the PHP version.
    """
    ctx.actor.require("sites", "write")
    domain = parse_host_name("domain", params.domain)
    values = parse_values(
        domain,
        aliases=params.aliases,
        document_root=params.document_root,
        php_version=params.php_version,
        extra_directives=params.extra_directives,
    )
    account = await require_reference("account_id", lock_changeable(ctx.session, params.account_id))
    await require_room(ctx, account, "sites")
    site = Site(account_id=account.id, domain=domain, created_at=ctx.now)
    await require_allowed(ctx, account, values, before=None, domain=domain)
    await store.require_unserved(ctx.session, account.id, (domain, *values.aliases), but_for="")
    for name in (domain, *values.aliases):
        await claim_domain(ctx, name, account.id, is_automatic=True)
    set_values(site, values)
    ctx.session.add(site)
    return await _include(ctx, account, site, action="site.create", before=None)


async def update_site(ctx: FleetContext, site_id: str, params: SiteUpdate) -> SiteView:
    """Change a site; a parked one is tried again with the change. The same values again change nothing.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: A name is hosted already, or the site or its account is being deleted.
        QuotaExceededError: The package does not allow the PHP version.
    """
    ctx.actor.require("sites", "write")
    site, account = await get_changeable(ctx, site_id)
    old = values_of(site)
    given = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not msgspec.UNSET}
    values = parse_values(DomainName(site.domain), **{**msgspec.structs.asdict(old), **given})
    before = store.view_site(site, account)
    if values == old and site.parked_at is None:
        return before
    await require_allowed(ctx, account, values, before=old, domain=site.domain)
    await store.require_unserved(ctx.session, account.id, values.aliases, but_for=site.id)
    for name in values.aliases:
        await claim_domain(ctx, name, account.id, is_automatic=True)
    set_values(site, values)
    return await _include(ctx, account, site, action="site.update", before=before)


async def delete_site(ctx: FleetContext, site_id: str) -> SiteView:
    """Take the site away; its names are free once the node has done it.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: The site or its account is being deleted already.
    """
    ctx.actor.require("sites", "write")
    site, account = await get_changeable(ctx, site_id)
    before = store.view_site(site, account)
    site.deleting_at = ctx.now
    return await _include(ctx, account, site, action="site.delete", before=before)


async def retry_site(ctx: FleetContext, site_id: str) -> SiteView:
    """Try a parked site again as it is wanted.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not parked, or its account is being deleted.
    """
    ctx.actor.require("sites", "write")
    site, account = await _get_parked(ctx, site_id)
    return await _include(ctx, account, site, action="site.retry", before=store.view_site(site, account))


async def discard_site_change(ctx: FleetContext, site_id: str) -> SiteView:
    """Give up the change for which a site was parked: what the node serves is what is wanted again.

    A site that the node never took is deleted.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not parked, or its account is being deleted.
    """
    ctx.actor.require("sites", "write")
    site, account = await _get_parked(ctx, site_id)
    before = store.view_site(site, account)
    applied = applied_of(site)
    if applied is None:
        site.deleting_at = site.deleting_at or ctx.now
    else:
        set_values(site, applied)
        site.deleting_at = None
    return await _include(ctx, account, site, action="site.discard", before=before)


async def get_changeable(ctx: FleetContext, site_id: str) -> tuple[Site, Account]:
    """The site and its account, locked.

    Raises:
        NotFoundError
        ConflictError: One of them is being deleted.
    """
    site, account = await _lock_site(ctx, site_id)
    if site.deleting_at is not None:
        raise ConflictError(f"the site {site.domain} is being deleted")
    return site, account


async def _get_parked(ctx: FleetContext, site_id: str) -> tuple[Site, Account]:
    site, account = await _lock_site(ctx, site_id)
    if site.parked_at is None:
        raise ConflictError(f"the site {site.domain} is not parked")
    return site, account


async def _lock_site(ctx: FleetContext, site_id: str) -> tuple[Site, Account]:
    """The account's lock first, then what a result of its node may have written into the site meanwhile."""
    site = await store.get_site(ctx.session, site_id)
    account = await lock_changeable(ctx.session, site.account_id)
    await ctx.session.refresh(site)
    if site.deleted_at is not None:
        raise not_found("site", site_id)
    return site, account


async def require_allowed(
    ctx: FleetContext, account: Account, values: SiteValues, *, before: SiteValues | None, domain: str
) -> None:
    """What depends on who asks, on the package and on the node; only for values that change."""
    old = before or SiteValues()
    if values.extra_directives != old.extra_directives and ctx.actor.role not in (Role.ROOT, Role.ADMIN):
        raise ForbiddenError("only administrators may change a site's extra directives")
    if values.php_version is None or values.php_version == old.php_version:
        return
    require_php_allowed(rules_of(await terms_of(ctx.session, account)), values.php_version, domain)
    known = await ctx.fleet.php_versions(ctx.session, account.home_node_id)
    if known is not None and values.php_version not in known:
        has = ", ".join(sorted(known)) or "no PHP"
        raise InvalidInputError(f"the account's node has {has}, not PHP {values.php_version}", field="php_version")


async def _include(
    ctx: FleetContext, account: Account, site: Site, *, action: str, before: SiteView | None
) -> SiteView:
    """Converge the account with the site as it is wanted now, and note the change."""
    site.parked_at = site.parked_code = site.parked_message = None
    site.included_generation = account.desired_generation + 1
    site.updated_at = ctx.now
    await ctx.session.flush()
    await converge_account(ctx, account, reason=f"{action.partition('.')[2]} site {site.domain}")
    after = store.view_site(site, account)
    change = Change(
        action=action,
        target=f"site/{site.id}",
        target_name=site.domain,
        before=msgspec.to_builtins(before) if before is not None else None,
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after
