"""Signed checkpoints: what the end of the log was, in the words of a key that the database does not have.

Who can change the database and its triggers can write the whole chain anew, with hashes that fit. They cannot write it
so that it fits a checkpoint that was signed before; and whoever keeps an export or a checkpoint elsewhere can show it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.archive_files import judge_archive
from controller.core.audit.archive_models import AuditArchive
from controller.core.audit.chain import ChainReport, read_head, verify_chain
from controller.core.audit.models import AuditCheckpoint
from controller.core.audit.witness_records import find_witness_fault
from controller.core.context import OpContext
from controller.core.paging import PageRequest, fetch_page
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.signing.signer import Signer
from shared.audit_proof import (
    CHECKPOINT_TYPE,
    GENESIS_HASH,
    Checkpoint,
    ProofError,
    parse_checkpoint,
    render_checkpoint,
)
from shared.errors import RefusedError
from shared.protocol.envelope import Envelope, Signature, verify_envelope

PERIOD_SECONDS: Final = 3600.0
"""What is written and rewritten within one period is proven by no checkpoint."""
VERIFY_AGAIN: Final = 3


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the audit log at some moment, signed."""

    id: str
    number: Annotated[int, Meta(description="So many entries there were.")]
    hash: Annotated[str, Meta(description="Of the last of them.")]
    at: datetime
    payload: Annotated[str, Meta(description="What was signed, byte for byte.")]
    kid: Annotated[str, Meta(description="Which key signed; nodes have pinned its public half.")]
    signature: Annotated[str, Meta(description="Ed25519 over the DSSE encoding of the payload, base64.")]


class CheckpointPage(msgspec.Struct, frozen=True, kw_only=True):
    """Checkpoints, newest first."""

    items: tuple[CheckpointView, ...]
    next_cursor: str | None
    public_key: Annotated[str, Meta(description="Of the root key, base64: `wcp360 audit verify --public-key`.")]


