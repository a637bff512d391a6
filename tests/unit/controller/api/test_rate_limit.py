"""The rate limiter slows down and never locks out."""

from __future__ import annotations

import pytest

from controller.api.rate_limit import RateLimitedError, RateLimiter


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(burst=3, seconds_per_attempt=2.0, clock=clock)


def spend(limiter: RateLimiter, key: str, attempts: int) -> None:
    for _ in range(attempts):
        limiter.require(key)


def test_limiter_allows_a_burst_and_then_says_how_long_to_wait(limiter: RateLimiter) -> None:
    spend(limiter, "ada", 3)

    with pytest.raises(RateLimitedError) as raised:
        limiter.require("ada")

    assert raised.value.retry_after_seconds == 2


def test_limiter_allows_one_more_after_the_wait(limiter: RateLimiter, clock: Clock) -> None:
    spend(limiter, "ada", 3)
    clock.now += 2.0

    limiter.require("ada")

    with pytest.raises(RateLimitedError):
        limiter.require("ada")


def test_limiter_does_not_count_refused_attempts(limiter: RateLimiter, clock: Clock) -> None:
    spend(limiter, "ada", 3)
    for _ in range(50):
        with pytest.raises(RateLimitedError):
            limiter.require("ada")
    clock.now += 2.0

    limiter.require("ada")


def test_limiter_keeps_keys_apart(limiter: RateLimiter) -> None:
    spend(limiter, "ada", 3)

    limiter.require("grace")


def test_limiter_forgives_after_a_success(limiter: RateLimiter) -> None:
    spend(limiter, "ada", 3)

    limiter.forgive("ada")

    spend(limiter, "ada", 3)


def test_limiter_memory_is_bounded(limiter: RateLimiter) -> None:
    for number in range(10_050):
        limiter.require(str(number))

    assert len(limiter._free_at) == 10_000
