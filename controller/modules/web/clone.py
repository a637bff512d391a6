"""The sites of one account under other names for another: settings, never files."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.domains.service import claim_domain
from controller.core.limits.check import require_room
from controller.core.operations import FleetContext
from controller.modules.web import store
from controller.modules.web.models import Site
from controller.modules.web.service import require_allowed
from controller.modules.web.values import SiteValues, set_values, values_of
from shared.types.names import DomainName

Renamed = Mapping[DomainName, DomainName]


async def clone_sites(ctx: FleetContext, source: Account, account: Account, renamed: Renamed) -> frozenset[str]:
    """Give the account those sites of the other one whose domain is renamed; the caller converges it.

    An alias gets the name that is said for it, or else, below the site's domain, the same place below the new one;
    any other alias stays with its owner.

    Returns:
        Names that were renamed by this.

    Raises:
        ForbiddenError, ConflictError, QuotaExceededError: As for a new site.
    """
    used: set[str] = set()
    for site in await store.live_sites(ctx.session, source.id):
        new = renamed.get(DomainName(site.domain))
        if new is None or site.deleting_at is not None:
            continue
        await _clone_site(ctx, site, account, new, renamed)
        used |= {site.domain, *site.aliases}
    return frozenset(used)


async def _clone_site(ctx: FleetContext, site: Site, account: Account, domain: DomainName, renamed: Renamed) -> None:
    old = values_of(site)
    aliases = (_rename(alias, DomainName(site.domain), renamed) for alias in old.aliases)
    kept = tuple(dict.fromkeys(alias for alias in aliases if alias is not None and alias != domain))
    values: SiteValues = msgspec.structs.replace(old, aliases=kept)
    await require_room(ctx, account, "sites")
    await require_allowed(ctx, account, values, before=None, domain=domain)
    await store.require_unserved(ctx.session, account.id, (domain, *values.aliases), but_for="")
    for name in (domain, *values.aliases):
        await claim_domain(ctx, name, account.id, is_automatic=True)
    copy = Site(account_id=account.id, domain=domain, created_at=ctx.now, updated_at=ctx.now)
    set_values(copy, values)
    copy.php_settings = dict(site.php_settings)
    copy.included_generation = account.desired_generation + 1
    ctx.session.add(copy)
    await ctx.session.flush()
    after = msgspec.to_builtins(store.view_site(copy, account))
    record(ctx, Change("site.create", f"site/{copy.id}", copy.domain, after=after))


def _rename(alias: DomainName, domain: DomainName, renamed: Renamed) -> DomainName | None:
    if alias in renamed:
        return renamed[alias]
    if alias.endswith(f".{domain}"):
        return DomainName(alias.removesuffix(domain) + renamed[domain])
    return None
