"""Queries about sites."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.domains.names import render_host_name
from controller.core.fields import not_found, require_id
from controller.core.limits.registry import FlagKind, LimitKind
from controller.modules.web.models import Site
from controller.modules.web.values import names_of
from controller.modules.web.views import SiteView
from shared.errors import ConflictError


async def get_site(session: AsyncSession, site_id: str) -> Site:
    """The live site with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(Site, require_id("site", site_id))
    if row is None or row.deleted_at is not None:
        raise not_found("site", site_id)
    return row


async def live_sites(session: AsyncSession, account_id: str) -> list[Site]:
    """All of an account, in the order of their domains; those on their way out included."""
    statement = select(Site).where(Site.account_id == account_id, Site.deleted_at.is_(None)).order_by(Site.domain)
    return list(await session.scalars(statement))


async def count_sites(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
    """Account id to the number of its sites; those on their way out do not count."""
    statement = (
        select(Site.account_id, func.count())
        .where(Site.account_id.in_(account_ids), Site.deleted_at.is_(None), Site.deleting_at.is_(None))
        .group_by(Site.account_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


SITES: Final = LimitKind(key="sites", title="Sites", unit="sites", count=count_sites)
"""What the module declares to the registry of limits."""


CUSTOM_PHP: Final = FlagKind(key="custom_php", title="PHP settings of their own", is_obeyed=True, is_told_to_nodes=True)
"""The feature that lets sites choose PHP settings (controller.modules.web.php_settings)."""


async def require_unserved(session: AsyncSession, account_id: str, names: Collection[str], *, but_for: str) -> None:
    """Pass when no other site of the account has one of these names.

    Raises:
        ConflictError: One has.
    """
    for site in await live_sites(session, account_id):
        shared = sorted(names_of(site) & set(names)) if site.id != but_for else []
        if shared and site.deleting_at is not None:
            raise ConflictError(
                f"{shared[0]} belongs to the site {site.domain}, which is being deleted",
                hint="Try again when its job has ended.",
            )
        if shared:
            raise ConflictError(f"{shared[0]} is served by the site {site.domain} already", code="domain_taken")


def view_site(site: Site, account: Account) -> SiteView:
    """For the API."""
    return SiteView(
        id=site.id,
        account_id=site.account_id,
        domain=site.domain,
        display_name=render_host_name(site.domain),
        aliases=tuple(site.aliases),
        document_root=site.document_root,
        php_version=site.php_version,
        extra_directives=site.extra_directives,
        state=_state_of(site, account),
        generation=site.included_generation,
        parked_at=site.parked_at,
        parked_code=site.parked_code,
        parked_message=site.parked_message,
        has_last_good=site.applied is not None,
        created_at=site.created_at,
        updated_at=site.updated_at,
    )


def _state_of(site: Site, account: Account) -> str:
    if site.deleting_at is not None:
        return "deleting"
    if site.parked_at is not None:
        return "parked"
    return "active" if account.observed_generation >= site.included_generation else "pending"
