"""Old entries as files: an export that proves itself, verified before a single entry leaves the database.

Invariant: an archive ends at an entry with a signed checkpoint and begins where the one before ended, and its row names
the file's hash. The row is append-only, its making is an audit entry, and the database's triggers let only entries go
that a row names. The files are in the database, in parts, so that every process can verify and serve them.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select

from controller.core.audit.archive_files import find_part, forget_leftovers, read_and_judge, store_file
from controller.core.audit.archive_models import AuditArchive
from controller.core.audit.chain import read_head, record
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.export import Export, ExportWish, make_head, write_export
from controller.core.audit.models import AuditCheckpoint, AuditEntry
from controller.core.audit.selection import AuditFilter
from controller.core.context import SYSTEM, Change
from controller.core.operations import FleetContext, Operations
from controller.core.policies.book import read_now
from controller.db.base import utc_now
from shared.audit_proof import GENESIS_HASH
from shared.errors import BugError

PERIOD_SECONDS: Final = 3600.0
ENTRIES_MAX: Final = 200_000
"""In one archive, unless the checkpoints are further apart."""
DELETE_BATCH: Final = 2000


class AuditArchiving:
    """A schedule's work; safe to run again at any moment, also after a crash in the middle."""

    def __init__(
        self,
        operations: Operations,
        checkpoints: Checkpoints,
        *,
        delete_batch: int = DELETE_BATCH,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._operations = operations
        self._checkpoints = checkpoints
        self._delete_batch = delete_batch
        self._clock = clock

    async def run(self) -> str | None:
        """Archive up to the newest checkpoint that is old enough, and remove what is archived.

        Raises:
            BugError: The file that was written does not prove itself; nothing was removed.
            OSError: The disk.
        """
        removed = await self.remove_archived()  # what a crash left
        await forget_leftovers(self._operations.database)
        wanted = await self.choose()
        if wanted is None:
            return f"{removed} archived entries removed" if removed else None
        first, last, previous_hash, value = wanted
        name = await self.archive(first, last, previous_hash, value)
        await self.remove_archived()
        return f"entries {first} to {last} are in {name}"

    async def archive(self, first: int, last: int, previous_hash: str, value: str) -> str:
        """Write the archive of these entries and name it; they stay in the database until `remove_archived`."""
        name = f"audit-{first}-{last}.jsonl.gz"
        size_bytes, sha256 = await self._write(first, last, value)

        async def note(ctx: FleetContext) -> None:
            await _require_stored(ctx, sha256, size_bytes)
            row = AuditArchive(
                first=first, last=last, hash=value, previous_hash=previous_hash, at=ctx.now, name=name,
                size_bytes=size_bytes, sha256=sha256,
            )  # fmt: skip
            ctx.session.add(row)
            await ctx.session.flush()
            after = {"first": first, "last": last, "hash": value, "name": name, "sha256": sha256}
            record(ctx, Change(action="audit.archive", target=f"audit_archive/{row.id}", target_name=name, after=after))

        await self._operations.change(SYSTEM, "archive", note)
        return name

    async def choose(self) -> tuple[int, int, str, str] | None:
        """First and last entry of the next archive, the hash before it, and its own last hash."""
        days = (await read_now(self._operations.database)).audit_retention_days
        if days is None:
            return None
        before = self._clock() - timedelta(days=days)
        async with self._operations.database.read() as session:
            newest = select(AuditArchive).order_by(AuditArchive.last.desc()).limit(1)
            archive = (await session.scalars(newest)).one_or_none()
            done, previous_hash = (0, GENESIS_HASH) if archive is None else (archive.last, archive.hash)
            old = select(AuditCheckpoint).where(AuditCheckpoint.number > done, AuditCheckpoint.at < before)
            within = old.where(AuditCheckpoint.number <= done + ENTRIES_MAX).order_by(AuditCheckpoint.number.desc())
            found = (await session.scalars(within.limit(1))).one_or_none()
            if found is None:
                found = (await session.scalars(old.order_by(AuditCheckpoint.number).limit(1))).one_or_none()
        return None if found is None else (done + 1, found.number, previous_hash, found.hash)

    async def _write(self, first: int, last: int, value: str) -> tuple[int, str]:
        """The file, in the database and proven: its size and hash."""
        wish = ExportWish(wanted=AuditFilter(), first=first, last=last)
        async with self._operations.database.read() as session:
            number, head_hash = await read_head(session)
            head = await make_head(session, wish, self._checkpoints, last=last, end=(number, head_hash))
        head = {**head, "made_at": self._clock().isoformat(), "made_for": SYSTEM.reference}
        known: dict[str, Any] = {
            "public_key": self._checkpoints.public_key,
            "first": first,
            "last": last,
            "hash": value,
        }
        with tempfile.TemporaryFile() as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
                async for part in write_export(self._operations.database, Export(wish=wish, last=last, head=head)):
                    await asyncio.to_thread(file.write, part)
            size_bytes, sha256, reason = await asyncio.to_thread(read_and_judge, raw, known)
            if reason:
                raise BugError(f"the archive of entries {first} to {last} does not prove itself: {reason}")
            await store_file(self._operations.database, raw, sha256)
        return size_bytes, sha256

    async def remove_archived(self) -> int:
        """Take entries out of the database that an archive names, a batch in a transaction; how many."""
        async with self._operations.database.read() as session:
            last = (await session.execute(select(func.max(AuditArchive.last)))).scalar_one()
            lowest = (await session.execute(select(func.min(AuditEntry.number)))).scalar_one()
        removed = 0
        while last is not None and lowest is not None and lowest <= last:
            upto = min(last, lowest + self._delete_batch - 1)
            async with self._operations.database.write() as session:
                gone = delete(AuditEntry).where(AuditEntry.number <= upto)
                await session.execute(gone, execution_options={"synchronize_session": False})
            removed += upto - lowest + 1
            lowest = upto + 1
        return removed


async def _require_stored(ctx: FleetContext, sha256: str, size_bytes: int) -> None:
    """Pass when the whole file is in the database, as it was proven: read back, because entries go on its word.

    Raises:
        BugError: It is not; nothing was named or removed.
    """
    digest, number = hashlib.sha256(), 0
    stored_bytes = 0
    while (content := await find_part(ctx.session, sha256, number)) is not None:
        digest.update(content)
        stored_bytes, number = stored_bytes + len(content), number + 1
    if (stored_bytes, digest.hexdigest()) != (size_bytes, sha256):
        raise BugError(f"the archive {sha256} was not stored as it was written")
