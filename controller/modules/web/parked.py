"""The way out for a parked site."""

from __future__ import annotations

from sqlalchemy import select

from controller.core.accounts.service import converge_again
from controller.core.operations import FleetContext
from controller.core.parked.models import ParkedResource
from controller.modules.web.models import Site
from controller.modules.web.service import discard_site_change, retry_site
from shared.errors import ConflictError


class SiteKind:
    """Satisfies controller.core.parked.service.ParkedKind."""

    async def retry(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Try the site again; one that waited for something else comes with its account."""
        site = await _get_site(ctx, row)
        if site.parked_at is None:
            await converge_again(ctx, site.account_id)
            return
        await retry_site(ctx, site.id)

    async def discard(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Want again what the node serves."""
        await discard_site_change(ctx, (await _get_site(ctx, row)).id)


async def _get_site(ctx: FleetContext, row: ParkedResource) -> Site:
    domain = row.key.partition("/")[2]
    statement = select(Site).where(Site.account_id == row.account_id, Site.domain == domain, Site.deleted_at.is_(None))
    site = (await ctx.session.scalars(statement)).first()
    if site is None:
        raise ConflictError(f"the site {domain} is gone", hint="Converge its account again.")
    return site
