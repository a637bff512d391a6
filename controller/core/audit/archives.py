"""Old entries as files: an export that proves itself, verified before a single entry leaves the database.

Invariant: an archive ends at an entry with a signed checkpoint and begins where the one before ended, and its row names
the file's hash. The row is append-only, its making is an audit entry, and the database's triggers let only entries go
that a row names. What is archived can be moved elsewhere; a verification then says that it is not here.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import delete, func, select

from controller.core.audit.archive_files import read_and_judge
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
        folder: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._operations = operations
        self._checkpoints = checkpoints
        self._folder = folder
        self._clock = clock

    async def run(self) -> str | None:
        """Archive up to the newest checkpoint that is old enough, and remove what is archived.

        Raises:
            BugError: The file that was written does not prove itself; nothing was removed.
            OSError: The disk.
        """
        removed = await self._remove_archived()  # what a crash left
        wanted = await self._choose()
        if wanted is None:
            return f"{removed} archived entries removed" if removed else None
        first, last, previous_hash, value = wanted
        name, size_bytes, sha256 = await self._write(first, last, value)

        async def note(ctx: FleetContext) -> None:
            row = AuditArchive(
                first=first, last=last, hash=value, previous_hash=previous_hash, at=ctx.now, name=name,
                size_bytes=size_bytes, sha256=sha256,
            )  # fmt: skip
            ctx.session.add(row)
            await ctx.session.flush()
            after = {"first": first, "last": last, "hash": value, "name": name, "sha256": sha256}
            record(ctx, Change(action="audit.archive", target=f"audit_archive/{row.id}", target_name=name, after=after))

        await self._operations.change(SYSTEM, "archive", note)
        await self._remove_archived()
        return f"entries {first} to {last} are in {name}"

    async def _choose(self) -> tuple[int, int, str, str] | None:
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

    async def _write(self, first: int, last: int, value: str) -> tuple[str, int, str]:
        """The file, on the disk and proven: its name, size and hash."""
        name = f"audit-{first}-{last}.jsonl.gz"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._folder / f".{name}.new"
        wish = ExportWish(wanted=AuditFilter(), first=first, last=last)
        async with self._operations.database.read() as session:
            number, head_hash = await read_head(session)
            head = await make_head(session, wish, self._checkpoints, last=last, end=(number, head_hash))
        head = {**head, "made_at": self._clock().isoformat(), "made_for": SYSTEM.reference}
        with temporary.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
            os.fchmod(raw.fileno(), 0o600)
            async for part in write_export(self._operations.database, Export(wish=wish, last=last, head=head)):
                await asyncio.to_thread(file.write, part)
        known: dict[str, Any] = {
            "public_key": self._checkpoints.public_key,
            "first": first,
            "last": last,
            "hash": value,
        }
        size_bytes, sha256, reason = await asyncio.to_thread(read_and_judge, temporary, known)
        if reason:
            temporary.unlink()
            raise BugError(f"the archive of entries {first} to {last} does not prove itself: {reason}")
        with temporary.open("rb") as done:
            os.fsync(done.fileno())
        temporary.replace(self._folder / name)
        return name, size_bytes, sha256

    async def _remove_archived(self) -> int:
        """Take entries out of the database that an archive names, a batch in a transaction; how many."""
        async with self._operations.database.read() as session:
            last = (await session.execute(select(func.max(AuditArchive.last)))).scalar_one()
            lowest = (await session.execute(select(func.min(AuditEntry.number)))).scalar_one()
        removed = 0
        while last is not None and lowest is not None and lowest <= last:
            upto = min(last, lowest + DELETE_BATCH - 1)
            async with self._operations.database.write() as session:
                gone = delete(AuditEntry).where(AuditEntry.number <= upto)
                await session.execute(gone, execution_options={"synchronize_session": False})
            removed += upto - lowest + 1
            lowest = upto + 1
        return removed
