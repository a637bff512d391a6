"""After a crash: what was begun and not committed is undone, what was sealed is carried on, and each job says which."""

from __future__ import annotations

import logging
from typing import Final

from agent.core import faults
from agent.core.boundary import error_body
from agent.core.context import NodeContext
from agent.core.database import JournalBrokenError
from agent.core.records import JobRow, TransactionRow, TransactionState
from agent.core.sealing import finish
from agent.core.transaction import unwind
from shared.errors import InvalidInputError, RollbackError
from shared.protocol.job import ErrorBody, JobResult, JobState, Semantics, decode_job

MAX_ATTEMPTS: Final = 5
"""A job that was started so often and never ended takes the executor down with it."""

_log = logging.getLogger(__name__)


async def recover(node: NodeContext) -> None:
    """Bring host and journal into agreement; afterwards no transaction is open and no job is started."""
    journal = node.journal
    transactions = [row for row in journal.ledger.list_transactions() if row.state is not TransactionState.BROKEN]
    unfinished = journal.list_unfinished()
    for row in unfinished:
        _require_readable(row)
    started = [row for row in unfinished if row.state is JobState.STARTED]
    if not transactions and not started:
        return
    faults.at("recovery.before")
    for transaction in transactions:
        if transaction.state is TransactionState.SEALED:
            await _carry_on(node, transaction)
        else:
            await _take_back(node, transaction)
    for row in journal.list_unfinished():
        if row.state is JobState.STARTED:
            _settle(node, row)
    faults.at("recovery.after")


def _require_readable(row: JobRow) -> None:
    """Its bytes were verified when they came; if they make no sense now, the file was damaged since.

    Raises:
        JournalBrokenError: They do not.
    """
    try:
        decode_job(row.payload)
    except InvalidInputError as error:
        raise JournalBrokenError(f"the job {row.job_id[:80]} in the journal cannot be read") from error


async def _carry_on(node: NodeContext, row: TransactionRow) -> None:
    """Past the point of no return: finish what was sealed."""
    if row.draft is None:
        node.ledger.mark_broken(row.number)
        node.journal.set_quarantine(f"transaction {row.number} of {row.subject} was sealed without its outcome")
        return
    _log.warning("carrying on the sealed transaction %d of %s", row.number, row.subject)
    await finish(node, transaction=row.number, subject=row.subject, draft=row.draft)


async def _take_back(node: NodeContext, row: TransactionRow) -> None:
    """Undo an interrupted transaction; its job waits again, or ends."""
    _log.warning("undoing the interrupted transaction %d of %s", row.number, row.subject)
    try:
        await unwind(node, row.number)
    except RollbackError as error:
        quarantine(node, error, job_id=row.job_id)
        return
    faults.at("recovery.after_unwind")
    job = None if row.job_id is None else node.journal.find_job(row.job_id)
    with node.ledger.durable():
        node.ledger.forget(row.number)
        if job is not None:
            _settle(node, job)


def _settle(node: NodeContext, row: JobRow) -> None:
    """Decide what becomes of a job that a crash interrupted and whose effects are gone."""

    def end(state: JobState, code: str, message: str, *, is_rolled_back: bool = True) -> None:
        result = JobResult(
            job_id=row.job_id,
            state=state,
            generation=job.generation,
            error=ErrorBody(code=code, message=message),
            is_rolled_back=is_rolled_back,
            finished_at=node.now(),
        )
        node.journal.finish_job(result)

    job = decode_job(row.payload)
    if row.is_cancel_requested:
        end(JobState.CANCELLED, "cancelled", "the job was cancelled")
    elif job.semantics is Semantics.ONCE:
        message = "the executor died while the job ran; it is not started a second time"
        end(JobState.INDETERMINATE, "interrupted", message, is_rolled_back=False)
    elif row.attempts >= MAX_ATTEMPTS:
        end(JobState.FAILED, "gave_up", f"the executor died {row.attempts} times while this job ran")
    else:
        node.journal.requeue_job(row.job_id)


def quarantine(node: NodeContext, error: RollbackError, *, job_id: str | None) -> JobResult | None:
    """Take no more jobs: an undo failed. Returns the result of the job it happened in."""
    journal = node.journal
    with node.ledger.durable():
        journal.set_quarantine(error.message)
        job = None if job_id is None else journal.find_job(job_id)
        if job is None:
            return None
        result = JobResult(
            job_id=job.job_id,
            state=JobState.FAILED,
            generation=decode_job(job.payload).generation,
            error=error_body(error),
            is_rolled_back=False,
            finished_at=node.now(),
        )
        journal.finish_job(result)
        return result
