"""Slows down guessing: a bucket per key that refills with time. Nobody is ever locked out for good."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple, Protocol

from controller.api.errors import RateLimitedError
from controller.core.policies.registry import PlatformPolicies
from controller.core.rate_limits.counters import Bucket, Counters, MemoryCounters


class Pace(NamedTuple):
    """So many at once, and then one every so many seconds."""

    burst: int
    seconds_per_attempt: float


class RuleBook(Protocol):
    """Where the platform's policies are asked for."""

    async def current(self) -> PlatformPolicies: ...


class RateLimiter:
    """Each key may do `burst` attempts at once and then one every `seconds_per_attempt`."""

    def __init__(self, name: str, *, burst: int, seconds_per_attempt: float, counters: Counters | None = None) -> None:
        """`name` keeps limiters apart that share counters; without counters, it has some in memory of its own."""
        self._name = name
        self._burst = burst
        self._interval = seconds_per_attempt
        self._counters = MemoryCounters() if counters is None else counters

    async def require(self, key: str, pace: Pace | None = None) -> None:
        """Count one attempt, at this pace or the limiter's own.

        Raises:
            RateLimitedError: The key's bucket is empty; the attempt is not counted.
        """
        burst, interval = pace or (self._burst, self._interval)
        wait = (await self._counters.take((Bucket(self._key(key), burst, interval),))).wait_seconds
        if wait > 0:
            raise RateLimitedError("too many attempts", retry_after_seconds=math.ceil(wait))

    async def refund(self, key: str, pace: Pace | None = None) -> None:
        """Take back one attempt of a key, after a success; others that used the key stay counted."""
        await self._counters.give_back(self._key(key), (pace or (self._burst, self._interval))[1])

    async def forgive(self, key: str) -> None:
        """Forget the attempts of a key, after a success."""
        await self._counters.forget(self._key(key))

    def _key(self, key: str) -> str:
        """Names of people may be long, and hold anything."""
        return f"{self._name}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


class LoginThrottle:
    """Slows guessing of passwords and codes, by address and by user, and does not lock the owner out.

    Guesses from everywhere share one bucket of a user. Whoever comes from a network that the user signed in from before
    is not asked about it: somebody elsewhere can empty that bucket, but not keep the owner away from home.
    """

    def __init__(self, rules: RuleBook, counters: Counters | None = None) -> None:
        """`rules`: how many and how often, as an administrator decided (`login_*`); asked at each attempt."""
        shared = MemoryCounters() if counters is None else counters
        self._rules = rules
        self._pair = _limiter("login-pair", shared)
        self._address = _limiter("login-address", shared)
        self._user = _limiter("login-user", shared)
        self._code = _limiter("login-code", shared)
        """Six digits are a million, three of them count at a time: one a minute hits one in 230 days of guessing."""

    async def require(self, address: str, username: str, *, is_known_place: bool, has_code: bool) -> None:
        """Count one attempt to sign in.

        Raises:
            RateLimitedError: Too many of this address, this user, or both.
        """
        name, rules = username.strip().lower(), await self._rules.current()
        await self._pair.require(f"{address} {name}", _pace_of_pair(rules))
        await self._address.require(address, _pace_of_address(rules))
        if not is_known_place:
            await self._user.require(name, Pace(rules.login_attempts_user, rules.login_seconds_user))
        if has_code:
            await self._code.require(_code_key(address, name, is_known_place=is_known_place), _pace_of_code(rules))

    async def require_proof(self, user_id: str, *, has_code: bool = False) -> None:
        """Count one attempt of somebody signed in to prove who they are; a stolen session must not guess codes, either.

        Raises:
            RateLimitedError: Too many.
        """
        rules = await self._rules.current()
        await self._pair.require(f"proof {user_id}", _pace_of_pair(rules))
        if has_code:
            await self._code.require(f"proof {user_id}", _pace_of_code(rules))

    async def forgive(self, address: str, username: str, *, is_known_place: bool) -> None:
        """After a success: of the address one attempt only, or an own account would pay for guessing others."""
        name = username.strip().lower()
        await self._pair.forgive(f"{address} {name}")
        await self._address.refund(address, _pace_of_address(await self._rules.current()))
        await self._code.forgive(_code_key(address, name, is_known_place=is_known_place))


def _limiter(name: str, counters: Counters) -> RateLimiter:
    """One whose pace is given at each attempt."""
    return RateLimiter(name, burst=1, seconds_per_attempt=1.0, counters=counters)


def _pace_of_pair(rules: PlatformPolicies) -> Pace:
    return Pace(rules.login_attempts_pair, rules.login_seconds_pair)


def _pace_of_address(rules: PlatformPolicies) -> Pace:
    return Pace(rules.login_attempts_address, rules.login_seconds_address)


def _pace_of_code(rules: PlatformPolicies) -> Pace:
    return Pace(rules.login_attempts_code, rules.login_seconds_code)


def _code_key(address: str, name: str, *, is_known_place: bool) -> str:
    return f"{name} {address if is_known_place else '*'}"
