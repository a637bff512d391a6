"""What a row says about a bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.framework import BenchError, Options, compare, failed, judge, percentile


@pytest.mark.parametrize(("ours", "ratio", "met"), [(50.0, 2.0, True), (100.0, 1.0, True), (200.0, 0.5, False)])
def test_judge_when_lower_is_better_says_how_far_inside_the_bar(ours: float, ratio: float, met: bool) -> None:
    row = judge("memory", ours, "KiB", bar=100.0)

    assert (row.ratio, row.met, row.bar, row.peer) == (ratio, met, "at most 100 KiB", None)


@pytest.mark.parametrize(("ours", "met"), [(299.0, False), (300.0, True)])
def test_judge_when_higher_is_better_wants_at_least_the_bar(ours: float, met: bool) -> None:
    row = judge("jobs", ours, "jobs/s", bar=300.0, better="higher")

    assert (row.met, row.bar) == (met, "at least 300 jobs/s")


def test_judge_when_nothing_is_allowed_and_nothing_happened_is_met() -> None:
    assert judge("failed requests", 0.0, "requests", bar=0.0).met
    assert not judge("failed requests", 1.0, "requests", bar=0.0).met


@pytest.mark.parametrize(("ours", "met"), [(4.0, True), (5.0, True), (5.1, False)])
def test_compare_when_the_peer_takes_100_ms_wants_twenty_times_less(ours: float, met: bool) -> None:
    row = compare("round trip", ours, 100.0, "ms", times=20)

    assert (row.ratio, row.met) == (100.0 / ours, met)


def test_failed_when_nothing_was_measured_is_not_met_and_says_why() -> None:
    row = failed("round trip", "at least 20 times faster", "it hung")

    assert (row.ours, row.ratio, row.met, row.note) == (None, None, False, "it hung")


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_percentile_when_there_are_a_hundred_values_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_percentile_when_nothing_was_measured_says_so() -> None:
    with pytest.raises(BenchError):
        percentile([], 0.5)


def test_options_when_quick_takes_the_small_number() -> None:
    assert Options(is_quick=True, work_dir=Path("/nowhere")).pick(1000, 3) == 3
    assert Options(is_quick=False, work_dir=Path("/nowhere")).pick(1000, 3) == 1000
