"""Use cases: what a reseller's clients see instead of ours, by the name of the panel's host or by who asks."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.models import User
from controller.core.clients.models import Client
from controller.core.context import Actor, Change, OpContext, ReachKind
from controller.core.fields import parse_field, require_email, require_text
from controller.core.resellers.contrast import READABLE, contrast_of
from controller.core.resellers.logo import parse_logo
from controller.core.resellers.models import ResellerBranding
from controller.core.resellers.store import get_reseller
from controller.core.tenancy.models import Reseller
from shared.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from shared.types.names import parse_domain_name

OUR_NAME: Final = "WCP360"
_COLOURS: Final = {"background_colour": "#ffffff", "text_colour": "#1a1a1a", "accent_colour": "#0b5cad"}
"""Ours, where a reseller says nothing."""

Colour = Annotated[str, Meta(pattern="^#[0-9a-f]{6}$", examples=["#0b5cad"])]
Host = Annotated[str, Meta(max_length=253, examples=["panel.shop.example"])]


class BrandingUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a reseller shows; what is left out is ours, but for the logo, which stays."""

    name: Annotated[str, Meta(max_length=120, description="Shown instead of ours; empty: the reseller's own.")] = ""
    background_colour: Colour | None = None
    text_colour: Colour | None = None
    accent_colour: Annotated[Colour | None, Meta(description="Of links and buttons.")] = None
    support_email: Annotated[str, Meta(max_length=254)] = ""
    support_url: Annotated[
        str, Meta(max_length=300, description="https only.", examples=["https://shop.example/help"])
    ] = ""
    host: Annotated[Host | None, Meta(description="Name of the panel's host; only administrators change it.")] = None
    logo: Annotated[
        Annotated[str, Meta(max_length=90_000)] | UnsetType | None,
        Meta(description="PNG or JPEG in base64, up to 64 KiB and 2000 pixels each way. Null takes it away."),
    ] = UNSET


class BrandingView(msgspec.Struct, frozen=True, kw_only=True):
    """What people see of who sells to them."""

    name: str
    background_colour: str
    text_colour: str
    accent_colour: str
    support_email: str
    support_url: str
    host: str | None
    logo_sha256: Annotated[str | None, Meta(description="Of the picture at /branding/logo; null: there is none.")]


async def show_reseller_branding(ctx: OpContext, reseller_id: str) -> BrandingView:
    """What one reseller's clients see.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("branding", "read")
    reseller = await get_reseller(ctx.session, reseller_id)
    return _view(reseller, await _find(ctx.session, reseller.id))


async def show_reseller_logo(ctx: OpContext, reseller_id: str) -> tuple[bytes, str]:
    """The picture that one reseller's clients see, and its media type.

    Raises:
        ForbiddenError
        NotFoundError: There is no such reseller, or no logo.
    """
    ctx.actor.require("branding", "read")
    return _logo_of(await _find(ctx.session, (await get_reseller(ctx.session, reseller_id)).id))


async def set_branding(ctx: OpContext, reseller_id: str, params: BrandingUpdate) -> BrandingView:
    """Say what a reseller's clients see.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Another reseller has the host.
    """
    ctx.actor.require("branding", "write")
    reseller = await get_reseller(ctx.session, reseller_id)
    found = await _find(ctx.session, reseller.id)
    before = _view(reseller, found)
    row = found or ResellerBranding(reseller_id=reseller.id)
    await _take_host(ctx, row, params.host)
    row.name = require_text("name", params.name, high=120)
    row.support_email = require_email("support_email", params.support_email) if params.support_email else ""
    row.support_url = _parse_url(params.support_url)
    colours = {name: getattr(params, name) for name in _COLOURS}
    _require_readable({name: value or _COLOURS[name] for name, value in colours.items()})
    for name, value in colours.items():
        setattr(row, name, value)
    if params.logo is None:
        row.logo, row.logo_type = None, ""
    elif params.logo is not UNSET:
        row.logo, row.logo_type = parse_logo("logo", params.logo)
    after = _view(reseller, row)
    if after == before:
        return after
    ctx.session.add(row)
    await ctx.session.flush()
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    record(ctx, Change("reseller.set_branding", f"reseller/{reseller.id}", reseller.name, before=old, after=new))
    return after


async def show_branding(session: AsyncSession, host: str, actor: Actor | None) -> BrandingView:
    """What somebody sees who came to this host, or who is a reseller's."""
    reseller, row = await _choose(session, host, actor)
    return _view(reseller, row)


