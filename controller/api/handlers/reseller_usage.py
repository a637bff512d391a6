"""What resellers handed out, over HTTP."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream

from controller.api.guards import require_identity
from controller.api.readers import Readers
from controller.core.context import Actor
from controller.core.http import Cursor, Limit, PathId
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.resellers import usage, usage_export
from controller.core.resellers.usage import ResellerFillPage, ResellerUsage
from controller.core.resellers.usage_export import ExportPlace, ExportRows
from controller.core.usage.views import UsageHistory

_TAGS = ["resellers"]

Key = Annotated[str, QueryParameter(description="Of which limit, as `list-limits` names it.")]


@get("/resellers/usage", operation_id="rank-resellers", tags=_TAGS, summary="Rank resellers by how full they are")
async def rank_resellers(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> ResellerFillPage:
    """Show all resellers, those first that have handed out most of what they may."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: usage.list_fills(ctx, page))


@get(
    "/resellers/{reseller_id:str}/usage",
    operation_id="list-reseller-usage",
    tags=_TAGS,
    summary="Show what a reseller handed out",
)
async def list_reseller_usage(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ResellerUsage:
    """Show what a reseller's accounts were promised and use of everything, with its caps and factors."""
    return await operations.read(actor, request_id, lambda ctx: usage.show_usage(ctx, reseller_id))


@get(
    "/resellers/{reseller_id:str}/usage-history",
    operation_id="list-reseller-days",
    tags=_TAGS,
    summary="Show what a reseller's accounts used day by day",
)
async def list_reseller_usage_history(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    key: Key = "sites",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> UsageHistory:
    """Show one limit's use of all its accounts together day by day, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: usage.list_history(ctx, reseller_id, key, page))


@get(
    "/resellers/{reseller_id:str}/usage-export",
    operation_id="export-reseller-usage",
    tags=_TAGS,
    media_type="text/csv",
    summary="Export what a reseller's accounts used",
)
async def export_reseller_usage(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    request: Request[Any, Any, Any],
    readers: NamedDependency[Readers],
    begins_on: Annotated[
        date | None, QueryParameter(description="For example 2026-11-01; else 30 days before the end.")
    ] = None,
    ends_on: Annotated[date | None, QueryParameter(description="The last day, and else today.")] = None,
) -> Stream:
    """Send a line of CSV for each day, account and limit, ten years at most; no cell is a formula for a spreadsheet."""
    span = await operations.read(
        actor, request_id, lambda ctx: usage_export.plan_export(ctx, reseller_id, begins_on, ends_on)
    )
    readers.admit(request.scope, require_identity(request))

    async def read_page(after: ExportPlace) -> ExportRows:
        return await operations.read(actor, request_id, lambda ctx: usage_export.read_export_page(ctx, span, after))

    name = f"usage-{span.begins_on}-{span.ends_on}.csv"
    return Stream(
        content=usage_export.write_export(read_page, span),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"', "x-accel-buffering": "no"},
    )


ROUTES = (rank_resellers, list_reseller_usage, list_reseller_usage_history, export_reseller_usage)
"""`/resellers/usage` is an address of its own: no reseller's id is that word."""
