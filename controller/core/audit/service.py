"""Reading the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import select

from controller.core.audit.chain import verify_chain
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.models import AuditEntry
from controller.core.audit.selection import AuditFilter, contains_text, select_wanted
from controller.core.audit.whereabouts import find_hidden
from controller.core.context import OpContext
from controller.core.paging import PageRequest, fetch_page


class AuditEntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One change: who, what, when, from which state to which."""

    id: str
    number: Annotated[int, Meta(description="Position in the log, 1 and up, without gaps.")]
    at: datetime
    actor: Annotated[str, Meta(description="kind/ID of who did it.")]
    actor_name: str
    address: Annotated[
        str | None,
        Meta(description="Where the request came from; null: the controller itself, or it is not told to a tenant."),
    ]
    account_id: Annotated[str | None, Meta(description="The account that it is about; null: none.")]
    client_id: Annotated[str | None, Meta(description="Whose account it was then.")]
    reseller_id: Annotated[str | None, Meta(description="Whose client it was then.")]
    request_id: Annotated[str, Meta(description="The API request, as in the X-Request-ID header and the logs.")]
    action: Annotated[str, Meta(description="noun.verb.", examples=["site.create"])]
    target: Annotated[str, Meta(description="noun/ID of what was changed.")]
    target_name: str
    before: Annotated[dict[str, Any] | None, Meta(description="Its state before; null when it was created.")]
    after: Annotated[dict[str, Any] | None, Meta(description="Its state afterwards; null when it was deleted.")]
    hash: Annotated[str, Meta(description="SHA-256 over this entry and the hash before it.")]
    previous_hash: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of the audit log, newest first."""

    items: tuple[AuditEntryView, ...]
    next_cursor: str | None


class AuditVerification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the log is as it was written."""

    is_intact: Annotated[bool, Meta(description="True when no entry was changed, removed or inserted.")]
    entries: Annotated[int, Meta(description="How many entries were found good, from the first one on.")]
    head_hash: Annotated[
        str, Meta(description="Hash of the last good entry; keep it elsewhere to prove the log later.")
    ]
    checkpoints: Annotated[int, Meta(description="How many signed checkpoints fit the entries.")]
    first_bad_number: Annotated[int | None, Meta(description="The first entry that does not fit.")]
    reason: str
    archived: Annotated[int, Meta(description="Entries up to this one are in archives, and proven there.")]
    absent_archives: Annotated[
        tuple[str, ...], Meta(description="Archives whose files are not here, with the hash that each must have.")
    ]


async def list_audit(ctx: OpContext, page: PageRequest, wanted: AuditFilter) -> AuditPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("audit", "read")
    statement = select_wanted(select(AuditEntry), wanted)
    condition = contains_text(page.search)
    if condition is not None:
        statement = statement.where(condition)
    found = await fetch_page(ctx.session, statement, page)
    hidden = await find_hidden(ctx.session, ctx.actor.reach, {entry.actor for entry in found.rows})
    # Not told by a question, either: those that only the filter would give away are left out.
    told = (entry for entry in found.rows if wanted.address is None or entry.actor not in hidden)
    items = tuple(_view(entry, is_hidden=entry.actor in hidden) for entry in told)
    return AuditPage(items=items, next_cursor=found.next_cursor)


async def verify_audit(ctx: OpContext, checkpoints: Checkpoints | None = None) -> AuditVerification:
    """Walk the whole chain, and check the signatures of its checkpoints where the key is known.

    Raises:
        ForbiddenError
    """
    ctx.actor.require_platform("audit", "read")
    report = await (verify_chain(ctx.session) if checkpoints is None else checkpoints.verify(ctx.session))
    return AuditVerification(
        is_intact=report.first_bad_number is None,
        entries=report.entries,
        head_hash=report.head_hash,
        checkpoints=report.checkpoints,
        first_bad_number=report.first_bad_number,
        reason=report.reason,
        archived=report.archived,
        absent_archives=report.absent,
    )


def _view(entry: AuditEntry, *, is_hidden: bool) -> AuditEntryView:
    return AuditEntryView(
        id=entry.id,
        number=entry.number,
        at=entry.at,
        actor=entry.actor,
        actor_name=entry.actor_name,
        address=None if is_hidden else entry.address,
        account_id=entry.account_id,
        client_id=entry.client_id,
        reseller_id=entry.reseller_id,
        request_id=entry.request_id,
        action=entry.action,
        target=entry.target,
        target_name=entry.target_name,
        before=entry.before,
        after=entry.after,
        hash=entry.hash,
        previous_hash=entry.previous_hash,
    )
