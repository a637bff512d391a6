"""What people see of who sells to them, over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.api import scopes
from controller.api.guards import PUBLIC
from controller.core.context import SYSTEM, Actor
from controller.core.http import DryRun, PathId, answer_done
from controller.core.operations import Operations
from controller.core.plan import PlanView
from controller.core.resellers import branding
from controller.core.resellers.branding import BrandingUpdate, BrandingView

_TAGS = ["branding"]


@get("/branding", operation_id="show-branding", tags=_TAGS, opt={PUBLIC: True}, summary="Show the branding")
async def show_branding(
    *,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
) -> BrandingView:
    """Show name, colours and support of whoever this host belongs to, or who sells to whoever asks; else ours."""
    host, actor = request.headers.get("host", ""), _actor_of(request)
    return await operations.read(SYSTEM, "branding", lambda ctx: branding.show_branding(ctx.session, host, actor))


@get(
    "/branding/logo",
    operation_id="fetch-logo",
    tags=_TAGS,
    opt={PUBLIC: True},
    media_type="application/octet-stream",
    summary="Fetch the logo",
)
async def fetch_logo(
    *,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
) -> Response[bytes]:
    """Send the picture that belongs to the branding of this host, or of who sells to whoever asks."""
    host, actor = request.headers.get("host", ""), _actor_of(request)
    data, media_type = await operations.read(
        SYSTEM, "branding", lambda ctx: branding.show_logo(ctx.session, host, actor)
    )
    return Response(data, media_type=media_type)


@get(
    "/resellers/{reseller_id:str}/branding",
    operation_id="show-reseller-branding",
    tags=_TAGS,
    summary="Show a reseller's branding",
)
async def show_reseller_branding(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> BrandingView:
    """Show what a reseller's clients see."""
    return await operations.read(actor, request_id, lambda ctx: branding.show_reseller_branding(ctx, reseller_id))


@get(
    "/resellers/{reseller_id:str}/branding/logo",
    operation_id="download-reseller-logo",
    tags=_TAGS,
    media_type="application/octet-stream",
    summary="Download a reseller's logo",
)
async def download_reseller_logo(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> Response[bytes]:
    """Send the picture that a reseller's clients see."""
    data, media_type = await operations.read(
        actor, request_id, lambda ctx: branding.show_reseller_logo(ctx, reseller_id)
    )
    return Response(data, media_type=media_type)


@put(
    "/resellers/{reseller_id:str}/branding",
    operation_id="set-reseller-branding",
    tags=_TAGS,
    status_code=200,
    summary="Set a reseller's branding",
)
async def set_reseller_branding(
    *,
    reseller_id: PathId,
    data: JSONBody[BrandingUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BrandingView | PlanView]:
    """Say what a reseller's clients see: name, colours that can be read, support, logo; administrators say the host."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: branding.set_branding(ctx, reseller_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


def _actor_of(request: Request[Any, Any, Any]) -> Actor | None:
    identity = scopes.identity_of(request.scope)
    return identity.actor if identity is not None else None


ROUTES = (show_branding, show_reseller_branding, download_reseller_logo, set_reseller_branding)
ROOT_ROUTES = (fetch_logo,)
"""A picture for pages and mails, whatever the API's version."""