class Checkpoints:
    """Makes them, and tells who can prove what."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.database = database
        self._signer = signer
        self._clock = clock

    @property
    def cluster_id(self) -> str:
        """Whose log it is."""
        return self._signer.cluster_id

    @property
    def public_key(self) -> bytes:
        """32 bytes of Ed25519."""
        return self._signer.root_public_key

    @property
    def public_key_text(self) -> str:
        """base64."""
        return base64.b64encode(self.public_key).decode()

    async def make(self) -> str | None:
        """Sign the end of the log as it is now, unless nothing was written since the last time. What a schedule runs.

        Raises:
            RefusedError: `checkpoint_behind`: the log is not a continuation of what was signed.
            UnavailableError: The signer does not answer.
        """
        async with self.database.read() as session:
            number, value = await read_head(session)
            last = await _find_last(session)
        if number == (last.number if last is not None else 0):
            return None
        now = self._clock()
        checkpoint = Checkpoint(cluster_id=self.cluster_id, number=number, hash=value, at=now.isoformat())
        payload = render_checkpoint(checkpoint)
        # Signed even where the rows say that it goes back: the signer, which remembers, is to refuse it loudly.
        envelope = await self._signer.sign_checkpoint(payload.encode())
        signature = envelope.signatures[0]
        row = AuditCheckpoint(
            number=number,
            hash=value,
            at=now,
            payload=payload,
            kid=signature.kid,
            signature=base64.b64encode(signature.sig).decode(),
        )
        async with self.database.write() as session:
            session.add(row)
        return f"signed at entry {number}"

    async def verify(self, session: AsyncSession) -> ChainReport:
        """Walk along archives and chain, and check the signatures too."""
        report, archived = await self._walk(session)
        for _ in range(VERIFY_AGAIN):
            # What was archived under the walk's feet looks like a gap.
            if report.first_bad_number is None or archived == await _count_archived(session):
                break
            report, archived = await self._walk(session)
        return report

    async def _walk(self, session: AsyncSession) -> tuple[ChainReport, int]:
        archived = await self._verify_archives(session)
        if archived.first_bad_number is not None:
            return archived, archived.archived
        return await self._verify_entries(session, archived), archived.archived

    async def _verify_entries(self, session: AsyncSession, archived: ChainReport) -> ChainReport:
        report = await verify_chain(session, start=(archived.archived, archived.head_hash))
        report = msgspec.structs.replace(
            report,
            archived=archived.archived,
            absent=archived.absent,
            checkpoints=report.checkpoints + archived.checkpoints,
        )
        if report.first_bad_number is not None:
            return report
        for row in await list_checkpoints(session, first=0, last=report.entries):
            if not _is_signed(row, self.public_key):
                reason = f"the checkpoint at entry {row.number} is not signed by this controller's key"
                return msgspec.structs.replace(report, first_bad_number=row.number, reason=reason)
        found = await find_witness_fault(session)
        if found is not None:
            return msgspec.structs.replace(report, first_bad_number=found[0], reason=found[1])
        return report

    async def _verify_archives(self, session: AsyncSession) -> ChainReport:
        """From the first entry to the end of the last archive, as far as the files are here."""
        rows = list(await session.scalars(select(AuditArchive).order_by(AuditArchive.last)))
        ends = await list_checkpoints(session, first=1, last=await _count_archived(session))
        signed = {row.number: row.hash for row in ends}
        number, value, absent, bad = 0, GENESIS_HASH, [], ""
        for row in rows:
            if (row.first, row.previous_hash) != (number + 1, value):
                bad = f"the archive {row.name} does not continue entry {number}"
            elif signed.get(row.last) != row.hash:
                bad = f"the archive {row.name} does not end at a signed checkpoint"
            else:
                found = await judge_archive(session, row, self.public_key)
                if found is None:
                    absent.append(f"{row.name}: entries {row.first} to {row.last}, SHA-256 {row.sha256}")
                bad = f"the archive {row.name}: {found}" if found else ""
            if bad:
                break
            number, value = row.last, row.hash
        return ChainReport(
            entries=number,
            head_hash=value,
            checkpoints=len(signed),
            first_bad_number=number + 1 if bad else None,
            reason=bad,
            archived=number,
            absent=tuple(absent),
        )

    async def list_page(self, ctx: OpContext, page: PageRequest) -> CheckpointPage:
        """Newest first.

        Raises:
            ForbiddenError, InvalidInputError
        """
        ctx.actor.require_platform("audit", "read")
        found = await fetch_page(ctx.session, select(AuditCheckpoint), page)
        return CheckpointPage(
            items=tuple(_view(row) for row in found.rows),
            next_cursor=found.next_cursor,
            public_key=self.public_key_text,
        )


async def list_checkpoints(session: AsyncSession, *, first: int, last: int) -> list[AuditCheckpoint]:
    """Those at these entries, oldest first."""
    statement = select(AuditCheckpoint).where(AuditCheckpoint.number >= first, AuditCheckpoint.number <= last)
    return list(await session.scalars(statement.order_by(AuditCheckpoint.number)))


async def _count_archived(session: AsyncSession) -> int:
    return (await session.execute(select(func.max(AuditArchive.last)))).scalar_one() or 0


async def _find_last(session: AsyncSession) -> AuditCheckpoint | None:
    return (
        await session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1))
    ).one_or_none()


def _is_signed(row: AuditCheckpoint, public_key: bytes) -> bool:
    """With the library, not `is_checkpoint_signed`: a year of them is checked while others wait for their answers."""
    signature = Signature(kid=row.kid, sig=base64.b64decode(row.signature))
    envelope = Envelope(payload_type=CHECKPOINT_TYPE, payload=row.payload.encode(), signatures=(signature,))
    key = Ed25519PublicKey.from_public_bytes(public_key)
    try:
        verify_envelope(envelope, payload_type=CHECKPOINT_TYPE, keys={row.kid: key})
        signed = parse_checkpoint(row.payload)
    except (RefusedError, ProofError):
        return False
    return (signed.number, signed.hash) == (row.number, row.hash)


def _view(row: AuditCheckpoint) -> CheckpointView:
    return CheckpointView(
        id=row.id,
        number=row.number,
        hash=row.hash,
        at=row.at,
        payload=row.payload,
        kid=row.kid,
        signature=row.signature,
    )
