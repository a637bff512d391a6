"""What nodes say about their jobs, taken in for many nodes in one transaction: acknowledgements and plain results.

Plain is what changes nothing but the job itself. What others want to know (observers), what may be tried again and what
was refused takes the longer way, one word after the other: `offers.record_ack` and `results.record_event`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import select, update

from controller.db.prepared import Driver, Prepared, any_of, param
from controller.jobs.models import Job, NodeInbox
from controller.jobs.results import FINAL_OF_NODE, RETRYABLE_CODES, columns_of
from controller.jobs.rows import JOB_COLUMNS, Arrow, JobRow, add_arrows
from controller.jobs.states import FINAL, IN_LANE, PRESUMED, JobState, sources_of
from shared.protocol.frames import AckJob, Event
from shared.protocol.job import ACTION_NOOP, JobMode, JobResult
from shared.protocol.job import JobState as NodeJobState

_ACK_SOURCES: Final = frozenset({JobState.OFFERED, JobState.EXPIRED, JobState.STUCK})

_JOBS: Final = Prepared(
    select(*JOB_COLUMNS).where(any_of(Job.delivery_id, "ids")).order_by(Job.id).with_for_update(), JobRow
)
_STEPS: Final = ("state", "updated_at", "accepted_at", "started_at", "finished_at")
_WORDS: Final = ("error_code", "error_message", "error_hint", "result")


def _make_store(names: tuple[str, ...]) -> Prepared:
    is_unmoved = (Job.id == param("job_id"), Job.state == param("before"))
    return Prepared(update(Job).where(*is_unmoved).values({name: param(name) for name in names}))


_STORE: Final = _make_store(_STEPS)
_STORE_RESULT: Final = _make_store((*_STEPS, *_WORDS))
"""With the node's final word: one statement, for each one writes the whole row anew."""
_ADVANCE: Final = Prepared(
    update(NodeInbox)
    .where(NodeInbox.id == param("node_id"), NodeInbox.last_number < param("number"))
    .values(last_number=param("number"), updated_at=param("now"))
)


class Word(NamedTuple):
    """What one node said."""

    node_id: str
    frame: AckJob | Event


@dataclass(slots=True)
class Taken:
    """What became of a number of words."""

    changed: list[JobRow] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    """Positions of the words that have to take the longer way, after this transaction; nothing was done about them."""
    has_ended: bool = False
    """A lane became free."""


class _Work:
    """One job while its words are taken in."""

    def __init__(self, row: JobRow) -> None:
        self.before = row
        self.row = row
        self.arrows: list[Arrow] = []
        self.result: bytes | None = None

    def move(self, to: JobState, *, note: str = "", **values: Any) -> None:
        self.arrows.append(Arrow(self.row.id, self.row.state, to, note))
        self.row = self.row._replace(state=to, **values)


async def take_words(driver: Driver, words: Sequence[Word], *, now: datetime) -> Taken:
    """Take in what is plain. Of one node, nothing is taken in after the first word that is not."""
    taken = Taken()
    ids = {delivery_id for word in words if (delivery_id := _delivery_of(word.frame))}
    known = {(row.node_id, row.delivery_id): _Work(row) for row in await _JOBS.fetch(driver, ids=sorted(ids))}
    slow_nodes: set[str] = set()
    numbers: dict[str, int] = {}
    for position, (node_id, frame) in enumerate(words):
        work = known.get((node_id, _delivery_of(frame)))
        if node_id in slow_nodes or not _is_plain(frame, work):
            slow_nodes.add(node_id)
            taken.left.append(position)
            continue
        if isinstance(frame, Event):
            numbers[node_id] = max(numbers.get(node_id, 0), frame.number)
        if work is not None:
            _take(work, frame, now)
    await _write(driver, [work for work in known.values() if work.arrows], taken, now)
    await _advance(driver, numbers, now)
    return taken


def _delivery_of(frame: AckJob | Event) -> str:
    if isinstance(frame, AckJob):
        return frame.job_id
    return frame.result.job_id if frame.result is not None else ""


def _is_plain(frame: AckJob | Event, work: _Work | None) -> bool:
    if isinstance(frame, AckJob):
        return frame.state is not NodeJobState.REFUSED
    result = frame.result
    if result is None or work is None or result.state not in FINAL_OF_NODE:
        return False
    is_told = work.row.mode is JobMode.APPLY and work.row.action != ACTION_NOOP
    may_retry = result.error is not None and result.error.code in RETRYABLE_CODES
    return not (is_told or may_retry)


def _take(work: _Work, frame: AckJob | Event, now: datetime) -> None:
    if isinstance(frame, AckJob):
        _take_ack(work, frame, now)
    elif frame.result is not None:
        _take_result(work, frame.result, now)


def _take_ack(work: _Work, frame: AckJob, now: datetime) -> None:
    if work.row.state in FINAL - PRESUMED:
        return
    if work.row.state in _ACK_SOURCES:
        work.move(JobState.ACCEPTED, note="in the node's journal", accepted_at=now)
    if frame.state is NodeJobState.STARTED and work.row.state is JobState.ACCEPTED:
        work.move(JobState.RUNNING, started_at=now)


def _take_result(work: _Work, result: JobResult, now: datetime) -> None:
    to = FINAL_OF_NODE[result.state]
    if work.row.state not in sources_of(to) & (IN_LANE | PRESUMED):
        return  # it was stored before
    values = columns_of(result)
    work.result = values.pop("result")
    work.move(to, finished_at=now, **values)


async def _write(driver: Driver, works: Iterable[_Work], taken: Taken, now: datetime) -> None:
    steps: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    arrows: list[Arrow] = []
    for work in works:
        row = work.row
        change = {name: getattr(row, name) for name in _STEPS if name != "updated_at"}
        change |= {"job_id": row.id, "before": work.before.state}
        if work.result is None:
            steps.append(change)
        else:
            words = {name: getattr(row, name) for name in _WORDS if name != "result"}
            results.append({**change, **words, "result": work.result})
        arrows += work.arrows
        taken.changed.append(row)
        taken.has_ended |= row.state in FINAL
    await _STORE.run_many(driver, steps, updated_at=now)
    await _STORE_RESULT.run_many(driver, results, updated_at=now)
    await add_arrows(driver, arrows, now=now)


async def _advance(driver: Driver, numbers: dict[str, int], now: datetime) -> None:
    changes = [{"node_id": node_id, "number": number} for node_id, number in sorted(numbers.items())]
    await _ADVANCE.run_many(driver, changes, now=now)
