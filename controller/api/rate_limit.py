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

    def forgive(self, key: str) -> None:
        """Forget the attempts of a key, after a success."""
        self._free_at.pop(key, None)
