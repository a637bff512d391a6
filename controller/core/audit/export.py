"""The audit log as a file that proves itself: every field that a hash is made of, the head, and the signed checkpoints.

It is written while it is read, in batches with a transaction each: an export of millions of entries costs neither
memory nor a transaction that stays open for as long as somebody's line is slow. The log only grows, so what is exported
is the log as it was when the export began.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.archive_models import AuditArchive
from controller.core.audit.chain import BATCH, COLUMNS, read_batch, read_head
from controller.core.audit.checkpoints import Checkpoints, list_checkpoints
from controller.core.audit.selection import AuditFilter, select_wanted
from controller.core.audit.witness_records import list_witness_records, read_authorities
from controller.core.context import OpContext
from controller.db.engine import Database
from shared.audit_csv import render_header, render_rows
from shared.audit_proof import FORMAT, render_line
from shared.errors import InvalidInputError

NUMBER_END: Final = 2**63
"""Numbers of entries are 64 bits in the database."""
Records = Iterable[Mapping[str, Any]]


class ExportFormat(enum.Enum):
    """How the records are written."""

    JSONL = "jsonl"
    CSV = "csv"


class ExportWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be exported."""

    wanted: AuditFilter
    first: int = 1
    """Number of the first entry."""
    last: int | None = None
    """Number of the last entry; None: the newest one there is now."""
    format: ExportFormat = ExportFormat.JSONL


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """An export that was granted; nothing of it is read yet."""

    wish: ExportWish
    last: int
    head: Mapping[str, Any]


async def plan_export(ctx: OpContext, wish: ExportWish, checkpoints: Checkpoints) -> Export:
    """Judge the wish and fix where the log ends.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require_platform("audit", "read")
    if not 1 <= wish.first < NUMBER_END:
        raise InvalidInputError("first must be 1 or more, and a number that an entry can have", field="first")
    if wish.last is not None and wish.last < wish.first:
        raise InvalidInputError("last must not be before first", field="last")
    select_wanted(
        select(*COLUMNS), wish.wanted
    )  # a wrong field is told now: once bytes are on their way it is too late
    number, value = await read_head(ctx.session)
    wish = await _leave_out_archived(ctx.session, wish)
    last = number if wish.last is None else min(wish.last, number)
    head = await make_head(ctx.session, wish, checkpoints, last=last, end=(number, value))
    head = {**head, "made_at": _text(ctx.now), "made_for": ctx.actor.reference}
    return Export(wish=wish, last=last, head=head)


async def _leave_out_archived(session: AsyncSession, wish: ExportWish) -> ExportWish:
    """The wish, from the first entry on that is in the database.

    Raises:
        InvalidInputError: `audit_archived`: it names entries that are not.
    """
    archived = (await session.execute(select(func.max(AuditArchive.last)))).scalar_one() or 0
    if wish.first > archived:
        return wish
    if wish.first > 1 or (wish.last is not None and wish.last <= archived):
        raise InvalidInputError(
            f"entries up to {archived} are archived",
            field="first",
            code="audit_archived",
            hint="wcp360 audit list-archives",
        )
    return msgspec.structs.replace(wish, first=archived + 1)


async def make_head(
    session: AsyncSession, wish: ExportWish, checkpoints: Checkpoints, *, last: int, end: tuple[int, str]
) -> dict[str, Any]:
    """The first record, but for when and for whom it is made. `end` is where the log ends now: number and hash."""
    return {
        "kind": "head",
        "format": FORMAT,
        "cluster_id": checkpoints.cluster_id,
        "number": end[0],
        "hash": end[1],
        "first": wish.first,
        "last": last,
        "is_filtered": not wish.wanted.is_everything,
        "filter": wish.wanted.describe(),
        "public_key": checkpoints.public_key_text,
        "authorities": await read_authorities(session, wish.first, last),
    }


async def write_export(database: Database, export: Export) -> AsyncGenerator[bytes]:
    """The bytes of the file; the next are read once these are on their way."""
    render = _RENDER[export.wish.format]
    if export.wish.format is ExportFormat.CSV:
        yield render_header().encode()
    async with database.read() as session:
        rows = await list_checkpoints(session, first=max(export.wish.first - 1, 1), last=export.last)
        said = await list_witness_records(session, export.wish.first, export.last)
    signed = [
        {"kind": "checkpoint", "payload": row.payload, "kid": row.kid, "signature": row.signature} for row in rows
    ]
    yield render([export.head, *signed, *said])
    statement = select_wanted(select(*COLUMNS), export.wish.wanted)
    after, entries, is_more = export.wish.first - 1, 0, True
    while is_more:
        async with database.read() as session:
            batch = await read_batch(session, statement, after=after, until=export.last)
        is_more = len(batch) == BATCH
        if batch:
            after, entries = batch[-1]["number"], entries + len(batch)
            yield render({"kind": "entry", **entry} for entry in batch)
    yield render([{"kind": "end", "entries": entries}])


def _render_lines(records: Records) -> bytes:
    return b"".join(map(render_line, records))


def _render_csv(records: Records) -> bytes:
    return render_rows(records).encode()


_RENDER: Final[Mapping[ExportFormat, Callable[[Records], bytes]]] = {
    ExportFormat.JSONL: _render_lines,
    ExportFormat.CSV: _render_csv,
}


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
