"""Taking a job in: acceptance against the journal, then the journal, then the answer."""

from __future__ import annotations

import contextlib

import msgspec

from agent.core.acceptance import (
    JobArguments,
    decode_arguments,
    effective_now,
    open_job,
    require_generation,
    require_policy,
    require_sequence,
    require_time,
)
from agent.core.boundary import error_body
from agent.core.database import DISK_FULL_CODE
from agent.core.identity import Identity, TrustStore
from agent.core.journal import Journal
from agent.core.records import JobRow
from shared.errors import RefusedError, UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.job import ErrorBody, Job, JobResult, JobState
from shared.protocol.local import JobAccepted
from shared.specs.manifest import Manifest


class Intake:
    """Stands between the socket and the lanes."""

    def __init__(self, journal: Journal, identity: Identity | None, trust: TrustStore) -> None:
        self._journal = journal
        self._identity = identity
        self._trust = trust

    def take(self, envelope: Envelope, *, now: float, floor: float) -> tuple[JobAccepted, JobResult | None]:
        """Accept or refuse; on disk when this returns. The result comes along where there is one already.

        What cannot be verified is refused without a trace and without its job's id, for nothing of it was read; what is
        for somebody else leaves no trace either. Answers come in the order of the questions.
        """
        try:
            job = open_job(envelope, identity=self._identity, bundle=self._trust.bundle, now=now)
        except RefusedError as error:
            job_id, seq = error.context.get("job_id", ""), error.context.get("seq", 0)
            return JobAccepted(job_id=job_id, seq=seq, state=JobState.REFUSED, error=error_body(error)), None
        known = self._journal.find_job(job.job_id)
        if known is not None:
            # Before the clock is asked: a job that ran answers with its result, however late it is offered again.
            return _repeat(known)
        try:
            subject = self._judge(job, now=self._time_for(job, now=now, floor=floor))
        except RefusedError as error:
            return self._refuse(job, envelope.payload, error, now=now), None
        try:
            self._journal.add_job(job, envelope.payload, subject=subject)
        except UnavailableError as error:
            # Nothing of it is on disk, so nothing of it may run.
            return _turn_away(job, error_body(error)), None
        return JobAccepted(job_id=job.job_id, seq=job.seq, state=JobState.RECEIVED), None

    def _time_for(self, job: Job, *, now: float, floor: float) -> float:
        """What time it is for this job.

        The newest job says itself what time the controller has: a clock that is behind here needs no help, and one that
        was ahead there for a while does not leave this node deaf. For every other job the newest word counts.
        """
        return effective_now(floor, job.issued_at) if job.seq > self._journal.last_seq else now

    def _judge(self, job: Job, *, now: float) -> str:
        """The job's lane, if it may run."""
        journal = self._journal
        require_time(job, now=now)
        is_seq_taken = journal.is_seq_taken(job.seq)
        require_sequence(job, low_watermark=journal.low_watermark, is_seq_taken=is_seq_taken)
        if not journal.database.room.has_room():
            raise RefusedError("the node's disk is full", code=DISK_FULL_CODE, hint="Make room on the node's disk.")
        if journal.quarantine:
            reason = f"the node takes no jobs: {journal.quarantine}"
            raise RefusedError(reason, code="quarantined", hint="Look at the node, then clear the quarantine there.")
        return self._judge_arguments(job, decode_arguments(job))

    def _judge_arguments(self, job: Job, arguments: JobArguments) -> str:
        if not isinstance(arguments, Manifest):
            return job.resource_key
        ledger = self._journal.ledger
        subject = arguments.subject
        require_generation(
            job,
            arguments,
            applied=ledger.find_applied(subject),
            newest_queued=self._journal.newest_queued_generation(subject),
        )
        require_policy(arguments, known_uid=ledger.find_uid(subject), foreign_uids=ledger.list_foreign_uids(subject))
        return subject

    def _refuse(self, job: Job, payload: bytes, error: RefusedError, *, now: float) -> JobAccepted:
        """Remember the refusal, so that the same job is never judged twice; a number in use or settled has no room."""
        body = error_body(error)
        if error.code not in ("seq_reused", "seq_replayed"):
            refusal = JobResult(
                job_id=job.job_id, state=JobState.REFUSED, generation=job.generation, error=body, finished_at=now
            )
            with contextlib.suppress(UnavailableError):
                # On a full disk it may not be remembered; then it is judged again if it comes again.
                self._journal.add_job(job, payload, subject=job.resource_key, refusal=refusal)
        return _turn_away(job, body)


def _turn_away(job: Job, body: ErrorBody) -> JobAccepted:
    return JobAccepted(job_id=job.job_id, seq=job.seq, state=JobState.REFUSED, error=body)


def _repeat(known: JobRow) -> tuple[JobAccepted, JobResult | None]:
    """The present state of a job that is offered again, and its result if it has one."""
    answer = JobAccepted(job_id=known.job_id, seq=known.seq, state=known.state)
    if known.state is not JobState.REFUSED or known.result is None:
        return answer, known.result
    answer = msgspec.structs.replace(answer, error=known.result.error)
    return answer, None if known.is_stored else known.result
