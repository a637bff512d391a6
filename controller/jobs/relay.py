"""From `requested` to `queued`: a job gets its number and its signature when its lane is free.

Everything happens in one transaction, so a crash leaves a job either unsigned and without a number, or with both.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from controller.db.prepared import Driver, Prepared, any_of, param
from controller.jobs.delivery import Claimed, Signed, signature_columns, signed_arrow
from controller.jobs.holds import is_held
from controller.jobs.models import Job as JobModel
from controller.jobs.models import NodeSequence
from controller.jobs.ports import Courier, NodeDirectory, NodeIdentity, Signer
from controller.jobs.rows import JOB_COLUMNS, Arrow, JobRow, add_arrows
from controller.jobs.states import IN_LANE, UNFINISHED, WAITING, JobState
from shared.protocol.envelope import Envelope
from shared.protocol.job import ACTION_CONVERGE, Job, JobMode, encode_job
from shared.specs.manifest import NODE_SUBJECT

BATCH: Final = 256
_WIDTH: Final = len(JOB_COLUMNS)


class _Head(NamedTuple):
    """The first job of a free lane."""

    row: JobRow
    args: bytes
    max_runtime_seconds: int


class Batch(NamedTuple):
    """What was signed at once."""

    node_ids: list[str]
    """Nodes that have something to fetch; one for each job."""
    claimed: Claimed
    """What of it the gateway of this process sends after the commit."""


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
    # Said once more, in a form that an index takes: without it every job that the node ever had is looked at.
    is_unfinished = other.state.in_(UNFINISHED)
    blocking = select(other.id).where(
        other.node_id == JobModel.node_id, is_unfinished, or_(same_lane, needs_modules), is_earlier
    )
    # Not EXISTS: PostgreSQL makes a join of that, of everything unfinished with itself.
    is_free = blocking.limit(1).correlate(JobModel).scalar_subquery().is_(None)
    statement = (
        select(*JOB_COLUMNS, JobModel.args, JobModel.max_runtime_seconds)
        .where(JobModel.state == JobState.REQUESTED, JobModel.not_before <= param("now"), is_free, ~is_held())
        .order_by(JobModel.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return Prepared(statement)


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
    taken: Executable = first.on_conflict_do_update(index_elements=["id"], set_=more)
    return taken


_TAKE_NUMBERS: Final = Prepared(_make_take_numbers(sqlite.insert), on_postgresql=_make_take_numbers(postgresql.insert))
_NUMBERS: Final = Prepared(select(NodeSequence.id, NodeSequence.last_seq).where(any_of(NodeSequence.id, "ids")))


async def sign_batch(
    driver: Driver, *, signer: Signer, nodes: NodeDirectory, now: datetime, courier: Courier | None = None
) -> Batch:
    """Sign the first job of each free lane, up to BATCH; what the courier can send now is offered at once.

    Jobs of nodes that are revoked or gone are discarded.

    Raises:
        UnavailableError: The signer does not answer; nothing was changed then.
    """
    found = await _HEADS.fetch(driver, now=now)
    heads = [_Head(JobRow._make(columns[:_WIDTH]), *columns[_WIDTH:]) for columns in found]
    if not heads:
        return Batch([], Claimed())
    identities = await nodes.find_identities(driver, {head.row.node_id for head in heads})
    good: list[_Head] = []
    bad: list[_Head] = []
    for head in heads:
        identity = identities.get(head.row.node_id)
        (good if identity is not None and identity.is_active else bad).append(head)
    await _discard(driver, bad, identities, now)
    next_seq = await _take_numbers(driver, good, now)
    signed = []
    for head in good:
        node_id = head.row.node_id
        seq = next_seq[node_id]
        next_seq[node_id] += 1
        envelope = await _sign(head, seq, identities[node_id], signer=signer, now=now)
        signed.append(Signed(head.row._replace(seq=seq, state=JobState.QUEUED), envelope))
    claimed = await courier.claim_signed(driver, signed) if courier is not None and signed else Claimed()
    await _queue(driver, [one for one in signed if one.row.id not in claimed.signed_ids], now)
    return Batch([head.row.node_id for head in good], claimed)


async def _queue(driver: Driver, signed: list[Signed], now: datetime) -> None:
    """Keep what nobody sends now, for whoever has the node's session."""
    changes = [{"job_id": one.row.id, **signature_columns(one)} for one in signed]
    await _QUEUE.run_many(driver, changes, now=now)
    await add_arrows(driver, [signed_arrow(one.row) for one in signed], now=now)


async def _discard(driver: Driver, heads: list[_Head], identities: Mapping[str, NodeIdentity], now: datetime) -> None:
    if not heads:
        return
    rows = [head.row for head in heads]
    notes = {row.id: "the node is revoked" if row.node_id in identities else "the node is gone" for row in rows}
    await _DISCARD.run_many(driver, [{"job_id": job_id} for job_id in notes], now=now)
    arrows = [Arrow(job_id, JobState.REQUESTED, JobState.DISCARDED, note) for job_id, note in notes.items()]
    await add_arrows(driver, arrows, now=now)


async def _take_numbers(driver: Driver, heads: list[_Head], now: datetime) -> dict[str, int]:
    """The first number for each node. Its row stays locked until the transaction ends, so numbers have no gaps."""
    if not heads:
        return {}
    counts = Counter(head.row.node_id for head in heads)
    # Two statements for all of them: one for each node is a round trip to PostgreSQL for each job.
    changes = [{"node_id": node_id, "count": count} for node_id, count in sorted(counts.items())]
    await _TAKE_NUMBERS.run_many(driver, changes, now=now)
    return {node_id: last - counts[node_id] + 1 for node_id, last in await _NUMBERS.fetch(driver, ids=list(counts))}


async def _sign(head: _Head, seq: int, identity: NodeIdentity, *, signer: Signer, now: datetime) -> Envelope:
    row = head.row
    return await signer.sign_job(
        encode_job(
            Job(
                cluster_id=signer.cluster_id,
                node_id=row.node_id,
                node_gen=identity.node_gen,
                job_id=row.delivery_id,
                nonce=secrets.token_bytes(16),
                seq=seq,
                action=row.action,
                args=head.args,
                resource_key=row.resource_key,
                generation=row.generation,
                mode=row.mode,
                semantics=row.semantics,
                actor=row.actor,
                request_id=row.request_id,
                issued_at=now.timestamp(),
                not_before=now.timestamp(),
                expires_at=max(row.expires_at, now).timestamp(),
                max_runtime_seconds=head.max_runtime_seconds,
            )
        )
    )
