"""Usage of accounts and packages over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from controller.core.context import Actor
from controller.core.http import Cursor, Limit, PathId
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.usage import queries
from controller.core.usage.views import UsageHistory, UsageList, UsageTotals

Key = Annotated[str, QueryParameter(description="Of which limit, as `list-limits` names it.")]


@get(
    "/accounts/{account_id:str}/usage",
    operation_id="list-account-usage",
    tags=["accounts"],
    summary="Show what an account uses",
)
async def list_account_usage(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> UsageList:
    """Show what an account uses of each limit now, at most, and since when it is over."""
    return await operations.read(actor, request_id, lambda ctx: queries.show_account_usage(ctx, account_id))


@get(
    "/accounts/{account_id:str}/usage-history",
    operation_id="list-account-usage-history",
    tags=["accounts"],
    summary="Show what an account used day by day",
)
async def list_account_usage_history(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    key: Key = "sites",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> UsageHistory:
    """Show one limit's use day by day, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor, request_id, lambda ctx: queries.list_account_history(ctx, account_id, key, page)
    )


@get(
    "/packages/{package_id:str}/usage",
    operation_id="list-package-usage",
    tags=["packages"],
    summary="Show what a package's accounts use",
)
async def list_package_usage(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> UsageTotals:
    """Show what the package's accounts use together, what they were promised, and how many are over."""
    return await operations.read(actor, request_id, lambda ctx: queries.show_package_usage(ctx, package_id))


@get(
    "/packages/{package_id:str}/usage-history",
    operation_id="list-package-usage-history",
    tags=["packages"],
    summary="Show what a package's accounts used day by day",
)
async def list_package_usage_history(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    key: Key = "sites",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> UsageHistory:
    """Show one limit's use of all accounts together day by day, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor, request_id, lambda ctx: queries.list_package_history(ctx, package_id, key, page)
    )


@get("/usage", operation_id="list-usage", tags=["limits"], summary="Show what all accounts use")
async def list_usage(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> UsageTotals:
    """Show what all accounts use together, what they were promised, and how many are over."""
    return await operations.read(actor, request_id, queries.show_usage)


ROUTES = (list_account_usage, list_account_usage_history, list_package_usage, list_package_usage_history, list_usage)
