"""Shows each checkpoint to the nodes that are connected, and keeps what they say of it.

Who has this controller's database and its root key can write another log and sign it. They do not have the nodes: each
keeps what it was shown, signs it with a key of its own, and refuses an end that contradicts an earlier one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Protocol

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.audit.models import AuditCheckpoint
from controller.core.audit.witness_models import AuditContradiction, AuditWitness, AuditWitnessCertificate
from controller.core.context import SYSTEM, Change
from controller.core.operations import FleetContext, Operations
from controller.db.base import utc_now
from controller.fleet.gateway.session import NodeSession
from controller.fleet.models import Node, NodeCertificate
from controller.fleet.signing.signer import Signer
from controller.jobs.loops import Loops
from shared.audit_proof import ProofError, parse_checkpoint
from shared.audit_witness import is_statement_signed, parse_statement
from shared.errors import FleetError
from shared.node_certificate import CertificateError, parse_certificates
from shared.protocol.witness import CheckpointSeen, ShowCheckpoint

POLL_SECONDS: Final = 15.0
FLUSH_SECONDS: Final = 1.0
SIGNERS_MAX: Final = 50
"""So many nodes of a process sign one checkpoint, the next one others; all the others remember it."""
WAITING_MAX: Final = 10_000
_CODES: Final = frozenset({"checkpoint_fork", "checkpoint_behind"})

_log = structlog.get_logger("controller.audit")


class Line(Protocol):
    """What is needed of the gateway."""

    on_checkpoint_seen: Callable[[str, CheckpointSeen], None]

    @property
    def sessions(self) -> tuple[NodeSession, ...]: ...


class Witnesses:
    """Of the nodes that are connected to this process."""

    def __init__(
        self, operations: Operations, signer: Signer, line: Line, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._operations = operations
        self._signer = signer
        self._line = line
        self._clock = clock
        self._loops = Loops()
        self._waiting: list[tuple[str, CheckpointSeen]] = []
        line.on_checkpoint_seen = self.note

    async def start(self) -> None:
        """Begin to show."""
        self._loops.spawn(self._run(), name="witnesses")

    async def stop(self) -> None:
        """Show no more; what was said is written."""
        await self._loops.stop()

    def note(self, node_id: str, seen: CheckpointSeen) -> None:
        """A node has answered. Written in a moment; what is dropped is asked for again with the next checkpoint."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append((node_id, seen))

    async def _run(self) -> None:
        rounds = round(POLL_SECONDS / FLUSH_SECONDS)
        left = 0
        while True:
            try:
                if left == 0:
                    await self.show()
                await self.flush()
            except (SQLAlchemyError, FleetError, OSError) as error:
                _log.warning("audit.witnesses", error=str(error))
            left = (left or rounds) - 1
            if not await self._loops.pause(FLUSH_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                return

    async def show(self) -> int:
        """Show the newest checkpoint to those who have not seen it in their session; to how many."""
        async with self._operations.database.read() as session:
            newest = select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1)
            last = (await session.scalars(newest)).one_or_none()
        if last is None:
            return 0
        able = [line for line in self._line.sessions if line.can_witness]
        signers = choose_signers((line.node_id for line in able), last.number)
        fresh = [line for line in able if line.shown_checkpoint != last.number]
        for line in fresh:
            line.shown_checkpoint = last.number
            is_wanted = line.node_id in signers
            shown = ShowCheckpoint(
                payload=last.payload, kid=last.kid, signature=last.signature, wants_signature=is_wanted
            )
            line.post([shown])
        return len(fresh)

    async def flush(self) -> None:
        """Write what nodes said since the last time."""
        answers, self._waiting = self._waiting, []
        signed = [(node_id, seen) for node_id, seen in answers if seen.statement and not seen.refusal]
        refused = [(node_id, seen) for node_id, seen in answers if seen.refusal in _CODES]
        if signed:
            authorities = {info.ca_id: info.pem for info in (await self._signer.list_authorities()).trusted}
            async with self._operations.database.write() as session:
                for node_id, seen in signed:
                    reason = await _keep(session, node_id, seen, authorities)
                    if reason:
                        _log.warning("audit.witness_unusable", node_id=node_id, number=seen.number, reason=reason)
        for node_id, seen in refused:
            await self._report(node_id, seen)

    async def _report(self, node_id: str, seen: CheckpointSeen) -> None:
        async def contradict(ctx: FleetContext) -> None:
            await _note_contradiction(ctx, node_id, seen)

        await self._operations.change(SYSTEM, "witness", contradict, is_for_maintenance=True)


