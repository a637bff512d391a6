"""The audit log over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency, Provide
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from controller.api.guards import require_identity
from controller.api.readers import Readers
from controller.core.audit import archive_views, service
from controller.core.audit.archive_files import read_file
from controller.core.audit.archive_views import ArchivePage, ArchiveView
from controller.core.audit.checkpoints import CheckpointPage, Checkpoints
from controller.core.audit.export import ExportFormat, ExportWish, plan_export, write_export
from controller.core.audit.selection import AuditFilter
from controller.core.audit.service import AuditPage, AuditVerification
from controller.core.context import Actor
from controller.core.http import Cursor, Limit, Search
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["audit"]
_MEDIA_TYPES = {ExportFormat.JSONL: "application/x-ndjson", ExportFormat.CSV: "text/csv; charset=utf-8"}

ArchiveId = Annotated[str, PathParameter(description="Id of the archive.", max_length=80)]
Action = Annotated[str | None, QueryParameter(description="Only this action, for example site.create.")]
Target = Annotated[str | None, QueryParameter(description="Only what was done to this noun/ID.")]
By = Annotated[str | None, QueryParameter(description="Only what this kind/ID did.")]
OfAccount = Annotated[str | None, QueryParameter(description="Only what was done to this account and all it holds.")]
OfClient = Annotated[str | None, QueryParameter(description="Only what was done to this client and their accounts.")]
From = Annotated[str | None, QueryParameter(description="Only what was asked for from this network address.")]
OfRequest = Annotated[
    str | None, QueryParameter(name="request_id", description="Only what this API request did (X-Request-ID).")
]
Since = Annotated[datetime | None, QueryParameter(description="From this moment on, for example 2026-01-31T12:00:00Z.")]
Until = Annotated[datetime | None, QueryParameter(description="Before this moment.")]
Security = Annotated[
    bool,
    QueryParameter(description="Only what concerns who may do what: signing in, tokens, refusals, keys, identities."),
]


def provide_audit_filter(
    *,
    action: Action = None,
    target: Target = None,
    by: By = None,
    account_id: OfAccount = None,
    client_id: OfClient = None,
    address: From = None,
    of_request: OfRequest = None,
    since: Since = None,
    until: Until = None,
    security: Security = False,
) -> AuditFilter:
    """The filter that list and export share."""
    return AuditFilter(
        action=action or None,
        target=target or None,
        actor=by or None,
        account_id=account_id or None,
        client_id=client_id or None,
        address=address or None,
        request_id=of_request or None,
        since=since,
        until=until,
        security=security,
    )


_FILTER = {"wanted": Provide(provide_audit_filter, sync_to_thread=False)}


@get("/audit", operation_id="list-audit", tags=_TAGS, dependencies=_FILTER, summary="List the audit log")
async def list_audit(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    wanted: NamedDependency[AuditFilter],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
) -> AuditPage:
    """Show who changed what, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_audit(ctx, page, wanted))


@get("/audit/verify", operation_id="verify-audit", tags=_TAGS, summary="Verify the audit log")
async def verify_audit(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    checkpoints: NamedDependency[Checkpoints],
) -> AuditVerification:
    """Recompute the hash chain from the first entry to the last and say whether anybody has touched it."""
    return await operations.read(actor, request_id, lambda ctx: service.verify_audit(ctx, checkpoints))


@get(
    "/audit/checkpoints", operation_id="list-audit-checkpoints", tags=_TAGS, summary="List checkpoints of the audit log"
)
async def list_audit_checkpoints(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    checkpoints: NamedDependency[Checkpoints],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> CheckpointPage:
    """Show the signed ends of the log, newest first; keep one elsewhere, and nobody can rewrite what was before it."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: checkpoints.list_page(ctx, page))


@get(
    "/audit/export",
    operation_id="export-audit",
    tags=_TAGS,
    dependencies=_FILTER,
    media_type="application/x-ndjson",
    summary="Export the audit log",
)
async def export_audit(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    request: Request[Any, Any, Any],
    readers: NamedDependency[Readers],
    checkpoints: NamedDependency[Checkpoints],
    wanted: NamedDependency[AuditFilter],
    first: Annotated[int, QueryParameter(description="Number of the first entry.")] = 1,
    last: Annotated[int | None, QueryParameter(description="Number of the last entry; default: the newest.")] = None,
    format: Annotated[  # noqa: A002 - the word that the API uses
        ExportFormat, QueryParameter(description="jsonl: JSON Lines. csv: for spreadsheets, no cell is a formula.")
    ] = ExportFormat.JSONL,
) -> Stream:
    """Send entries, oldest first, with all that proves them; `wcp360 audit verify --file` checks the file offline."""
    wish = ExportWish(wanted=wanted, first=first, last=last, format=format)
    export = await operations.read(actor, request_id, lambda ctx: plan_export(ctx, wish, checkpoints))
    readers.admit(request.scope, require_identity(request))
    name = f"audit-{export.wish.first}-{export.last}.{format.value}"
    return Stream(
        content=write_export(checkpoints.database, export),
        media_type=_MEDIA_TYPES[format],
        headers={"content-disposition": f'attachment; filename="{name}"', "x-accel-buffering": "no"},
    )


@get("/audit/archives", operation_id="list-audit-archives", tags=_TAGS, summary="List archives of the audit log")
async def list_audit_archives(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> ArchivePage:
    """Show which entries lie in files, newest first; made by a schedule, by the policy audit_retention_days."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: archive_views.list_archives(ctx, page))


@get(
    "/audit/archives/{archive_id:str}",
    operation_id="show-audit-archive",
    tags=_TAGS,
    summary="Show an archive of the audit log",
)
async def show_audit_archive(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    archive_id: ArchiveId,
) -> ArchiveView:
    """Show which entries it holds and the hash of its file."""
    return await operations.read(actor, request_id, lambda ctx: archive_views.show_archive(ctx, archive_id))


@get(
    "/audit/archives/{archive_id:str}/file",
    operation_id="download-audit-archive",
    tags=_TAGS,
    media_type="application/gzip",
    summary="Download an archive of the audit log",
)
async def download_audit_archive(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    request: Request[Any, Any, Any],
    readers: NamedDependency[Readers],
    checkpoints: NamedDependency[Checkpoints],
    archive_id: ArchiveId,
) -> Stream:
    """Send its file, an export in JSON Lines packed by gzip; `wcp360 audit verify --file` checks it offline."""
    archive = await operations.read(actor, request_id, lambda ctx: archive_views.find_archive_file(ctx, archive_id))
    readers.admit(request.scope, require_identity(request))
    headers = {
        "content-disposition": f'attachment; filename="{archive.name}"',
        "content-length": str(archive.size_bytes),
    }
    return Stream(
        content=read_file(checkpoints.database, archive.sha256), media_type="application/gzip", headers=headers
    )


ROUTES = (
    list_audit,
    verify_audit,
    list_audit_checkpoints,
    export_audit,
    list_audit_archives,
    show_audit_archive,
    download_audit_archive,
)
