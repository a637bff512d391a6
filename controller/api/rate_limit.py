"""Slows down guessing: a bucket per key that refills with time. Nobody is ever locked out for good."""

from __future__ import annotations

import hashlib
import math

from controller.api.errors import RateLimitedError
from controller.core.rate_limits.counters import Bucket, Counters, MemoryCounters


class RateLimiter:
    """Each key may do `burst` attempts at once and then one every `seconds_per_attempt`."""

    def __init__(self, name: str, *, burst: int, seconds_per_attempt: float, counters: Counters | None = None) -> None:
        """`name` keeps limiters apart that share counters; without counters, it has some in memory of its own."""
        self._name = name
        self._burst = burst
        self._interval = seconds_per_attempt
        self._counters = MemoryCounters() if counters is None else counters

    async def require(self, key: str) -> None:
        """Count one attempt.

        Raises:
            RateLimitedError: The key's bucket is empty; the attempt is not counted.
        """
        wait = (await self._counters.take((Bucket(self._key(key), self._burst, self._interval),))).wait_seconds
        if wait > 0:
            raise RateLimitedError("too many attempts", retry_after_seconds=math.ceil(wait))

    async def refund(self, key: str) -> None:
        """Take back one attempt of a key, after a success; others that used the key stay counted."""
        await self._counters.give_back(self._key(key), self._interval)

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

    def __init__(self, counters: Counters | None = None) -> None:
        shared = MemoryCounters() if counters is None else counters
        self._pair = RateLimiter("login-pair", burst=5, seconds_per_attempt=3.0, counters=shared)
        self._address = RateLimiter("login-address", burst=30, seconds_per_attempt=1.0, counters=shared)
        self._user = RateLimiter("login-user", burst=10, seconds_per_attempt=6.0, counters=shared)
        self._code = RateLimiter("login-code", burst=5, seconds_per_attempt=60.0, counters=shared)
        """Six digits are a million, three of them count at a time: at this pace, one in 230 days of guessing is hit."""

    async def require(self, address: str, username: str, *, is_known_place: bool, has_code: bool) -> None:
        """Count one attempt to sign in.

        Raises:
            RateLimitedError: Too many of this address, this user, or both.
        """
        name = username.strip().lower()
        await self._pair.require(f"{address} {name}")
        await self._address.require(address)
        if not is_known_place:
            await self._user.require(name)
        if has_code:
            await self._code.require(_code_key(address, name, is_known_place=is_known_place))

    async def require_proof(self, user_id: str, *, has_code: bool = False) -> None:
        """Count one attempt of somebody signed in to prove who they are; a stolen session must not guess codes, either.

        Raises:
            RateLimitedError: Too many.
        """
        await self._pair.require(f"proof {user_id}")
        if has_code:
            await self._code.require(f"proof {user_id}")

    async def forgive(self, address: str, username: str, *, is_known_place: bool) -> None:
        """After a success: of the address one attempt only, or an own account would pay for guessing others."""
        name = username.strip().lower()
        await self._pair.forgive(f"{address} {name}")
        await self._address.refund(address)
        await self._code.forgive(_code_key(address, name, is_known_place=is_known_place))


def _code_key(address: str, name: str, *, is_known_place: bool) -> str:
    return f"{name} {address if is_known_place else '*'}"
