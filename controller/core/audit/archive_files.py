"""Whether the file of an archive still proves its entries."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from controller.core.audit.archive_models import AuditArchive
from shared.audit_proof import parse_lines
from shared.audit_walk import verify_export

_CHUNK_BYTES: Final = 1024 * 1024


async def judge_archive(folder: Path | None, archive: AuditArchive, public_key: bytes) -> str | None:
    """What is wrong with an archive's file; empty: nothing; None: it is not here."""
    path = None if folder is None else folder / archive.name
    if path is None or not path.is_file():
        return None
    known = {"public_key": public_key, "first": archive.first, "last": archive.last, "hash": archive.hash}
    try:
        size_bytes, sha256, reason = await asyncio.to_thread(read_and_judge, path, known)
    except OSError as error:
        return f"it cannot be read: {error}"
    if (size_bytes, sha256) != (archive.size_bytes, archive.sha256):
        return reason or "it is not the file that was written"
    return reason


def read_and_judge(path: Path, known: Mapping[str, Any]) -> tuple[int, str, str]:
    """Size and hash of the file, and why it is no proof of these entries."""
    digest = hashlib.sha256()
    with path.open("rb") as raw:
        while chunk := raw.read(_CHUNK_BYTES):
            digest.update(chunk)
        size_bytes = raw.tell()
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            report = verify_export(parse_lines(lines), public_key=known["public_key"])
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        return size_bytes, digest.hexdigest(), f"it was edited or cut off: {error}"
    reason = report.reason
    if not reason and (report.first, report.last, report.head_hash) != (known["first"], known["last"], known["hash"]):
        reason = "it holds other entries"
    if not reason and report.proven_until != known["last"]:
        reason = "its end has no signed checkpoint"
    return size_bytes, digest.hexdigest(), reason
