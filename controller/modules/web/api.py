"""Sites over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.core.context import Actor
from controller.core.http import (
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    OfAccount,
    PathId,
    Search,
    answer_accepted,
)
from controller.core.operations import Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView
from controller.modules.web import service
from controller.modules.web.service import SiteFilter
from controller.modules.web.views import SiteCreate, SitePage, SiteUpdate, SiteView

_TAGS = ["sites"]


class SiteChange(msgspec.Struct, frozen=True, kw_only=True):
    """A site, and the job that brings its node to it."""

    resource: SiteView
    jobs: tuple[JobView, ...]


def _answer(outcome: Outcome[SiteView]) -> Response[SiteChange]:
    return answer_accepted(outcome, lambda view, jobs: SiteChange(resource=view, jobs=jobs))


@get("/sites", operation_id="list-sites", tags=_TAGS, summary="List sites")
async def list_sites(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    account_id: OfAccount = None,
    is_parked: Annotated[bool | None, QueryParameter(description="true: only parked ones; false: only others.")] = None,
) -> SitePage:
    """Show the sites, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    wanted = SiteFilter(account_id=account_id, is_parked=is_parked)
    return await operations.read(actor, request_id, lambda ctx: service.list_sites(ctx, page, wanted))


@post(
    "/sites",
    operation_id="create-site",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Create a site",
)
async def create_site(
    *,
    data: JSONBody[SiteCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SiteChange]:
    """Serve host names from a folder of an account, with or without PHP."""
    return _answer(
        await operations.change(actor, request_id, lambda ctx: service.create_site(ctx, data), is_dry_run=dry_run)
    )


@get("/sites/{site_id:str}", operation_id="show-site", tags=_TAGS, summary="Show a site")
async def show_site(
    *,
    site_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> SiteView:
    """Show what is wanted of a site, and whether its node took it."""
    return await operations.read(actor, request_id, lambda ctx: service.show_site(ctx, site_id))


@patch(
    "/sites/{site_id:str}",
    operation_id="update-site",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change a site",
)
async def update_site(
    *,
    site_id: PathId,
    data: JSONBody[SiteUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SiteChange]:
    """Change a site; one that is parked is tried again with the change."""
    return _answer(
        await operations.change(
            actor, request_id, lambda ctx: service.update_site(ctx, site_id, data), is_dry_run=dry_run
        )
    )


@delete(
    "/sites/{site_id:str}",
    operation_id="delete-site",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a site",
)
async def delete_site(
    *,
    site_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SiteChange]:
    """Stop serving the site and free its host names."""
    return _answer(
        await operations.change(actor, request_id, lambda ctx: service.delete_site(ctx, site_id), is_dry_run=dry_run)
    )


@post(
    "/sites/{site_id:str}/retry",
    operation_id="retry-site",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Retry a parked site",
)
async def retry_site(
    *,
    site_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SiteChange]:
    """Try a parked site again as it is wanted."""
    return _answer(
        await operations.change(actor, request_id, lambda ctx: service.retry_site(ctx, site_id), is_dry_run=dry_run)
    )


@post(
    "/sites/{site_id:str}/discard",
    operation_id="discard-site-change",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Discard the change of a parked site",
)
async def discard_site_change(
    *,
    site_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SiteChange]:
    """Go back to what the node serves; a site that it never served is deleted."""
    return _answer(
        await operations.change(
            actor, request_id, lambda ctx: service.discard_site_change(ctx, site_id), is_dry_run=dry_run
        )
    )


ROUTES = (list_sites, create_site, show_site, update_site, delete_site, retry_site, discard_site_change)
