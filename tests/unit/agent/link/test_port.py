"""What the executor still owes."""

from __future__ import annotations

from agent.link.port import OpenWork
from shared.protocol.envelope import Envelope
from shared.protocol.frames import DriftReport, OfferJob
from shared.protocol.job import ErrorBody, JobResult, JobState
from shared.protocol.local import DriftFound, ExecutorStatus, JobAccepted, JobFinished, RequestDrift


def offer(job_id: str, seq: int = 1) -> OfferJob:
    return OfferJob(envelope=Envelope(payload_type="t", payload=b"", signatures=()), job_id=job_id, seq=seq)


def accepted(job_id: str, state: JobState = JobState.RECEIVED, *, is_refused: bool = False) -> JobAccepted:
    error = ErrorBody(code="refused", message="no") if is_refused else None
    return JobAccepted(job_id=job_id, seq=1, state=state, error=error)


def finished(job_id: str) -> JobFinished:
    return JobFinished(result=JobResult(job_id=job_id, state=JobState.SUCCEEDED))


def status(running_jobs: int) -> ExecutorStatus:
    return ExecutorStatus(
        journal_epoch="e", last_seq=0, bundle_version=0, node_id="n", node_gen=1, cluster_id="c",
        running_jobs=running_jobs,
    )  # fmt: skip


def test_work_when_new_is_idle() -> None:
    assert OpenWork().is_idle


def test_job_is_owed_from_submission_to_result() -> None:
    work = OpenWork()

    work.note_submitted(offer("a"))
    assert not work.is_idle
    work.note_received(accepted("a"))
    assert work.jobs == {"a"}
    work.note_received(finished("a"))
    assert work.is_idle


def test_refused_or_finished_job_is_not_owed() -> None:
    work = OpenWork()
    for answer in (accepted("a", is_refused=True), accepted("b", JobState.SUCCEEDED)):
        work.note_submitted(offer(answer.job_id))
        work.note_received(answer)

    assert work.is_idle


def test_drift_is_owed_until_its_report() -> None:
    work = OpenWork()
    work.note_sent(RequestDrift())
    assert not work.is_idle

    work.note_received(DriftFound(report=DriftReport(subjects=())))

    assert work.is_idle


def test_status_with_jobs_of_an_earlier_life_keeps_the_connection_until_they_end() -> None:
    work = OpenWork()
    work.note_received(status(2))

    work.note_received(finished("x"))
    assert not work.is_idle
    work.note_received(finished("y"))

    assert work.is_idle


def test_status_without_running_jobs_ends_every_doubt() -> None:
    work = OpenWork()
    work.note_submitted(offer("a"))
    work.note_received(accepted("a"))

    work.note_received(status(0))

    assert work.is_idle


def test_forget_owes_nothing() -> None:
    work = OpenWork()
    work.note_submitted(offer("a"))
    work.note_sent(RequestDrift())
    work.note_received(accepted("a"))

    work.forget()

    assert work.is_idle


def test_answers_without_a_name_get_those_of_the_offers_in_their_order() -> None:
    work = OpenWork()
    for number, job_id in enumerate(("a", "b", "c"), start=1):
        work.note_submitted(offer(job_id, number))
    nameless = JobAccepted(
        job_id="", seq=0, state=JobState.REFUSED, error=ErrorBody(code="bad_signature", message="no")
    )

    named = [work.note_received(frame) for frame in (nameless, accepted("b"), nameless)]

    assert [(frame.job_id, frame.seq) for frame in named if isinstance(frame, JobAccepted)] == [
        ("a", 1),
        ("b", 1),
        ("c", 3),
    ]
    assert work.jobs == {"b"}


def test_answer_of_a_new_connection_is_not_taken_for_an_offer_of_the_lost_one() -> None:
    work = OpenWork()
    work.note_submitted(offer("lost"))
    work.forget()
    work.note_submitted(offer("a"))

    named = work.note_received(JobAccepted(job_id="", seq=0, state=JobState.REFUSED))

    assert isinstance(named, JobAccepted)
    assert named.job_id == "a"
