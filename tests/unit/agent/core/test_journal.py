"""The journal in memory: numbers, gaps, forgetting."""

from __future__ import annotations

import pytest

from agent.core.journal import MAX_PRUNED_LIST, Journal
from shared.protocol.job import JobResult, JobState, encode_job
from tests.integration.executor import bench


@pytest.fixture
def journal():
    opened = Journal(None)
    yield opened
    opened.close()


def add(journal: Journal, seq: int, **values):
    job = bench.job(bench.manifest(seq), seq=seq, **values)
    journal.add_job(job, encode_job(job), subject="account/alice")
    return job


def settle(journal: Journal, job) -> None:
    journal.finish_job(JobResult(job_id=job.job_id, state=JobState.SUCCEEDED))
    journal.mark_stored(job.job_id)


def test_seq_gaps_when_a_number_never_came_names_it(journal) -> None:
    for seq in (1, 2, 4, 7):
        add(journal, seq)

    assert journal.last_seq == 7
    assert journal.seq_gaps() == (3, 5, 6)


def test_prune_when_stored_and_expired_forgets_and_moves_the_watermark(journal) -> None:
    first, second = add(journal, 1), add(journal, 2)
    settle(journal, first)
    settle(journal, second)

    assert journal.prune(now=bench.NOW + 3600) == 0
    assert journal.prune(now=bench.NOW + 3600 + 241) == 2
    assert journal.low_watermark == 2
    assert journal.find_job(first.job_id) is None


def test_prune_when_the_result_is_not_stored_keeps_the_job(journal) -> None:
    job = add(journal, 1)
    journal.finish_job(JobResult(job_id=job.job_id, state=JobState.SUCCEEDED))

    assert journal.prune(now=bench.NOW + 1_000_000) == 0
    assert [row.job_id for row in journal.list_unstored()] == [job.job_id]


def test_prune_when_a_number_is_missing_keeps_the_gap_known(journal) -> None:
    for seq in (1, 3):
        settle(journal, add(journal, seq))
    journal.prune(now=bench.NOW + 1_000_000)

    assert journal.low_watermark == 1
    assert journal.seq_gaps() == (2,)


def test_prune_when_a_gap_is_very_old_passes_it(journal) -> None:
    with journal.database.durable():
        for seq in range(2, MAX_PRUNED_LIST + 10):
            job = add(journal, seq)
            settle(journal, job)
    journal.prune(now=bench.NOW + 1_000_000)

    assert journal.low_watermark == MAX_PRUNED_LIST + 9
    assert journal.seq_gaps() == ()


def test_controller_time_when_an_older_number_comes_late_stays(journal) -> None:
    add(journal, 2, issued_at=bench.NOW)
    add(journal, 1, issued_at=bench.NOW - 5)

    assert journal.controller_time == bench.NOW


def test_controller_time_when_the_newest_job_is_earlier_follows_it(journal) -> None:
    """The controller's clock was days ahead, and was put right."""
    add(journal, 1, issued_at=bench.NOW + 3 * 86_400, expires_at=bench.NOW + 4 * 86_400)
    add(journal, 2, issued_at=bench.NOW)

    assert journal.controller_time == bench.NOW


def test_seq_gaps_when_the_journal_is_a_new_one_begin_with_its_first_job(journal) -> None:
    for seq in (57, 58, 60):
        add(journal, seq)

    assert journal.seq_gaps() == (59,)


def test_newest_queued_generation_counts_only_what_is_unfinished(journal) -> None:
    add(journal, 3)
    settle(journal, add(journal, 8))

    assert journal.newest_queued_generation("account/alice") == 3
    assert journal.newest_queued_generation("account/bob") == 0


def test_durable_when_it_fails_leaves_nothing(journal) -> None:
    def fail_half_way() -> None:
        with journal.database.durable():
            journal.set_quarantine("half done")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert journal.quarantine == ""
