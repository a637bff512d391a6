"""When to dial again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.link.backoff import (
    FLOOR_SECONDS,
    HEALTHY_SECONDS,
    LAST_CEILING_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    WELCOME_FAILURES,
    Backoff,
    spread_interval_seconds,
    spread_retry_after_seconds,
    spread_window_seconds,
)

chances = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
failures = st.integers(min_value=0, max_value=10_000)


@given(failures, chances)
def test_delay_stays_between_floor_and_ceiling(count: int, chance: float) -> None:
    backoff = Backoff(failures=count)

    assert FLOOR_SECONDS <= backoff.delay_seconds(chance) <= backoff.ceiling_seconds <= LAST_CEILING_SECONDS


@given(failures)
def test_ceiling_never_shrinks_with_another_failure(count: int) -> None:
    assert Backoff(failures=count + 1).ceiling_seconds >= Backoff(failures=count).ceiling_seconds


def test_ceiling_goes_from_one_second_to_five_minutes() -> None:
    ceilings = [Backoff(failures=count).ceiling_seconds for count in range(11)]

    assert ceilings == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(failures)
def test_unwelcome_session_counts_as_a_failure(count: int) -> None:
    assert Backoff(failures=count).after_session(0.0).failures == count + 1


@given(failures, st.floats(min_value=0.001, max_value=HEALTHY_SECONDS, exclude_max=True))
def test_short_session_counts_as_a_failure_and_forgets_a_long_absence(count: int, seconds: float) -> None:
    assert Backoff(failures=count).after_session(seconds).failures == min(count + 1, WELCOME_FAILURES)


@given(failures, st.floats(min_value=HEALTHY_SECONDS, max_value=1e9))
def test_healthy_session_starts_over(count: int, seconds: float) -> None:
    assert Backoff(failures=count).after_session(seconds) == Backoff()


@given(st.floats(min_value=0, max_value=1e12), chances)
def test_retry_after_is_kept_but_bounded(asked: float, chance: float) -> None:
    delay = spread_retry_after_seconds(asked, chance)

    assert min(asked, MAX_RETRY_AFTER_SECONDS) <= delay <= MAX_RETRY_AFTER_SECONDS * 1.2


@given(st.floats(min_value=0, max_value=1e12), chances)
def test_window_is_not_left(window: float, chance: float) -> None:
    assert FLOOR_SECONDS <= spread_window_seconds(window, chance) <= max(window, FLOOR_SECONDS)


@given(st.floats(min_value=2, max_value=1e6), chances)
def test_interval_varies_by_a_fifth(interval: float, chance: float) -> None:
    assert interval * 0.79 <= spread_interval_seconds(interval, chance) <= interval * 1.21


def test_interval_of_zero_does_not_spin() -> None:
    assert spread_interval_seconds(0.0, 0.0) == 1.0
