"""What billing systems ask for, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from controller.core.billing import usage
from controller.core.billing.usage import UsagePage
from controller.core.context import Actor
from controller.core.http import Cursor, Limit
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest


@get("/billing/usage", operation_id="export-usage", tags=["billing"], summary="Export the usage of a period")
async def export_usage(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    begins_at: Annotated[
        datetime | None, QueryParameter(description="For example 2026-11-01T00:00:00Z; else 30 days before the end.")
    ] = None,
    ends_at: Annotated[datetime | None, QueryParameter(description="Not part of it; up to now, and else now.")] = None,
    client_id: Annotated[str | None, QueryParameter(description="Only accounts of this client.")] = None,
) -> UsagePage:
    """Show for every account that was there how long it had which package and state; newest account first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor,
        request_id,
        lambda ctx: usage.export_usage(ctx, page, begins_at=begins_at, ends_at=ends_at, client_id=client_id),
    )


ROUTES = (export_usage,)
