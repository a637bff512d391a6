"""PHP settings that a site has chosen for itself: stored whatever the package says, and obeyed while it allows."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import available_timezones

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.limits.check import has_feature, require_feature
from controller.core.operations import FleetContext
from controller.core.packages.terms import Terms, terms_of
from controller.modules.web import store
from controller.modules.web.models import Site
from controller.modules.web.service import get_changeable
from controller.modules.web.store import CUSTOM_PHP
from controller.modules.web.values import settings_of
from shared.errors import InvalidInputError, QuotaExceededError
from shared.specs.php_settings import RANGES, PhpSettings


def _between(name: str, description: str) -> Meta:
    low, high = RANGES[name]
    return Meta(ge=low, le=high, description=description)


_MEMORY = _between("memory_limit_bytes", "memory_limit, within the package's php_memory_bytes.")
_UPLOAD = _between("upload_max_filesize_bytes", "upload_max_filesize, within the package's upload_max_bytes.")
_POST = _between("post_max_size_bytes", "post_max_size, at most 1 MiB above the package's upload_max_bytes.")
_EXECUTION = _between("max_execution_time_seconds", "max_execution_time: of processor time.")
_INPUT = _between("max_input_time_seconds", "max_input_time.")
_VARS = _between("max_input_vars", "max_input_vars.")
_UPLOADS = _between("max_file_uploads", "max_file_uploads.")
_SESSION = _between("session_gc_maxlifetime_seconds", "session.gc_maxlifetime.")
_COOKIE = _between("session_cookie_lifetime_seconds", "session.cookie_lifetime; 0: until the browser is closed.")
_REVALIDATE = _between("opcache_revalidate_freq_seconds", "opcache.revalidate_freq.")
_ZONE = Meta(max_length=60, description="date.timezone.", examples=["Europe/Berlin"])


class PhpSettingsUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to change; what is left out stays. Null: as the node has it. True and false are PHP's On and Off."""

    memory_limit_bytes: Annotated[int, _MEMORY] | UnsetType | None = UNSET
    upload_max_filesize_bytes: Annotated[int, _UPLOAD] | UnsetType | None = UNSET
    post_max_size_bytes: Annotated[int, _POST] | UnsetType | None = UNSET
    max_execution_time_seconds: Annotated[int, _EXECUTION] | UnsetType | None = UNSET
    max_input_time_seconds: Annotated[int, _INPUT] | UnsetType | None = UNSET
    max_input_vars: Annotated[int, _VARS] | UnsetType | None = UNSET
    max_file_uploads: Annotated[int, _UPLOADS] | UnsetType | None = UNSET
    date_timezone: Annotated[str, _ZONE] | UnsetType | None = UNSET
    display_errors: bool | UnsetType | None = UNSET
    log_errors: bool | UnsetType | None = UNSET
    short_open_tag: bool | UnsetType | None = UNSET
    allow_url_fopen: bool | UnsetType | None = UNSET
    zlib_output_compression: bool | UnsetType | None = UNSET
    session_gc_maxlifetime_seconds: Annotated[int, _SESSION] | UnsetType | None = UNSET
    session_cookie_lifetime_seconds: Annotated[int, _COOKIE] | UnsetType | None = UNSET
    session_cookie_secure: bool | UnsetType | None = UNSET
    session_cookie_httponly: bool | UnsetType | None = UNSET
    session_cookie_samesite: Literal["Lax", "Strict", "None"] | UnsetType | None = UNSET
    opcache_enable: bool | UnsetType | None = UNSET
    opcache_validate_timestamps: bool | UnsetType | None = UNSET
    opcache_revalidate_freq_seconds: Annotated[int, _REVALIDATE] | UnsetType | None = UNSET


class PhpSettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """What a site has chosen, and what of it the node is told. What is left out is as the node has it."""

    site_id: str
    account_id: str
    domain: str
    php_version: str | None
    is_allowed: Annotated[bool, Meta(description="Whether the account's package has the feature custom_php.")]
    chosen: PhpSettings
    effective: Annotated[
        PhpSettings, Meta(description="What counts: nothing without the feature, and never more than the package says.")
    ]


async def show_php_settings(ctx: FleetContext, site_id: str) -> PhpSettingsView:
    """What one site has chosen.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("sites", "read")
    site = await store.get_site(ctx.session, site_id)
    return await _view(ctx, await ctx.session.get_one(Account, site.account_id), site)


async def update_php_settings(ctx: FleetContext, site_id: str, params: PhpSettingsUpdate) -> PhpSettingsView:
    """Change what a site has chosen; the same again changes nothing.

    Raises:
        ForbiddenError: Not permitted, or the package does not have the feature (`feature_disabled`).
        InvalidInputError, NotFoundError
        QuotaExceededError: The package does not allow so much.
        ConflictError: The site or its account is being deleted.
    """
    ctx.actor.require("sites", "write")
    site, account = await get_changeable(ctx, site_id)
    await require_feature(ctx, account, CUSTOM_PHP.key)
    before = await _view(ctx, account, site)
    given = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not UNSET}
    settings = PhpSettings(**{**msgspec.structs.asdict(before.chosen), **given})
    _require_time_zone(given.get("date_timezone"))
    if settings == before.chosen:
        return before
    _require_allowed(settings, frozenset(given), await terms_of(ctx.session, account))
    site.php_settings = msgspec.to_builtins(settings)
    site.updated_at = ctx.now
    if site.parked_at is None:  # a parked one stays parked: this is not what its node refused
        site.included_generation = account.desired_generation + 1
    await ctx.session.flush()
    await converge_account(ctx, account, reason=f"PHP settings of {site.domain}")
    after = await _view(ctx, account, site)
    change = Change(
        action="site.set_php_settings",
        target=f"site/{site.id}",
        target_name=site.domain,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after


async def _view(ctx: FleetContext, account: Account, site: Site) -> PhpSettingsView:
    chosen = settings_of(site)
    is_allowed = await has_feature(ctx, account, CUSTOM_PHP.key)
    terms = await terms_of(ctx.session, account)
    return PhpSettingsView(
        site_id=site.id,
        account_id=site.account_id,
        domain=site.domain,
        php_version=site.php_version,
        is_allowed=is_allowed,
        chosen=chosen,
        effective=_within(chosen, terms) if is_allowed and site.php_version is not None else PhpSettings(),
    )


def _within(settings: PhpSettings, terms: Terms) -> PhpSettings:
    return settings.within(memory_limit_bytes=terms.php_memory_bytes, upload_max_bytes=terms.upload_max_bytes)


def _require_allowed(settings: PhpSettings, names: frozenset[str], terms: Terms) -> None:
    """Only what is asked for now is refused: what was chosen under a larger package waits for it."""
    allowed = _within(settings, terms)
    for name in sorted(names):
        if getattr(settings, name) != getattr(allowed, name):
            raise QuotaExceededError(
                f"the package {terms.name!r} allows {getattr(allowed, name)} bytes of {name}",
                hint="Choose less, or give the account a larger package.",
                context={"field": name, "allowed": getattr(allowed, name)},
            )


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _require_time_zone(name: str | None) -> None:
    """Without a database of its own the controller knows the form only, and PHP itself warns of an unknown zone."""
    if name is not None and _time_zones() and name not in _time_zones():
        raise InvalidInputError(f"there is no time zone {name[:40]!r}", field="date_timezone")
