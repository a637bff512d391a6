"""Claims what the sessions of one gateway may send now, for all of them in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import and_, or_, select, update

from controller.db.prepared import Driver, Prepared, any_of, param
from controller.jobs.holds import is_held
from controller.jobs.models import Job
from controller.jobs.rows import JOB_COLUMNS, Arrow, JobRow, add_arrows
from controller.jobs.states import ON_NODE, JobState
from shared.protocol.envelope import JOB_TYPE, Envelope, Signature

UNACKED_MAX: Final = 32
"""Jobs on their way to one node at a time."""
OFFER_AGAIN_AFTER: Final = timedelta(seconds=30)
DELIVERIES_MAX: Final = 5
CANCELLABLE: Final = frozenset({JobState.OFFERED}) | ON_NODE
_ROWS_MAX: Final = 4000
_STUCK_HINT: Final = "Look at the node's agent, then retry."

_OFFERABLE: Final = Prepared(
    select(*JOB_COLUMNS)
    .where(
        any_of(Job.node_id, "node_ids"),
        Job.expires_at > param("now"),
        or_(Job.state == JobState.OFFERED, and_(Job.state == JobState.QUEUED, ~is_held())),
    )
    .order_by(Job.seq)
    .limit(_ROWS_MAX)
    .with_for_update(skip_locked=True),
    JobRow,
)
_SIGNED: Final = Prepared(select(Job.id, Job.payload, Job.signatures).where(any_of(Job.id, "ids")))
_OFFER: Final = Prepared(
    update(Job)
    .where(Job.id == param("job_id"), Job.state == param("before"))
    .values(
        state=JobState.OFFERED,
        updated_at=param("now"),
        offered_at=param("now"),
        deliveries=param("count"),
        offer_epoch=param("epoch"),
    )
)
_OFFER_SIGNED: Final = Prepared(
    update(Job)
    .where(Job.id == param("job_id"), Job.state == JobState.REQUESTED)
    .values(
        state=JobState.OFFERED,
        updated_at=param("now"),
        offered_at=param("now"),
        deliveries=1,
        offer_epoch=param("epoch"),
        seq=param("number"),
        payload=param("signed"),
        signatures=param("by"),
    )
)
_GIVE_UP: Final = Prepared(
    update(Job)
    .where(Job.id == param("job_id"), Job.state == JobState.OFFERED)
    .values(
        state=JobState.STUCK,
        updated_at=param("now"),
        finished_at=param("now"),
        error_code="stuck",
        error_message=param("message"),
        error_hint=_STUCK_HINT,
    )
)
_UNWANTED: Final = Prepared(
    select(Job.id, Job.node_id, Job.delivery_id, Job.cancel_epoch)
    .where(any_of(Job.node_id, "node_ids"), Job.state.in_(CANCELLABLE), Job.cancel_requested_at.is_not(None))
    .with_for_update(skip_locked=True)
)
_CANCEL: Final = Prepared(
    update(Job).where(Job.id == param("job_id")).values(cancel_epoch=param("epoch"), updated_at=param("now"))
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A signed job, ready to be sent."""

    job_id: str
    delivery_id: str
    seq: int
    envelope: Envelope


class Signed(NamedTuple):
    """A job that was signed in this transaction; its row says so, the database does not yet."""

    row: JobRow
    envelope: Envelope


@dataclass(slots=True)
class Claim:
    """What one session shall send, offers in the order of their numbers."""

    offers: list[Offer] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    """Delivery ids."""
    is_full: bool = False
    """There may be more once something is acknowledged."""


@dataclass(slots=True)
class Claimed:
    """What was claimed, by node."""

    claims: dict[str, Claim] = field(default_factory=dict)
    changed: list[JobRow] = field(default_factory=list)
    signed_ids: set[str] = field(default_factory=set)
    """Jobs that were signed and claimed with one write."""

    def of(self, node_id: str) -> Claim:
        """The node's part."""
        return self.claims.setdefault(node_id, Claim())


class _Chosen(NamedTuple):
    row: JobRow
    epoch: int


async def claim(driver: Driver, epochs: Mapping[str, int], *, now: datetime) -> Claimed:
    """Move what these sessions may send to `offered`.

    What an earlier session sent, or this one long ago, without an acknowledgement is sent again; after DELIVERIES_MAX
    times the job is `stuck`.

    Args:
        driver: A hot transaction.
        epochs: Node id to the epoch of its session, which the caller has checked in this transaction.
        now: The controller's time.
    """
    claimed = Claimed()
    rows = await _OFFERABLE.fetch(driver, node_ids=list(epochs), now=now)
    chosen = _choose(rows, epochs, claimed, now)
    await _give_up(driver, [one for one in chosen if one.row.deliveries >= DELIVERIES_MAX], claimed, now)
    await _send(driver, [one for one in chosen if one.row.deliveries < DELIVERIES_MAX], claimed, now)
    await _cancel(driver, epochs, claimed, now)
    return claimed


