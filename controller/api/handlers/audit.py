"""The audit log over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from controller.core.audit import service
from controller.core.audit.service import AuditFilter, AuditPage, AuditVerification
from controller.core.context import Actor
from controller.core.http import Cursor, Limit, Search
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["audit"]


@get("/audit", operation_id="list-audit", tags=_TAGS, summary="List the audit log")
async def list_audit(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    action: Annotated[str | None, QueryParameter(description="Only this action, for example site.create.")] = None,
    target: Annotated[str | None, QueryParameter(description="Only what was done to this noun/ID.")] = None,
    by: Annotated[str | None, QueryParameter(description="Only what this kind/ID did.")] = None,
) -> AuditPage:
    """Show who changed what, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    wanted = AuditFilter(action=action, target=target, actor=by)
    return await operations.read(actor, request_id, lambda ctx: service.list_audit(ctx, page, wanted))


@get("/audit/verify", operation_id="verify-audit", tags=_TAGS, summary="Verify the audit log")
async def verify_audit(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> AuditVerification:
    """Recompute the hash chain from the first entry to the last and say whether anybody has touched it."""
    return await operations.read(actor, request_id, service.verify_audit)


ROUTES = (list_audit, verify_audit)
