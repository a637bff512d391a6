"""The durable log of events."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link.main import open_spool
from agent.link.spool import Spool
from shared.protocol.frames import MAX_FRAME_BYTES, DriftFinding, DriftReport, Event, encode_frame
from shared.protocol.job import ChangeKind, JobResult, JobState, PlannedChange


def result(job_id: str) -> JobResult:
    return JobResult(job_id=job_id, state=JobState.SUCCEEDED)


def drift(*subjects: str, at: float = 0.0) -> DriftReport:
    return DriftReport(subjects=subjects, checked_at=at)


@pytest.fixture
def spool() -> Spool:
    return Spool(None)


def numbers(spool: Spool, after: int = 0) -> list[int]:
    return [event.number for event in spool.list_after(after, limit=10_000)]


def test_append_when_two_results_numbers_them_from_one(spool: Spool) -> None:
    assert [spool.append_result(result("a")), spool.append_result(result("b"))] == [1, 2]
    assert spool.list_after(0, limit=10) == [
        Event(number=1, kind="result", result=result("a")),
        Event(number=2, kind="result", result=result("b")),
    ]


def test_append_when_result_waits_already_keeps_its_number(spool: Spool) -> None:
    spool.append_result(result("a"))

    assert spool.append_result(result("a")) == 1
    assert spool.head == 1


def test_append_when_result_was_acked_gives_a_new_number(spool: Spool) -> None:
    spool.append_result(result("a"))
    spool.ack(1)

    assert spool.append_result(result("a")) == 2


def test_append_when_same_subjects_drift_again_replaces_the_older_report(spool: Spool) -> None:
    spool.append_drift(drift("account/a", at=1.0))
    spool.append_drift(drift("account/b", at=2.0))
    spool.append_drift(drift("account/a", at=3.0))

    assert [event.drift.checked_at for event in spool.list_after(0, limit=10) if event.drift] == [2.0, 3.0]


def test_append_when_too_many_drift_reports_drops_the_oldest_and_no_result() -> None:
    spool = Spool(None, max_drift_reports=3)
    for number in range(10):
        spool.append_result(result(f"j{number}"))
        spool.append_drift(drift(f"account/a{number}"))

    events = spool.list_after(0, limit=100)
    assert [event.result.job_id for event in events if event.result] == [f"j{number}" for number in range(10)]
    assert [event.drift.subjects for event in events if event.drift] == [
        ("account/a7",),
        ("account/a8",),
        ("account/a9",),
    ]


def test_ack_when_cumulative_forgets_everything_up_to_it(spool: Spool) -> None:
    for name in "abc":
        spool.append_result(result(name))

    spool.ack(2)

    assert numbers(spool) == [3]
    assert (spool.acked, spool.head) == (2, 3)


def test_ack_when_older_than_before_changes_nothing(spool: Spool) -> None:
    for name in "abc":
        spool.append_result(result(name))
    spool.ack(2)

    spool.ack(1)

    assert (spool.acked, numbers(spool)) == (2, [3])


def test_ack_when_beyond_the_head_does_not_swallow_what_comes(spool: Spool) -> None:
    spool.ack(100)

    assert spool.append_result(result("a")) == 1
    assert numbers(spool, after=spool.acked) == [1]


def test_continue_when_controller_is_ahead_goes_on_behind_it_and_keeps_what_waits(spool: Spool) -> None:
    spool.append_result(result("a"))
    spool.append_result(result("b"))

    spool.continue_after(40)

    assert numbers(spool, after=40) == [41, 42]
    assert (spool.acked, spool.head) == (40, 42)
    assert spool.append_result(result("c")) == 43


def test_continue_when_controller_is_not_ahead_changes_nothing(spool: Spool) -> None:
    spool.append_result(result("a"))

    spool.continue_after(1)

    assert (numbers(spool), spool.acked) == ([1], 0)


def test_reopen_keeps_events_and_counters(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool.db")
    first.append_result(result("a"))
    first.append_result(result("b"))
    first.ack(1)
    first.close()

    second = Spool(tmp_path / "spool.db")

    assert (second.head, second.acked, numbers(second)) == (2, 1, [2])
    second.close()


def test_open_when_file_is_damaged_keeps_it_aside_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)

    spool = open_spool(path)

    assert spool.head == 0
    assert (tmp_path / "spool.damaged").read_bytes().startswith(b"this is no database")
    spool.close()


def test_append_when_closed_raises_so_that_the_executor_keeps_the_result(spool: Spool) -> None:
    spool.close()

    with pytest.raises(sqlite3.Error):
        spool.append_result(result("a"))


def test_append_when_result_is_too_large_for_a_frame_leaves_the_diffs_out(spool: Spool) -> None:
    change = PlannedChange(
        resource="site/a.example",
        action="write_file",
        kind=ChangeKind.UPDATE,
        target="/etc/x",
        reason="r",
        diff="x" * MAX_FRAME_BYTES,
    )
    spool.append_result(JobResult(job_id="a", state=JobState.SUCCEEDED, changes=(change,)))

    (event,) = spool.list_after(0, limit=1)

    assert len(encode_frame(event)) < MAX_FRAME_BYTES
    assert event.result is not None
    assert event.result.changes[0].target == "/etc/x"
    assert "left out" in event.result.changes[0].diff


def test_append_when_drift_is_too_large_for_a_frame_keeps_the_findings(spool: Spool) -> None:
    finding = DriftFinding(subject="account/a", key="site/a.example", summary="changed", diff="x" * MAX_FRAME_BYTES)
    spool.append_drift(DriftReport(subjects=("account/a",), findings=(finding,)))

    (event,) = spool.list_after(0, limit=1)

    assert event.drift is not None
    assert [found.summary for found in event.drift.findings] == ["changed"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("result"), st.integers(0, 5)),
        st.tuples(st.just("drift"), st.integers(0, 5)),
        st.tuples(st.just("ack"), st.integers(0, 40)),
        st.tuples(st.just("continue"), st.integers(0, 40)),
    ),
    max_size=40,
)


@given(steps)
def test_any_history_never_loses_an_unacked_result_nor_uses_a_number_twice(history: list[tuple[str, int]]) -> None:
    spool = Spool(None, max_drift_reports=2)
    waiting: set[str] = set()
    for step, (kind, value) in enumerate(history):
        before = spool.head
        if kind == "result":
            job_id = f"j{value}"
            number = spool.append_result(result(job_id))
            assert number == before + 1 or job_id in waiting
            waiting.add(job_id)
        elif kind == "drift":
            assert spool.append_drift(drift(f"s{value}", at=step)) == before + 1
        elif kind == "continue":
            spool.continue_after(value)
        else:
            acked = {e.result.job_id for e in spool.list_after(0, limit=1000) if e.result and e.number <= value}
            spool.ack(value)
            waiting -= acked
        events = spool.list_after(spool.acked, limit=1000)
        assert {event.result.job_id for event in events if event.result} == waiting
        assert [event.number for event in events] == sorted({event.number for event in events})
        assert spool.head >= before
