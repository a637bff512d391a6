"""The rate limiter slows down and never locks out."""

from __future__ import annotations

import pytest

from controller.api.errors import RateLimitedError
from controller.api.rate_limit import LoginThrottle, RateLimiter
from controller.core.policies.registry import PlatformPolicies
from controller.core.rate_limits.counters import MemoryCounters


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rules:
    """The platform's policies, in memory."""

    def __init__(self) -> None:
        self.policies = PlatformPolicies()

    async def current(self) -> PlatformPolicies:
        return self.policies


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter("test", burst=3, seconds_per_attempt=2.0, counters=MemoryCounters(clock=clock))


async def spend(limiter: RateLimiter, key: str, attempts: int) -> None:
    for _ in range(attempts):
        await limiter.require(key)


async def test_limiter_allows_a_burst_and_then_says_how_long_to_wait(limiter: RateLimiter) -> None:
    await spend(limiter, "ada", 3)

    with pytest.raises(RateLimitedError) as raised:
        await limiter.require("ada")

    assert raised.value.retry_after_seconds == 2


async def test_limiter_allows_one_more_after_the_wait(limiter: RateLimiter, clock: Clock) -> None:
    await spend(limiter, "ada", 3)
    clock.now += 2.0

    await limiter.require("ada")

    with pytest.raises(RateLimitedError):
        await limiter.require("ada")


async def test_limiter_does_not_count_refused_attempts(limiter: RateLimiter, clock: Clock) -> None:
    await spend(limiter, "ada", 3)
    for _ in range(50):
        with pytest.raises(RateLimitedError):
            await limiter.require("ada")
    clock.now += 2.0

    await limiter.require("ada")


async def test_limiter_keeps_keys_apart(limiter: RateLimiter) -> None:
    await spend(limiter, "ada", 3)

    await limiter.require("grace")


async def test_limiter_forgives_after_a_success(limiter: RateLimiter) -> None:
    await spend(limiter, "ada", 3)

    await limiter.forgive("ada")

    await spend(limiter, "ada", 3)


async def test_counters_memory_is_bounded() -> None:
    counters = MemoryCounters(max_keys=100)
    limiter = RateLimiter("test", burst=3, seconds_per_attempt=2.0, counters=counters)
    for number in range(150):
        await limiter.require(str(number))

    assert len(counters) == 100


async def refused(
    throttle: LoginThrottle, address: str, *, is_known_place: bool = False, has_code: bool = False
) -> bool:
    try:
        await throttle.require(address, "Ada", is_known_place=is_known_place, has_code=has_code)
    except RateLimitedError:
        return True
    return False


async def test_user_when_guessed_from_everywhere_is_slowed_except_at_a_known_place(clock: Clock) -> None:
    throttle = LoginThrottle(Rules(), MemoryCounters(clock=clock))

    guesses = [await refused(throttle, f"198.51.100.{number}") for number in range(12)]

    assert guesses == [False] * 10 + [True] * 2
    assert not await refused(throttle, "203.0.113.9", is_known_place=True)


async def test_address_when_its_own_account_succeeds_is_not_forgiven_guesses_of_others(clock: Clock) -> None:
    throttle = LoginThrottle(Rules(), MemoryCounters(clock=clock))
    for number in range(29):
        await throttle.require("198.51.100.7", f"user{number}", is_known_place=True, has_code=False)

    await throttle.require("198.51.100.7", "mallory", is_known_place=True, has_code=False)
    await throttle.forgive("198.51.100.7", "mallory", is_known_place=True)
    await throttle.require("198.51.100.7", "user30", is_known_place=True, has_code=False)

    assert await refused(throttle, "198.51.100.7", is_known_place=True)


async def test_codes_when_guessed_are_slowed_more_and_not_those_at_a_known_place(clock: Clock) -> None:
    throttle = LoginThrottle(Rules(), MemoryCounters(clock=clock))

    guesses = [await refused(throttle, f"198.51.100.{number}", has_code=True) for number in range(6)]

    assert guesses == [False] * 5 + [True]
    assert not await refused(throttle, "203.0.113.9", is_known_place=True, has_code=True)
    clock.now += 60
    assert not await refused(throttle, "198.51.100.99", has_code=True)


async def test_user_when_an_administrator_allows_fewer_guesses_is_slowed_sooner(clock: Clock) -> None:
    rules = Rules()
    throttle = LoginThrottle(rules, MemoryCounters(clock=clock))
    assert [await refused(throttle, f"198.51.100.{number}") for number in range(3)] == [False] * 3

    rules.policies = PlatformPolicies(login_attempts_user=4, login_seconds_user=600)
    guesses = [await refused(throttle, f"203.0.113.{number}") for number in range(6)]

    assert guesses == [False] * 3 + [True] * 3
    clock.now += 600
    assert not await refused(throttle, "203.0.113.99")
