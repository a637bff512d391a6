"""The files of archives: in parts in the database, where every process finds them; and whether one is still a proof.

A part is small, so that neither a process nor a transaction has to hold a whole file.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any, Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.archive_models import AuditArchive, AuditArchivePart
from controller.core.operations import take_turn
from controller.db.engine import Database
from shared.audit_proof import parse_lines
from shared.audit_walk import verify_export

PART_BYTES: Final = 512 * 1024


async def store_file(database: Database, file: IO[bytes], sha256: str) -> None:
    """Write the file's parts, each in a transaction of its own; nothing refers to them yet."""
    file.seek(0)
    number = 0
    while content := await asyncio.to_thread(file.read, PART_BYTES):
        async with database.write() as session:
            session.add(AuditArchivePart(sha256=sha256, number=number, content=content))
        number += 1


async def read_file(database: Database, sha256: str) -> AsyncIterator[bytes]:
    """The file, part by part; nothing where it is not here. It ends early where a part is missing."""
    number = 0
    while True:
        async with database.read() as session:
            content = await find_part(session, sha256, number)
        if content is None:
            return
        yield content
        number += 1


async def find_part(session: AsyncSession, sha256: str, number: int) -> bytes | None:
    """One part."""
    wanted = (AuditArchivePart.sha256 == sha256, AuditArchivePart.number == number)
    return (await session.execute(select(AuditArchivePart.content).where(*wanted))).scalar_one_or_none()


async def forget_leftovers(database: Database) -> None:
    """Remove the parts of files that no archive names: of a run that ended in the middle.

    In its turn among changes, so that an archive that is being named meanwhile keeps its own.
    """
    named = select(AuditArchive.sha256)
    async with database.write() as session:
        await take_turn(database, session)
        gone = delete(AuditArchivePart).where(AuditArchivePart.sha256.not_in(named))
        await session.execute(gone, execution_options={"synchronize_session": False})


async def judge_archive(session: AsyncSession, archive: AuditArchive, public_key: bytes) -> str | None:
    """What is wrong with an archive's file; empty: nothing; None: it is not here."""
    with tempfile.TemporaryFile() as file:
        number = 0
        while (content := await find_part(session, archive.sha256, number)) is not None:
            await asyncio.to_thread(file.write, content)
            number += 1
        if number == 0:
            return None
        known = {"public_key": public_key, "first": archive.first, "last": archive.last, "hash": archive.hash}
        size_bytes, sha256, reason = await asyncio.to_thread(read_and_judge, file, known)
    if (size_bytes, sha256) != (archive.size_bytes, archive.sha256):
        return reason or "it is not the file that was written"
    return reason


def read_and_judge(file: IO[bytes], known: Mapping[str, Any]) -> tuple[int, str, str]:
    """Size and hash of the file, and why it is no proof of these entries."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(PART_BYTES):
        digest.update(chunk)
    size_bytes = file.tell()
    file.seek(0)
    try:
        with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
            report = verify_export(parse_lines(lines), public_key=known["public_key"])
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        return size_bytes, digest.hexdigest(), f"it was edited or cut off: {error}"
    reason = report.reason
    if not reason and (report.first, report.last, report.head_hash) != (known["first"], known["last"], known["hash"]):
        reason = "it holds other entries"
    if not reason and report.proven_until != known["last"]:
        reason = "its end has no signed checkpoint"
    return size_bytes, digest.hexdigest(), reason