async def show_logo(session: AsyncSession, host: str, actor: Actor | None) -> tuple[bytes, str]:
    """The picture that belongs to it, and its media type.

    Raises:
        NotFoundError: There is none.
    """
    _reseller, row = await _choose(session, host, actor)
    return _logo_of(row)


def _logo_of(row: ResellerBranding | None) -> tuple[bytes, str]:
    if row is None or row.logo is None:
        raise NotFoundError("there is no logo here")
    return row.logo, row.logo_type


async def _choose(
    session: AsyncSession, host: str, actor: Actor | None
) -> tuple[Reseller | None, ResellerBranding | None]:
    name = host.rsplit(":", 1)[0].lower().rstrip(".")
    of_host = select(ResellerBranding.reseller_id).where(ResellerBranding.host == name)
    reseller_id = (await session.scalars(of_host)).one_or_none()
    if reseller_id is None and actor is not None:
        reseller_id = await _reseller_of(session, actor)
    reseller = await session.get(Reseller, reseller_id) if reseller_id is not None else None
    if reseller is None or reseller.deleted_at is not None:
        return None, None
    return reseller, await _find(session, reseller.id)


async def _reseller_of(session: AsyncSession, actor: Actor) -> str | None:
    if actor.reach.kind is ReachKind.RESELLER:
        return actor.reach.id
    client = select(Client.reseller_id)
    if actor.reach.kind is ReachKind.CLIENT:
        return (await session.scalars(client.where(Client.id == actor.reach.id))).one_or_none()
    if actor.reach.kind is ReachKind.MEMBER:
        joined = client.join(User, User.client_id == Client.id).where(User.id == actor.reach.id)
        return (await session.scalars(joined)).one_or_none()
    return None


async def _find(session: AsyncSession, reseller_id: str) -> ResellerBranding | None:
    return (
        await session.scalars(select(ResellerBranding).where(ResellerBranding.reseller_id == reseller_id))
    ).one_or_none()


async def _take_host(ctx: OpContext, row: ResellerBranding, raw: str | None) -> None:
    """Whoever has a host shows its own face at an address of the controller: the platform says which."""
    host = parse_field("host", parse_domain_name, raw) if raw else None
    if host == row.host:
        return
    if not ctx.actor.reach.is_everything:
        raise ForbiddenError("only administrators change the host", hint="Send the host that it has, or ask for one.")
    taken = select(ResellerBranding.id).where(
        ResellerBranding.host == host, ResellerBranding.id.is_distinct_from(row.id)
    )
    with ctx.session.no_autoflush:
        if host is not None and (await ctx.session.scalars(taken)).first() is not None:
            raise ConflictError(f"another reseller has the host {host!r}", context={"field": "host"})
    row.host = host


def _parse_url(raw: str) -> str:
    url = require_text("support_url", raw, high=300)
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and " " not in url
    except ValueError:
        is_good = False
    if not is_good:
        raise InvalidInputError("it must be an address such as https://shop.example/help", field="support_url")
    return url


def _require_readable(colours: dict[str, str]) -> None:
    for name in ("text_colour", "accent_colour"):
        ratio = contrast_of(colours[name], colours["background_colour"])
        if ratio < READABLE:
            raise InvalidInputError(
                f"{colours[name]} on {colours['background_colour']} has a contrast of {ratio:.2f} to 1;"
                f" people need {READABLE} (WCAG AA)",
                field=name,
            )


def _view(reseller: Reseller | None, row: ResellerBranding | None) -> BrandingView:
    own_name = reseller.name if reseller is not None else OUR_NAME
    colours = {name: (getattr(row, name) if row is not None else None) or ours for name, ours in _COLOURS.items()}
    return BrandingView(
        name=row.name or own_name if row is not None else own_name,
        background_colour=colours["background_colour"],
        text_colour=colours["text_colour"],
        accent_colour=colours["accent_colour"],
        support_email=row.support_email if row is not None else "",
        support_url=row.support_url if row is not None else "",
        host=row.host if row is not None else None,
        logo_sha256=hashlib.sha256(row.logo).hexdigest() if row is not None and row.logo is not None else None,
    )
