"""Who asks the API how much."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from controller.api.guards import require_identity
from controller.core.api_usage.queries import By, Period, list_token_usage, list_top
from controller.core.api_usage.views import TokenUsage, TopUses
from controller.core.context import Actor
from controller.core.http import Cursor, Limit, PathId
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

Each = Annotated[Period, QueryParameter(description="hour (kept for 90 days) or day (kept for 400).")]
Whose = Annotated[By, QueryParameter(description="What is counted together: token, user or route.")]
Days = Annotated[int, QueryParameter(description="Of so many days up to now, 1 to 400; today is one.")]


@get("/tokens/{token_id:str}/usage", operation_id="list-token-usage", tags=["tokens"], summary="Show a token's use")
async def show_token_usage(
    *,
    token_id: PathId,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    period: Each = "hour",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> TokenUsage:
    """Show requests, errors, refusals and times of one's own token, hour by hour or day by day, and from where."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        identity.actor, request_id, lambda ctx: list_token_usage(ctx, identity.user_id, token_id, period, page)
    )


@get("/api-usage", operation_id="list-api-usage", tags=["security"], summary="Show who asks the API most")
async def list_api_usage(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    by: Whose = "token",
    days: Days = 7,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> TopUses:
    """Show the tokens, users or routes with the most requests; figures are up to 15 seconds old."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: list_top(ctx, by, days, page))


ROUTES = (show_token_usage, list_api_usage)