async def claim_signed(
    driver: Driver, epochs: Mapping[str, int], signed: Sequence[Signed], *, now: datetime
) -> Claimed:
    """Move what was just signed for these sessions from `requested` to `offered` at once, as far as they have room.

    Wishes to cancel are left to `claim`, for none is about these jobs; so are nodes for which something with a lower
    number still waits, for that goes first.
    """
    claimed = Claimed()
    earlier = await _OFFERABLE.fetch(driver, node_ids=list(epochs), now=now)
    busy = {row.node_id for row in earlier if not _is_on_its_way(row, epochs[row.node_id], now)}
    fresh = {
        one.row.id: one
        for one in signed
        if one.row.node_id in epochs and one.row.node_id not in busy and one.row.expires_at > now
    }
    on_way = [row for row in earlier if row.node_id not in busy]
    arrows, changes = [], []
    for row, epoch in _choose([*on_way, *(one.row for one in fresh.values())], epochs, claimed, now):
        one = fresh[row.id]
        claimed.signed_ids.add(row.id)
        changes.append({"job_id": row.id, "epoch": epoch, **signature_columns(one)})
        arrows += [signed_arrow(row), Arrow(row.id, row.state, JobState.OFFERED, "sent")]
        claimed.of(row.node_id).offers.append(Offer(row.id, row.delivery_id, row.seq or 0, one.envelope))
        claimed.changed.append(row._replace(state=JobState.OFFERED, deliveries=1, offer_epoch=epoch, offered_at=now))
    await _OFFER_SIGNED.run_many(driver, changes, now=now)
    await add_arrows(driver, arrows, now=now)
    return claimed


def signature_columns(one: Signed) -> dict[str, Any]:
    """What a signature adds to a job's row, as parameters."""
    envelope = one.envelope
    return {"number": one.row.seq, "signed": envelope.payload, "by": msgspec.msgpack.encode(envelope.signatures)}


def signed_arrow(row: JobRow) -> Arrow:
    """The story of a signature."""
    return Arrow(row.id, JobState.REQUESTED, JobState.QUEUED, f"signed as number {row.seq}")


def _choose(rows: list[JobRow], epochs: Mapping[str, int], claimed: Claimed, now: datetime) -> list[_Chosen]:
    on_way = dict.fromkeys(epochs, 0)
    fresh: list[_Chosen] = []
    for row in rows:
        epoch = epochs[row.node_id]
        if _is_on_its_way(row, epoch, now):
            on_way[row.node_id] += 1
        else:
            fresh.append(_Chosen(row, epoch))
    chosen = []
    for one in fresh:
        if on_way[one.row.node_id] >= UNACKED_MAX:
            claimed.of(one.row.node_id).is_full = True
            continue
        on_way[one.row.node_id] += 1
        chosen.append(one)
    return chosen


def _is_on_its_way(row: JobRow, epoch: int, now: datetime) -> bool:
    is_recent = row.offered_at is not None and row.offered_at > now - OFFER_AGAIN_AFTER
    return row.state is JobState.OFFERED and row.offer_epoch == epoch and is_recent


async def _give_up(driver: Driver, chosen: list[_Chosen], claimed: Claimed, now: datetime) -> None:
    arrows, changes = [], []
    for row, _ in chosen:
        message = f"sent {row.deliveries} times and never acknowledged"
        changes.append({"job_id": row.id, "now": now, "message": message})
        arrows.append(Arrow(row.id, row.state, JobState.STUCK, message))
        told = row._replace(error_code="stuck", error_message=message, error_hint=_STUCK_HINT)
        claimed.changed.append(told._replace(state=JobState.STUCK, finished_at=now))
    await _GIVE_UP.run_many(driver, changes)
    await add_arrows(driver, arrows, now=now)


async def _send(driver: Driver, chosen: list[_Chosen], claimed: Claimed, now: datetime) -> None:
    if not chosen:
        return
    signed = {row[0]: row for row in await _SIGNED.fetch(driver, ids=[one.row.id for one in chosen])}
    arrows, changes = [], []
    for row, epoch in chosen:
        _, payload, signatures = signed[row.id]
        if payload is None or signatures is None or row.seq is None:
            continue
        count = row.deliveries + 1
        changes.append({"job_id": row.id, "before": row.state, "count": count, "epoch": epoch})
        arrows.append(
            Arrow(row.id, row.state, JobState.OFFERED, "sent" if count == 1 else f"sent again, {count} times now")
        )
        envelope = Envelope(JOB_TYPE, payload, msgspec.msgpack.decode(signatures, type=tuple[Signature, ...]))
        claimed.of(row.node_id).offers.append(Offer(row.id, row.delivery_id, row.seq, envelope))
        claimed.changed.append(
            row._replace(state=JobState.OFFERED, deliveries=count, offer_epoch=epoch, offered_at=now)
        )
    await _OFFER.run_many(driver, changes, now=now)
    await add_arrows(driver, arrows, now=now)


async def _cancel(driver: Driver, epochs: Mapping[str, int], claimed: Claimed, now: datetime) -> None:
    """Each wish to cancel goes out once in a session."""
    changes: list[dict[str, Any]] = []
    for job_id, node_id, delivery_id, cancel_epoch in await _UNWANTED.fetch(driver, node_ids=list(epochs)):
        if cancel_epoch != epochs[node_id]:
            claimed.of(node_id).cancels.append(delivery_id)
            changes.append({"job_id": job_id, "epoch": epochs[node_id], "now": now})
    await _CANCEL.run_many(driver, changes)
