"""Reading the archives of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import func, select

from controller.core.audit.archive_models import AuditArchive, AuditArchivePart
from controller.core.context import OpContext
from controller.core.paging import PageRequest, fetch_page
from shared.errors import NotFoundError


class ArchiveView(msgspec.Struct, frozen=True, kw_only=True):
    """Entries that were moved from the database into a file."""

    id: str
    name: Annotated[str, Meta(description="Of the file.")]
    first: Annotated[int, Meta(description="Number of the first entry in it.")]
    last: Annotated[int, Meta(description="Number of the last; a signed checkpoint proves it.")]
    hash: Annotated[str, Meta(description="Of the last entry; the next archive or the log continues it.")]
    at: datetime
    size_bytes: int
    sha256: Annotated[str, Meta(description="Of the file, in hex.")]


class ArchivePage(msgspec.Struct, frozen=True, kw_only=True):
    """Archives, newest first."""

    items: tuple[ArchiveView, ...]
    next_cursor: str | None


async def list_archives(ctx: OpContext, page: PageRequest) -> ArchivePage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require_platform("audit", "read")
    found = await fetch_page(ctx.session, select(AuditArchive), page)
    return ArchivePage(items=tuple(_view(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_archive(ctx: OpContext, archive_id: str) -> ArchiveView:
    """One of them.

    Raises:
        ForbiddenError, NotFoundError
    """
    return _view(await _get(ctx, archive_id))


async def find_archive_file(ctx: OpContext, archive_id: str) -> ArchiveView:
    """One of which the whole file is here.

    Raises:
        ForbiddenError
        NotFoundError: There is no such archive, or (`audit_archive_absent`) its file is not here, or not all of it.
    """
    row = await _get(ctx, archive_id)
    size = func.coalesce(func.sum(func.length(AuditArchivePart.content)), 0)
    here_bytes = (await ctx.session.execute(select(size).where(AuditArchivePart.sha256 == row.sha256))).scalar_one()
    if here_bytes != row.size_bytes:
        raise NotFoundError(
            f"of the file {row.name} there are {here_bytes} of {row.size_bytes} bytes",
            code="audit_archive_absent",
            hint=f"Somebody with rights on the schema removed them; a copy of it has the SHA-256 {row.sha256}.",
        )
    return _view(row)


async def _get(ctx: OpContext, archive_id: str) -> AuditArchive:
    ctx.actor.require_platform("audit", "read")
    row = await ctx.session.get(AuditArchive, archive_id)
    if row is None:
        raise NotFoundError(f"there is no archive {archive_id[:80]!r}")
    return row


def _view(row: AuditArchive) -> ArchiveView:
    return ArchiveView(
        id=row.id,
        name=row.name,
        first=row.first,
        last=row.last,
        hash=row.hash,
        at=row.at,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )
