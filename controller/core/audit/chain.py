"""The hash chain: append in the change's own transaction, verify from the first entry to the last."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.models import HEAD_ID, AuditEntry, AuditHead
from controller.core.context import Change, OpContext

GENESIS_HASH: Final = "0" * 64
_BATCH: Final = 500
_ENCODER = msgspec.json.Encoder(order="deterministic")


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a walk along the whole chain found."""

    entries: int
    """How many were read."""
    head_hash: str
    first_bad_number: int | None = None
    reason: str = ""


def record(ctx: OpContext, change: Change) -> None:
    """Note a change: for the audit log when the transaction commits, for the answer when it is a dry run."""
    ctx.changes.append(change)


async def append_changes(ctx: OpContext) -> None:
    """Write one entry for each noted change. Holds the head's row until the transaction ends: one writer at a time."""
    await append_entries(ctx, ctx.changes)


async def append_entries(ctx: OpContext, changes: Sequence[Change]) -> None:
    """Write these entries; for what happens outside of Operations, for example a sign-in."""
    if not changes:
        return
    head = await _lock_head(ctx.session)
    for change in changes:
        entry = AuditEntry(
            number=head.number + 1,
            at=ctx.now,
            actor=ctx.actor.reference,
            actor_name=ctx.actor.name,
            address=ctx.actor.address[:64] or None,
            request_id=ctx.request_id[:100],
            action=change.action,
            target=change.target,
            target_name=change.target_name,
            before=change.before,
            after=change.after,
            previous_hash=head.hash,
        )
        entry.hash = entry_hash(entry)
        ctx.session.add(entry)
        head.number, head.hash = entry.number, entry.hash
    await ctx.session.flush()


def entry_hash(entry: AuditEntry) -> str:
    """SHA-256 in hex over the predecessor's hash and this entry's own content, keys in a fixed order."""
    content: dict[str, Any] = {
        "number": entry.number,
        "at": entry.at.isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "actor_name": entry.actor_name,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": entry.target,
        "target_name": entry.target_name,
        "before": entry.before,
        "after": entry.after,
    }
    if entry.address is not None:  # not in entries of releases before this column
        content["address"] = entry.address
    return hashlib.sha256(entry.previous_hash.encode() + b"\n" + _ENCODER.encode(content)).hexdigest()


async def verify_chain(session: AsyncSession) -> ChainReport:
    """Walk from the first entry to the last and stop at the first one that does not fit. Changes nothing."""
    number, previous_hash = 0, GENESIS_HASH
    while True:
        batch = (
            await session.scalars(
                select(AuditEntry).where(AuditEntry.number > number).order_by(AuditEntry.number).limit(_BATCH)
            )
        ).all()
        for entry in batch:
            reason = _find_fault(entry, number, previous_hash)
            if reason:
                return ChainReport(entries=number, head_hash=previous_hash, first_bad_number=number + 1, reason=reason)
            number, previous_hash = entry.number, entry.hash
        if len(batch) < _BATCH:
            break
        session.expunge_all()  # a long log does not have to fit into memory
    head = await session.get(AuditHead, HEAD_ID)
    if (head.number, head.hash) != (number, previous_hash) if head else number != 0:
        reason = f"the log ends at {number}, but {head.number if head else 0} entries were written"
        return ChainReport(entries=number, head_hash=previous_hash, first_bad_number=number + 1, reason=reason)
    return ChainReport(entries=number, head_hash=previous_hash)


def _find_fault(entry: AuditEntry, number: int, previous_hash: str) -> str:
    if entry.number != number + 1:
        return f"entry {number + 1} is missing"
    if entry.previous_hash != previous_hash:
        return f"entry {entry.number} does not continue entry {number}"
    if entry.hash != entry_hash(entry):
        return f"entry {entry.number} was changed after it was written"
    return ""


async def _lock_head(session: AsyncSession) -> AuditHead:
    statement = select(AuditHead).where(AuditHead.id == HEAD_ID).with_for_update()
    head = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if head is not None:
        return head
    # The very first entry: two writers may come here at once, and only one row may be born.
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"id": HEAD_ID, "number": 0, "hash": GENESIS_HASH}
    await session.execute(insert(AuditHead).values(values).on_conflict_do_nothing(index_elements=["id"]))
    return (await session.scalars(statement)).one()