def choose_signers(node_ids: Iterable[str], number: int) -> frozenset[str]:
    """Those who sign this checkpoint: others for each, the same whoever asks."""

    def rank(node_id: str) -> bytes:
        return hashlib.sha256(f"{number}:{node_id}".encode()).digest()

    return frozenset(sorted(node_ids, key=rank)[:SIGNERS_MAX])


async def _keep(session: AsyncSession, node_id: str, seen: CheckpointSeen, authorities: dict[str, str]) -> str:
    """Keep a signature; why not, or nothing."""
    known = select(AuditWitness.id).where(AuditWitness.node_id == node_id, AuditWitness.number == seen.number)
    if (await session.execute(known)).first() is not None:
        return ""
    checkpoint = (
        await session.scalars(select(AuditCheckpoint).where(AuditCheckpoint.number == seen.number))
    ).one_or_none()
    certificate = (
        await session.scalars(
            select(NodeCertificate).where(
                NodeCertificate.fingerprint == seen.fingerprint, NodeCertificate.node_id == node_id
            )
        )
    ).one_or_none()
    if checkpoint is None or certificate is None or certificate.issuer not in authorities:
        return "there is no such checkpoint or certificate"
    reason = _find_fault(seen, node_id, checkpoint, certificate.pem)
    if reason:
        return reason
    stored = select(AuditWitnessCertificate.id).where(AuditWitnessCertificate.fingerprint == seen.fingerprint)
    if (await session.execute(stored)).first() is None:
        pems = {"pem": certificate.pem, "authority_pem": authorities[certificate.issuer]}
        session.add(AuditWitnessCertificate(fingerprint=seen.fingerprint, **pems))
    session.add(
        AuditWitness(
            number=seen.number,
            node_id=node_id,
            payload=seen.statement,
            fingerprint=seen.fingerprint,
            signature=seen.signature[:200],
        )
    )
    await session.flush()
    return ""


def _find_fault(seen: CheckpointSeen, node_id: str, checkpoint: AuditCheckpoint, pem: str) -> str:
    try:
        said = parse_statement(seen.statement)
        (certificate,) = parse_certificates(pem)
    except (ProofError, CertificateError, ValueError) as error:
        return str(error)
    if (said.node_id, said.number, said.hash) != (node_id, checkpoint.number, checkpoint.hash):
        return "it is about something else"
    if parse_checkpoint(checkpoint.payload).cluster_id != said.cluster_id:
        return "it is about another controller"
    return "" if is_statement_signed(seen.statement, seen.signature, certificate) else "the signature is not good"


async def _note_contradiction(ctx: FleetContext, node_id: str, seen: CheckpointSeen) -> None:
    """Once for each end that a node holds against us: it says so again with every later checkpoint."""
    try:
        known = parse_checkpoint(seen.known)
    except ProofError:
        _log.warning("audit.witness_unusable", node_id=node_id, number=seen.number, reason="a refusal without proof")
        return
    noted = select(func.count()).where(
        AuditContradiction.node_id == node_id, AuditContradiction.known_number == known.number
    )
    name = (await ctx.session.execute(select(Node.name).where(Node.id == node_id))).scalar_one_or_none()
    if name is None or (await ctx.session.execute(noted)).scalar_one():
        return
    row = AuditContradiction(
        node_id=node_id,
        at=ctx.now,
        code=seen.refusal,
        shown_number=seen.number,
        shown_hash=seen.hash[:64],
        known_number=known.number,
        known_payload=seen.known[:4000],
    )
    ctx.session.add(row)
    after = {"code": seen.refusal, "shown_number": seen.number, "shown_hash": seen.hash[:64]}
    after |= {"known_number": known.number, "known_hash": known.hash[:64], "known_at": known.at[:40]}
    record(ctx, Change(action="audit.contradict", target=f"node/{node_id}", target_name=name, after=after))
