"""From `requested` to `queued`: a job gets its number and its signature when its lane is free.

Everything happens in one transaction, so a crash leaves a job either unsigned and without a number, or with both.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Executable, and_, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from controller.db.prepared import Driver, Prepared, param
from controller.jobs.holds import is_held
from controller.jobs.models import Job as JobModel
from controller.jobs.models import NodeSequence
from controller.jobs.ports import NodeDirectory, NodeIdentity, Signer
from controller.jobs.rows import Arrow, add_arrows
from controller.jobs.states import IN_LANE, WAITING, JobState
from shared.protocol.envelope import Envelope
from shared.protocol.job import ACTION_CONVERGE, Job, JobMode, Semantics, encode_job
from shared.specs.manifest import NODE_SUBJECT

BATCH: Final = 256


class _Head(NamedTuple):
    """The first job of a free lane; fields are columns."""

    id: str
    node_id: str
    delivery_id: str
    action: str
    args: bytes
    resource_key: str
    generation: int
    mode: JobMode
    semantics: Semantics
    actor: str
    request_id: str
    expires_at: datetime
    max_runtime_seconds: int


def _make_heads() -> Prepared:
    other = aliased(JobModel)
    same_lane = other.resource_key == JobModel.resource_key
    # What an account needs, the node itself must have first: its manifest comes before accounts asked for later.
    needs_modules = and_(
        JobModel.action == ACTION_CONVERGE,
        other.resource_key == NODE_SUBJECT,
        other.mode == JobMode.APPLY,
        other.id < JobModel.id,
    )
    is_earlier = or_(other.state.in_(IN_LANE), and_(other.state == JobState.REQUESTED, other.id < JobModel.id))
    # What waits for the end of a maintenance must not stand in the way of what need not: a dry run, for example.
    is_earlier = and_(is_earlier, or_(other.state.not_in(WAITING), ~is_held(other)))
    is_blocked = exists().where(other.node_id == JobModel.node_id, or_(same_lane, needs_modules), is_earlier)
    statement = (
        select(*(getattr(JobModel, name) for name in _Head._fields))
        .where(JobModel.state == JobState.REQUESTED, JobModel.not_before <= param("now"), ~is_blocked, ~is_held())
        .order_by(JobModel.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return Prepared(statement, _Head)


_HEADS: Final = _make_heads()
HAS_REQUESTS: Final = Prepared(select(JobModel.id).where(JobModel.state == JobState.REQUESTED, ~is_held()).limit(1))
"""Whether anything waits for a signature; cheap enough to ask all the time."""
_QUEUE: Final = Prepared(
    update(JobModel)
    .where(JobModel.id == param("job_id"), JobModel.state == JobState.REQUESTED)
    .values(
        state=JobState.QUEUED,
        updated_at=param("now"),
        seq=param("number"),
        payload=param("signed"),
        signatures=param("by"),
    )
)
_DISCARD: Final = Prepared(
    update(JobModel)
    .where(JobModel.id == param("job_id"), JobModel.state == JobState.REQUESTED)
    .values(state=JobState.DISCARDED, updated_at=param("now"), finished_at=param("now"))
)


def _make_take_numbers(insert: Any) -> Executable:
    first = insert(NodeSequence).values(
        id=param("node_id"), last_seq=param("count"), created_at=param("now"), updated_at=param("now")
    )
    more = {"last_seq": NodeSequence.last_seq + first.excluded.last_seq}
    taken: Executable = first.on_conflict_do_update(index_elements=["id"], set_=more).returning(NodeSequence.last_seq)
    return taken


_TAKE_NUMBERS: Final = Prepared(_make_take_numbers(sqlite.insert), on_postgresql=_make_take_numbers(postgresql.insert))


async def sign_batch(driver: Driver, *, signer: Signer, nodes: NodeDirectory, now: datetime) -> list[str]:
    """Sign the first job of each free lane, up to BATCH; return the ids of the nodes that have something to fetch.

    Jobs of nodes that are revoked or gone are discarded.

    Raises:
        UnavailableError: The signer does not answer; nothing was changed then.
    """
    heads = await _HEADS.fetch(driver, now=now)
    if not heads:
        return []
    identities = await nodes.find_identities(driver, {head.node_id for head in heads})
    good = [head for head in heads if head.node_id in identities and identities[head.node_id].is_active]
    await _discard(driver, [head for head in heads if head not in good], identities, now)
    next_seq = await _take_numbers(driver, good, now)
    changes, arrows = [], []
    for head in good:
        seq = next_seq[head.node_id]
        next_seq[head.node_id] += 1
        envelope = await _sign(head, seq, identities[head.node_id], signer=signer, now=now)
        changes.append(
            {
                "job_id": head.id,
                "now": now,
                "number": seq,
                "signed": envelope.payload,
                "by": msgspec.msgpack.encode(envelope.signatures),
            }
        )
        arrows.append(Arrow(head.id, JobState.REQUESTED, JobState.QUEUED, f"signed as number {seq}"))
    await _QUEUE.run_many(driver, changes)
    await add_arrows(driver, arrows, now=now)
    return [head.node_id for head in good]


async def _discard(driver: Driver, heads: list[_Head], identities: Mapping[str, NodeIdentity], now: datetime) -> None:
    notes = {head.id: "the node is revoked" if head.node_id in identities else "the node is gone" for head in heads}
    await _DISCARD.run_many(driver, [{"job_id": job_id, "now": now} for job_id in notes])
    arrows = [Arrow(job_id, JobState.REQUESTED, JobState.DISCARDED, note) for job_id, note in notes.items()]
    await add_arrows(driver, arrows, now=now)


async def _take_numbers(driver: Driver, heads: list[_Head], now: datetime) -> dict[str, int]:
    """The first number for each node. Its row stays locked until the transaction ends, so numbers have no gaps."""
    first = {}
    for node_id, count in sorted(Counter(head.node_id for head in heads).items()):
        ((last,),) = await _TAKE_NUMBERS.fetch(driver, node_id=node_id, count=count, now=now)
        first[node_id] = last - count + 1
    return first


async def _sign(head: _Head, seq: int, identity: NodeIdentity, *, signer: Signer, now: datetime) -> Envelope:
    return await signer.sign_job(
        encode_job(
            Job(
                cluster_id=signer.cluster_id,
                node_id=head.node_id,
                node_gen=identity.node_gen,
                job_id=head.delivery_id,
                nonce=secrets.token_bytes(16),
                seq=seq,
                action=head.action,
                args=head.args,
                resource_key=head.resource_key,
                generation=head.generation,
                mode=head.mode,
                semantics=head.semantics,
                actor=head.actor,
                request_id=head.request_id,
                issued_at=now.timestamp(),
                not_before=now.timestamp(),
                expires_at=max(head.expires_at, now).timestamp(),
                max_runtime_seconds=head.max_runtime_seconds,
            )
        )
    )
