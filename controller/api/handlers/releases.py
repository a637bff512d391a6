"""Releases of the agent over HTTP: the list for administrators, the bytes for nodes."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter
from litestar.response import File
from sqlalchemy import select

from controller.api.guards import PUBLIC
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.fleet import Fleet
from controller.fleet.rollouts.models import Release
from controller.fleet.rollouts.releases import ReleaseCreate, ReleasePage, ReleaseView, get_release, render_release

_TAGS = ["releases"]


@get("/releases", operation_id="list-releases", tags=_TAGS, summary="List releases of the agent")
async def list_releases(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> ReleasePage:
    """Show what nodes may be updated to, newest first."""

    async def query(ctx: FleetContext) -> ReleasePage:
        ctx.actor.require("releases", "read")
        found = await fetch_page(ctx.session, select(Release), PageRequest(limit=limit, cursor=cursor))
        return ReleasePage(items=tuple(map(render_release, found.rows)), next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@get("/releases/{release_id:str}", operation_id="show-release", tags=_TAGS, summary="Show a release of the agent")
async def show_release(
    *,
    release_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ReleaseView:
    """Show one release."""

    async def query(ctx: FleetContext) -> ReleaseView:
        ctx.actor.require("releases", "read")
        return render_release(await get_release(ctx.session, release_id))

    return await operations.read(actor, request_id, query)


@post(
    "/releases",
    operation_id="create-release",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Register a release of the agent",
)
async def create_release(
    *,
    data: JSONBody[ReleaseCreate],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ReleaseView]:
    """Vouch for the bundle that lies in the controller's bundle folder; nodes get it by a rollout."""

    async def use_case(ctx: FleetContext) -> ReleaseView:
        return render_release(await fleet.releases.create(ctx, data))

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=201)


@get(
    "/bundle/releases/{file_name:str}",
    operation_id="fetch-release-bundle",
    tags=_TAGS,
    opt={PUBLIC: True},
    sync_to_thread=True,
    summary="Fetch the bundle of a release",
)
def fetch_release_bundle(
    *,
    file_name: Annotated[str, PathParameter(description="Build and .tar.gz.", max_length=80)],
    fleet: NamedDependency[Fleet],
) -> File:
    """Everything that a node of this release runs; whoever fetches it knows its hash."""
    path = fleet.releases.find_bundle(file_name.removesuffix(".tar.gz"))
    return File(path=path, filename=file_name, media_type="application/gzip")


ROUTES = (list_releases, show_release, create_release)
"""Below /api/v1."""
ROOT_ROUTES = (fetch_release_bundle,)
"""At the root."""
