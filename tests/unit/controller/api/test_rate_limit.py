"""The rate limiter slows down and never locks out."""

from __future__ import annotations

import pytest

from controller.api.rate_limit import LoginThrottle, RateLimitedError, RateLimiter


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


def refused(throttle: LoginThrottle, address: str, *, is_known_place: bool = False, has_code: bool = False) -> bool:
    try:
        throttle.require(address, "Ada", is_known_place=is_known_place, has_code=has_code)
    except RateLimitedError:
        return True
    return False


def test_user_when_guessed_from_everywhere_is_slowed_except_at_a_known_place(clock: Clock) -> None:
    throttle = LoginThrottle(clock=clock)

    guesses = [refused(throttle, f"198.51.100.{number}") for number in range(12)]

    assert guesses == [False] * 10 + [True] * 2
    assert not refused(throttle, "203.0.113.9", is_known_place=True)


def test_address_when_its_own_account_succeeds_is_not_forgiven_guesses_of_others(clock: Clock) -> None:
    throttle = LoginThrottle(clock=clock)
    for number in range(29):
        throttle.require("198.51.100.7", f"user{number}", is_known_place=True, has_code=False)

    throttle.require("198.51.100.7", "mallory", is_known_place=True, has_code=False)
    throttle.forgive("198.51.100.7", "mallory", is_known_place=True)
    throttle.require("198.51.100.7", "user30", is_known_place=True, has_code=False)

    assert refused(throttle, "198.51.100.7", is_known_place=True)


def test_codes_when_guessed_are_slowed_more_and_not_those_at_a_known_place(clock: Clock) -> None:
    throttle = LoginThrottle(clock=clock)

    guesses = [refused(throttle, f"198.51.100.{number}", has_code=True) for number in range(6)]

    assert guesses == [False] * 5 + [True]
    assert not refused(throttle, "203.0.113.9", is_known_place=True, has_code=True)
    clock.now += 60
    assert not refused(throttle, "198.51.100.99", has_code=True)
