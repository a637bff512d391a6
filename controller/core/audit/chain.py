"""The hash chain: append in the change's own transaction, verify from the first entry to the last."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, Text, cast, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.models import HEAD_ID, AuditCheckpoint, AuditEntry, AuditHead
from controller.core.audit.tenants import Tenant, TenantFinder
from controller.core.context import Change, OpContext
from shared.audit_proof import GENESIS_HASH, find_fault, hash_content, hash_entry, select_content

__all__ = ["GENESIS_HASH", "ChainReport", "append_changes", "append_entries", "entry_hash", "record", "verify_chain"]

BATCH: Final = 1000
COLUMNS: Final = (
    AuditEntry.number,
    AuditEntry.at,
    AuditEntry.actor,
    AuditEntry.actor_name,
    AuditEntry.address,
    AuditEntry.account_id,
    AuditEntry.client_id,
    AuditEntry.reseller_id,
    AuditEntry.request_id,
    AuditEntry.action,
    AuditEntry.target,
    AuditEntry.target_name,
    AuditEntry.before,
    AuditEntry.after,
    AuditEntry.previous_hash,
    AuditEntry.hash,
)
"""All that a hash is made of. Read as plain rows: half a million objects of the mapper would take a minute."""
_STATES: Final = tuple(COLUMNS.index(column) for column in (AuditEntry.before, AuditEntry.after))
_UNREAD: Final[tuple[Any, ...]] = tuple(
    cast(column, Text).label(column.key) if number in _STATES else column for number, column in enumerate(COLUMNS)
)
"""The same with the states as the database has them."""
_SELECT_UNREAD: Final[Select[Any]] = select(*_UNREAD)
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder(order="deterministic").encode
_NAMES: Final = tuple(column.key for column in COLUMNS)


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a walk along the whole chain found."""

    entries: int
    """How many were read."""
    head_hash: str
    checkpoints: int = 0
    """How many of them fit the entries."""
    first_bad_number: int | None = None
    reason: str = ""
    archived: int = 0
    """Entries up to this one are archived."""
    absent: tuple[str, ...] = ()
    """Archives whose files are not here: name and hash of each."""


def record(ctx: OpContext, change: Change) -> None:
    """Note a change: for the audit log when the transaction commits, for the answer when it is a dry run."""
    ctx.changes.append(change)


async def append_changes(ctx: OpContext) -> list[Tenant]:
    """Write one entry for each noted change; whose each one is.

    Holds the head's row until the transaction ends: one writer at a time.
    """
    return await append_entries(ctx, ctx.changes)


