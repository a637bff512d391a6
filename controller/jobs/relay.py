"""From `requested` to `queued`: a job gets its number and its signature when its lane is free.

Everything happens in one transaction, so a crash leaves a job either unsigned and without a number, or with both.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controller.jobs import models
from controller.jobs.ports import NodeDirectory, NodeIdentity, Signer
from controller.jobs.states import IN_LANE, JobState
from controller.jobs.transitions import transition
from shared.protocol.job import ACTION_CONVERGE, Job, JobMode, encode_job
from shared.specs.manifest import NODE_SUBJECT

BATCH: Final = 64


async def has_requests(session: AsyncSession) -> bool:
    """Whether anything waits for a signature; cheap enough to ask all the time."""
    waiting = select(models.Job.id).where(models.Job.state == JobState.REQUESTED).limit(1)
    return (await session.execute(waiting)).first() is not None


async def sign_batch(
    session: AsyncSession, *, signer: Signer, nodes: NodeDirectory, now: datetime, limit: int = BATCH
) -> list[str]:
    """Sign the first job of each free lane, up to `limit`; return the ids of the nodes that have something to fetch.

    Jobs of nodes that are revoked or gone are discarded.

    Raises:
        UnavailableError: The signer does not answer; nothing was changed then.
    """
    ready: list[str] = []
    for job in await _find_heads_of_lanes(session, now, limit):
        identity = await nodes.find_identity(session, job.node_id)
        if identity is None or not identity.is_active:
            note = "the node is revoked" if identity else "the node is gone"
            await transition(session, job.id, {JobState.REQUESTED}, JobState.DISCARDED, now=now, note=note)
            continue
        await _sign(session, job, identity, signer=signer, now=now)
        ready.append(job.node_id)
    return ready


async def _find_heads_of_lanes(session: AsyncSession, now: datetime, limit: int) -> Sequence[models.Job]:
    other = aliased(models.Job)
    same_lane = other.resource_key == models.Job.resource_key
    # What an account needs, the node itself must have first: its manifest comes before accounts asked for later.
    needs_modules = and_(
        models.Job.action == ACTION_CONVERGE,
        other.resource_key == NODE_SUBJECT,
        other.mode == JobMode.APPLY,
        other.id < models.Job.id,
    )
    is_earlier = or_(other.state.in_(IN_LANE), and_(other.state == JobState.REQUESTED, other.id < models.Job.id))
    is_blocked = exists().where(other.node_id == models.Job.node_id, or_(same_lane, needs_modules), is_earlier)
    statement = (
        select(models.Job)
        .where(models.Job.state == JobState.REQUESTED, models.Job.not_before <= now, ~is_blocked)
        .order_by(models.Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalars().all()


async def _sign(
    session: AsyncSession, job: models.Job, identity: NodeIdentity, *, signer: Signer, now: datetime
) -> None:
    seq = await _next_seq(session, job.node_id)
    payload = encode_job(
        Job(
            cluster_id=signer.cluster_id,
            node_id=job.node_id,
            node_gen=identity.node_gen,
            job_id=job.delivery_id,
            nonce=secrets.token_bytes(16),
            seq=seq,
            action=job.action,
            args=job.args,
            resource_key=job.resource_key,
            generation=job.generation,
            mode=job.mode,
            semantics=job.semantics,
            actor=job.actor,
            request_id=job.request_id,
            issued_at=now.timestamp(),
            not_before=now.timestamp(),
            expires_at=max(job.expires_at, now).timestamp(),
            max_runtime_seconds=job.max_runtime_seconds,
        )
    )
    envelope = await signer.sign_job(payload)
    signed = {"seq": seq, "payload": envelope.payload, "signatures": msgspec.msgpack.encode(envelope.signatures)}
    await transition(
        session, job.id, {JobState.REQUESTED}, JobState.QUEUED, now=now, note=f"signed as number {seq}", **signed
    )


async def _next_seq(session: AsyncSession, node_id: str) -> int:
    """The node's next number. Its row stays locked until the transaction ends, so numbers have no gaps."""
    add_one = (
        update(models.NodeSequence)
        .where(models.NodeSequence.id == node_id)
        .values(last_seq=models.NodeSequence.last_seq + 1)
        .returning(models.NodeSequence.last_seq)
        .execution_options(synchronize_session=False)
    )
    seq = (await session.execute(add_one)).scalar_one_or_none()
    if seq is None:
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        first = insert(models.NodeSequence).values(id=node_id, last_seq=0)
        await session.execute(first.on_conflict_do_nothing(index_elements=["id"]))
        seq = (await session.execute(add_one)).scalar_one()
    return seq
