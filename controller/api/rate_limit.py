"""Slows down guessing: a bucket per key that refills with time. Nobody is ever locked out for good."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from controller.api.errors import RateLimitedError

_MAX_KEYS: Final = 10_000
"""Oldest keys are forgotten beyond this, so that inventing names costs the caller and not our memory."""


class RateLimiter:
    """Per process. Each key may do `burst` attempts at once and then one every `seconds_per_attempt`."""

    def __init__(self, *, burst: int, seconds_per_attempt: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._interval = seconds_per_attempt
        self._clock = clock
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def require(self, key: str) -> None:
        """Count one attempt.

        Raises:
            RateLimitedError: The key's bucket is empty; the attempt is not counted.
        """
        now = self._clock()
        free_at = max(self._free_at.get(key, now), now)
        wait = free_at - now - (self._burst - 1) * self._interval
        if wait > 0:
            raise RateLimitedError("too many attempts", retry_after_seconds=math.ceil(wait))
        self._free_at[key] = free_at + self._interval
        self._free_at.move_to_end(key)
        while len(self._free_at) > _MAX_KEYS:
            self._free_at.popitem(last=False)

    def refund(self, key: str) -> None:
        """Take back one attempt of a key, after a success; others that used the key stay counted."""
        if key in self._free_at:
            self._free_at[key] -= self._interval

    def forgive(self, key: str) -> None:
        """Forget the attempts of a key, after a success."""
        self._free_at.pop(key, None)


class LoginThrottle:
    """Slows guessing of passwords and codes, by address and by user, and does not lock the owner out.

    Guesses from everywhere share one bucket of a user. Whoever comes from a network that the user signed in from before
    is not asked about it: somebody elsewhere can empty that bucket, but not keep the owner away from home.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair = RateLimiter(burst=5, seconds_per_attempt=3.0, clock=clock)
        self._address = RateLimiter(burst=30, seconds_per_attempt=1.0, clock=clock)
        self._user = RateLimiter(burst=10, seconds_per_attempt=6.0, clock=clock)
        self._code = RateLimiter(burst=5, seconds_per_attempt=60.0, clock=clock)
        """Six digits are a million, three of them count at a time: at this pace, one in 230 days of guessing is hit."""

    def require(self, address: str, username: str, *, is_known_place: bool, has_code: bool) -> None:
        """Count one attempt to sign in.

        Raises:
            RateLimitedError: Too many of this address, this user, or both.
        """
        name = username.strip().lower()
        self._pair.require(f"{address} {name}")
        self._address.require(address)
        if not is_known_place:
            self._user.require(name)
        if has_code:
            self._code.require(_code_key(address, name, is_known_place=is_known_place))

    def require_proof(self, user_id: str, *, has_code: bool = False) -> None:
        """Count one attempt of somebody signed in to prove who they are; a stolen session must not guess codes, either.

        Raises:
            RateLimitedError: Too many.
        """
        self._pair.require(f"proof {user_id}")
        if has_code:
            self._code.require(f"proof {user_id}")

    def forgive(self, address: str, username: str, *, is_known_place: bool) -> None:
        """After a success: of the address one attempt only, or an own account would pay for guessing others."""
        name = username.strip().lower()
        self._pair.forgive(f"{address} {name}")
        self._address.refund(address)
        self._code.forgive(_code_key(address, name, is_known_place=is_known_place))


def _code_key(address: str, name: str, *, is_known_place: bool) -> str:
    return f"{name} {address if is_known_place else '*'}"
