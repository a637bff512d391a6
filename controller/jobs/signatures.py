"""Signatures that a node cannot verify (yet, or any more): the job stays what it is and is signed again.

Only the signatures change. Payload, number and id stay, so a node that has the job already answers with its state, and
one that has not takes it once.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec
import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job
from controller.jobs.ports import Signer
from controller.jobs.states import JobState
from controller.jobs.transitions import transition
from shared.errors import RefusedError
from shared.protocol.envelope import Signature
from shared.protocol.job import ErrorBody

TRUST_CODES: Final = frozenset({"no_trust", "expired_bundle", "unknown_key", "revoked_key", "expired_key"})
"""A node refuses so before it has read anything: it needs a newer trust bundle, or the job another signature."""
_UNACCEPTED: Final = frozenset({JobState.QUEUED, JobState.OFFERED})
_log = structlog.get_logger("controller.jobs")


async def keep_for_trust(session: AsyncSession, job: Job, error: ErrorBody, *, now: datetime) -> None:
    """The node could not verify the job: it goes on being offered, for as long as it lives, without being counted."""
    if job.state is not JobState.OFFERED:
        return
    why = {"error_code": error.code, "error_message": error.message, "error_hint": error.hint}
    fewer = max(0, job.deliveries - 1)
    if job.error_code != error.code:
        note = f"the node does not believe the signature yet: {error.message}"
        await transition(
            session, job.id, {JobState.OFFERED}, JobState.OFFERED, now=now, note=note, deliveries=fewer, **why
        )
        return
    # Said before; a line for each time would fill the job's story.
    again = update(Job).where(Job.id == job.id, Job.state == JobState.OFFERED).values(deliveries=fewer, updated_at=now)
    await session.execute(again.execution_options(synchronize_session=False))


async def sign_again(session: AsyncSession, job: Job, *, signer: Signer) -> bool:
    """Give one job that no node has accepted the signatures of the keys that sign now; False when it got none.

    Raises:
        UnavailableError: The signer does not answer.
    """
    if job.payload is None or job.state not in _UNACCEPTED:
        return False
    try:
        envelope = await signer.sign_job(job.payload)
    except RefusedError as error:
        _log.warning("job.not_signed_again", job_id=job.id, code=error.code, reason=error.message)
        return False
    signatures = msgspec.msgpack.encode(envelope.signatures)
    resigned = update(Job).where(Job.id == job.id, Job.state.in_(_UNACCEPTED)).values(signatures=signatures)
    await session.execute(resigned.execution_options(synchronize_session=False))
    return True


async def sign_again_without(session: AsyncSession, kids: Collection[str], *, signer: Signer) -> list[str]:
    """Sign again every job that no node has accepted and that one of these keys signed; returns their nodes.

    Raises:
        UnavailableError: The signer does not answer.
    """
    waiting = select(Job).where(Job.state.in_(_UNACCEPTED), Job.signatures.is_not(None)).order_by(Job.id)
    node_ids: dict[str, None] = {}
    for job in (await session.execute(waiting)).scalars():
        signed_by = {item.kid for item in msgspec.msgpack.decode(job.signatures or b"\x90", type=tuple[Signature, ...])}
        if signed_by & set(kids) and await sign_again(session, job, signer=signer):
            node_ids[job.node_id] = None
    return list(node_ids)
