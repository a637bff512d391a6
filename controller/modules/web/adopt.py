"""A hand edit of a site's file becomes what is wanted of the site."""

from __future__ import annotations

from sqlalchemy import select

from controller.core.accounts.models import AccountState
from controller.core.accounts.store import find_live_named
from controller.core.drift import refuse_adoption
from controller.core.operations import FleetContext
from controller.fleet.models import DriftFindingRow
from controller.modules.web.additions import merge, parse_additions
from controller.modules.web.models import Site
from controller.modules.web.service import update_site
from controller.modules.web.views import SiteUpdate
from shared.errors import InvalidInputError


async def adopt_site_drift(ctx: FleetContext, finding: DriftFindingRow) -> None:
    """Take lines that were only added to the site's server block into its extra directives.

    Raises:
        ForbiddenError
        ConflictError: The difference is another one, or the site is not what its node has and may not change now.
    """
    ctx.actor.require("sites", "write")
    site = await _find_site(ctx, finding)
    directives = merge(site.extra_directives, parse_additions(finding.diff))
    try:
        await update_site(ctx, site.id, SiteUpdate(extra_directives=directives))
    except InvalidInputError as error:
        raise refuse_adoption(error.message) from error


async def _find_site(ctx: FleetContext, finding: DriftFindingRow) -> Site:
    """The site of the finding, if its extra directives are in its file now."""
    account = await find_live_named(ctx.session, finding.subject.partition("/")[2])
    if account is None or account.node_id != finding.node_id:
        raise refuse_adoption(f"{finding.subject} does not belong to this node any more")
    if account.state is AccountState.SUSPENDED:
        raise refuse_adoption("the account is suspended, and a suspended site has no extra directives")
    domain = finding.key.partition("/")[2]
    statement = select(Site).where(Site.account_id == account.id, Site.domain == domain, Site.deleted_at.is_(None))
    site = (await ctx.session.scalars(statement)).first()
    if site is None:
        raise refuse_adoption(f"the account has no site {domain} any more")
    if site.parked_at is None and account.observed_generation < site.included_generation:
        raise refuse_adoption("a change of this site is on its way to the node, and brings the file back")
    return site