async def append_entries(ctx: OpContext, changes: Sequence[Change]) -> list[Tenant]:
    """Write these entries; for what happens outside of Operations, for example a sign-in."""
    if not changes:
        return []
    found = []
    tenants = TenantFinder(ctx.session)
    head = await _lock_head(ctx.session)
    for change in changes:
        tenant = await tenants.find(change, ctx.actor)
        found.append(tenant)
        entry = AuditEntry(
            number=head.number + 1,
            at=ctx.now,
            actor=ctx.actor.reference,
            actor_name=ctx.actor.name,
            address=ctx.actor.address[:64] or None,
            account_id=tenant.account_id,
            client_id=tenant.client_id,
            reseller_id=tenant.reseller_id,
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
    return found


def entry_hash(entry: AuditEntry) -> str:
    """The hash that an entry must have."""
    return hash_entry({name: getattr(entry, name) for name in _NAMES if name not in ("at", "hash")} | _stamp(entry.at))


def render_entry(row: Row[Any]) -> dict[str, Any]:
    """A row of COLUMNS as what is hashed and exported: plain values."""
    entry = dict(zip(_NAMES, row, strict=True))
    return entry | _stamp(entry["at"])


def _stamp(at: datetime) -> dict[str, str]:
    return {"at": at.isoformat(timespec="microseconds")}


async def read_entries(
    session: AsyncSession, statement: Select[Any], *, after: int, until: int | None = None
) -> AsyncIterator[list[dict[str, Any]]]:
    """Batches of entries in the order of their numbers; a long log does not have to fit into memory."""
    while True:
        batch = await read_batch(session, statement, after=after, until=until)
        if batch:
            yield batch
            after = batch[-1]["number"]
        if len(batch) < BATCH:
            return


async def read_batch(
    session: AsyncSession, statement: Select[Any], *, after: int, until: int | None = None
) -> list[dict[str, Any]]:
    """Up to BATCH entries with a number above `after` and not above `until`."""
    statement = statement.where(AuditEntry.number > after)
    if until is not None:
        statement = statement.where(AuditEntry.number <= until)
    rows = await session.execute(statement.order_by(AuditEntry.number).limit(BATCH))
    return [render_entry(row) for row in rows]


class _Walk:
    """Along the chain, as far as it is good."""

    def __init__(self, session: AsyncSession, signed: Mapping[int, str], start: tuple[int, str]) -> None:
        self._session = session
        self._signed = signed
        """Checkpoints: number to hash."""
        self.number, self.hash = start
        self.checkpoints = 0

    async def go(self, *, until: int | None = None) -> str:
        """Go on to the end, or to this entry; why it cannot go further, or nothing."""
        async for batch in read_entries(self._session, _SELECT_UNREAD, after=self.number, until=until):
            for entry in batch:
                reason = self._find_fault(entry) or self._find_contradiction(entry)
                if reason:
                    return reason
                self.number, self.hash = entry["number"], entry["hash"]
                self.checkpoints += self.number in self._signed
        return ""

    def _find_fault(self, entry: dict[str, Any]) -> str:
        """Almost always the fast encoder writes the very bytes that are hashed; where it does not, the other judges."""
        states = (entry["before"], entry["after"])
        entry["before"], entry["after"] = (None if raw is None else _DECODE(raw) for raw in states)
        is_next = entry["number"] == self.number + 1 and entry["previous_hash"] == self.hash
        if is_next and hash_content(self.hash, _ENCODE(select_content(entry))) == entry["hash"]:
            return ""
        entry["before"], entry["after"] = (None if raw is None else json.loads(raw) for raw in states)
        return find_fault(entry, self.number, self.hash)

    def _find_contradiction(self, entry: Mapping[str, Any]) -> str:
        number = entry["number"]
        if self._signed.get(number, entry["hash"]) == entry["hash"]:
            return ""
        return f"entry {number} is not the one of the signed checkpoint: the log was written anew"

    def find_missing(self, head: tuple[int, str]) -> str:
        """Why this cannot be the end."""
        if head != (self.number, self.hash):
            return f"the log ends at {self.number}, but {head[0]} entries were written"
        if max(self._signed, default=0) > self.number:
            return f"the log ends at {self.number}, and a checkpoint proves {max(self._signed)} entries"
        return ""


async def verify_chain(session: AsyncSession, *, start: tuple[int, str] = (0, GENESIS_HASH)) -> ChainReport:
    """Walk from the first entry to the last and stop at the first one that does not fit. Changes nothing.

    `start` is the number and hash of the last entry that is archived.

    Checkpoints are compared by their hash; whether their signatures are good is for who knows the key.
    """
    walk = _Walk(session, await _read_checkpoints(session), start)
    reason = await walk.go()
    if not reason:
        head = await read_head(session)
        # What was written while we walked belongs to it.
        reason = await walk.go(until=head[0]) or walk.find_missing(head)
    return ChainReport(
        entries=walk.number,
        head_hash=walk.hash,
        checkpoints=walk.checkpoints,
        first_bad_number=walk.number + 1 if reason else None,
        reason=reason,
    )


async def read_head(session: AsyncSession) -> tuple[int, str]:
    """Number and hash of the last entry that was written."""
    head = (await session.execute(select(AuditHead.number, AuditHead.hash).where(AuditHead.id == HEAD_ID))).first()
    return (head.number, head.hash) if head is not None else (0, GENESIS_HASH)


async def _read_checkpoints(session: AsyncSession) -> Mapping[int, str]:
    rows = await session.execute(select(AuditCheckpoint.number, AuditCheckpoint.hash))
    return {row.number: row.hash for row in rows}


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
