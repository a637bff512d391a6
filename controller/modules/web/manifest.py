"""From sites to specs, and from a node's answer back to sites."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.observe import Observation
from controller.core.domains.store import free_unused_domains
from controller.core.manifest import AccountFacts, Contribution, PackageRules, RuntimeChoice, RuntimeNeed
from controller.modules.web.models import Site
from controller.modules.web.store import CUSTOM_PHP, live_sites
from controller.modules.web.values import applied_of, freeze, names_of, settings_of, values_of, values_of_spec
from shared.errors import QuotaExceededError
from shared.protocol.job import ErrorBody, ResourceOutcome
from shared.specs.php_pool import php_socket_path
from shared.specs.site import SiteSpec
from shared.types.names import DomainName, ResourceKey

PHP: Final = "php"
"""The kind of runtime that a site may need."""


class SiteContributor:
    """Adds an account's sites to its manifest."""

    async def contribute(self, session: AsyncSession, account: AccountFacts) -> Contribution:
        """One spec for each site, one held key for each parked one."""
        sites = [site for site in await live_sites(session, account.id) if site.deleting_at is None]
        parked = [site for site in sites if site.parked_at is not None]
        included = [site for site in sites if site.parked_at is None]
        # A parked site goes on serving what the node has, and needs its PHP as well.
        versions = {site.domain: site.php_version for site in included}
        versions |= {site.domain: applied.php_version for site in parked if (applied := applied_of(site)) is not None}
        needs = {domain: RuntimeNeed(PHP, version) for domain, version in versions.items() if version is not None}
        choices = (
            RuntimeChoice(needs[site.domain], DomainName(site.domain), settings_of(site))
            for site in sites
            if site.domain in needs and site.php_settings and CUSTOM_PHP.key in account.features
        )
        return Contribution(
            specs=tuple(_spec_of(site, account) for site in included),
            held=tuple(ResourceKey(site.key) for site in parked),
            needs=frozenset(needs.values()),
            choices=tuple(choices),
        )

    async def used_domains(self, session: AsyncSession, account_id: str) -> frozenset[str]:
        """Names that a site has, and those that the node still serves for it."""
        empty: frozenset[str] = frozenset()
        return empty.union(*(names_of(site) for site in await live_sites(session, account_id)))

    async def require_fits(self, session: AsyncSession, account_id: str, rules: PackageRules) -> None:
        """Pass when the sites are within the rules.

        Raises:
            QuotaExceededError: One has a PHP version that is not allowed.
        """
        for site in await live_sites(session, account_id):
            require_php_allowed(rules, site.php_version, site.domain)

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        """The account is gone, and its sites with it."""
        await forget_sites(session, account_id, now)


class SiteObserver:
    """Takes in what became of an account's sites."""

    prefix: Final = "site/"

    async def observe(self, session: AsyncSession, seen: Observation) -> None:
        """Park what failed, remember what is served now, and let go of what is gone."""
        for site in await live_sites(session, seen.account_id):
            report = seen.reports.get(ResourceKey(site.key))
            # An older generation says nothing about a site that was changed since.
            is_current = seen.generation >= site.included_generation
            if report is not None and report.outcome is ResourceOutcome.PARKED:
                if is_current:
                    _park(site, report.error, report.note, seen.now)
            elif seen.is_applied:
                _note_applied(site, seen, is_current=is_current)
        await session.flush()
        if seen.is_applied:
            used = await SiteContributor().used_domains(session, seen.account_id)
            await free_unused_domains(session, seen.account_id, used, seen.now)

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        """The account is gone, and its sites with it."""
        await forget_sites(session, account_id, now)


async def forget_sites(session: AsyncSession, account_id: str, now: datetime) -> None:
    """Mark all sites of an account as deleted."""
    statement = update(Site).where(Site.account_id == account_id, Site.deleted_at.is_(None))
    await session.execute(statement.values(deleted_at=now, updated_at=now))


def require_php_allowed(rules: PackageRules, version: str | None, domain: str) -> None:
    """Pass when the package allows the version.

    Raises:
        QuotaExceededError: It does not.
    """
    if version is None or rules.php_versions is None or version in rules.php_versions:
        return
    allowed = ", ".join(rules.php_versions) or "no PHP"
    raise QuotaExceededError(
        f"the package {rules.name!r} does not allow PHP {version} for {domain}; it allows {allowed}",
        context={"field": "php_version"},
    )


def _spec_of(site: Site, account: AccountFacts) -> SiteSpec:
    values = values_of(site)
    socket = php_socket_path(values.php_version, account.uid) if values.php_version is not None else None
    return SiteSpec(
        account=account.name,
        uid=account.uid,
        domain=DomainName(site.domain),
        aliases=values.aliases,
        document_root=values.document_root,
        php_socket_path=socket,
        upload_max_bytes=account.runtime.upload_max_bytes,
        extra_directives=values.extra_directives,
    )


def _park(site: Site, error: ErrorBody | None, note: str, now: datetime) -> None:
    site.parked_at = now
    site.parked_code = (error.code if error else "apply_failed")[:64]
    site.parked_message = error.message if error else note


def _note_applied(site: Site, seen: Observation, *, is_current: bool) -> None:
    spec = seen.specs.get(ResourceKey(site.key))
    if isinstance(spec, SiteSpec):
        site.applied, site.applied_generation = freeze(values_of_spec(spec)), seen.generation
        if is_current:
            site.parked_at = site.parked_code = site.parked_message = None
    elif site.deleting_at is not None and is_current:
        site.deleted_at = site.updated_at = seen.now
