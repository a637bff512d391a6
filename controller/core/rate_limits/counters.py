"""Counts what somebody did lately: the generic cell rate algorithm, in this process or in Redis for all of them.

A key holds one number, the moment at which it is as good as new. Each unit moves it on by `seconds_per_unit`, and it
may be `burst` units ahead of now at most.

Source of the algorithm: ITU-T I.371, annex A (virtual scheduling).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import structlog

from shared.errors import InvalidInputError

MAX_KEYS: Final = 100_000
"""The least recently used are forgotten beyond this, so that inventing names costs the caller and not our memory."""
_REDIS_SECONDS: Final = 0.25
"""Longest wait for Redis: a request must not hang on a counter."""
_AWAY_SECONDS: Final = 5.0
"""Redis is left alone for so long after it failed."""

_log = structlog.get_logger("controller.rate_limits")


class Bucket(NamedTuple):
    """One counter and what it may hold."""

    key: str
    burst: int
    """Units at once."""
    seconds_per_unit: float
    """Afterwards, one unit more comes back in this time."""


class Verdict(NamedTuple):
    """What the counters said; where `wait_seconds` is not 0, nothing was counted."""

    wait_seconds: float
    """Until all of them would have let it in."""
    fullness: tuple[float, ...]
    """Of each bucket, in order: seconds until it is as good as new, this unit included."""


class Counters(Protocol):
    """Where the numbers are."""

    async def take(self, buckets: Sequence[Bucket]) -> Verdict:
        """Count one unit in all of them, or in none."""
        ...

    async def give_back(self, key: str, seconds: float) -> None:
        """Take back what was counted; others that used the key stay counted."""
        ...

    async def forget(self, key: str) -> None:
        """As if the key was never used."""
        ...

    @property
    def is_away(self) -> bool:
        """Whether what all processes share does not answer now, and this one counts alone."""
        ...

    async def close(self) -> None: ...


class MemoryCounters:
    """Of this process alone; gone when it ends."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._new_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._new_at)

    async def take(self, buckets: Sequence[Bucket]) -> Verdict:
        """See Counters."""
        now = self._clock()
        known = self._new_at
        fullness = []
        wait = 0.0
        for key, burst, interval in buckets:
            ahead = max(known.get(key, now) - now, 0.0) + interval
            fullness.append(ahead)
            wait = max(wait, ahead - burst * interval)
        if wait > _GRAIN_SECONDS:
            return Verdict(wait, tuple(fullness))
        for bucket, ahead in zip(buckets, fullness, strict=True):
            known[bucket.key] = now + ahead
            known.move_to_end(bucket.key)
        while len(known) > self._max_keys:
            known.popitem(last=False)
        return Verdict(0.0, tuple(fullness))

    async def give_back(self, key: str, seconds: float) -> None:
        """See Counters."""
        if key in self._new_at:
            self._new_at[key] -= seconds

    async def forget(self, key: str) -> None:
        """See Counters."""
        self._new_at.pop(key, None)

    @property
    def is_away(self) -> bool:
        """Never: there is nothing to be away from."""
        return False

    async def close(self) -> None:
        """Nothing is open."""


_GRAIN_SECONDS: Final = 1e-6
"""Sums of fractions of a second are not exact."""

# Redis's own clock: machines of one controller may differ. Numbers go as text: an answer's would be cut to integers.
_TAKE: Final = """
local at = redis.call('TIME')
local now = tonumber(at[1]) + tonumber(at[2]) / 1000000
local ahead, wait = {}, 0
for i, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[2 * i])
  local new_at = tonumber(redis.call('GET', key) or now)
  ahead[i] = math.max(new_at - now, 0) + interval
  wait = math.max(wait, ahead[i] - tonumber(ARGV[2 * i - 1]) * interval)
end
if wait > 0.000001 then
  local answer = {string.format('%.6f', wait)}
  for i in ipairs(KEYS) do answer[i + 1] = string.format('%.6f', ahead[i]) end
  return answer
end
local answer = {'0'}
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.6f', now + ahead[i]), 'PX', math.max(1, math.ceil(ahead[i] * 1000)))
  answer[i + 1] = string.format('%.6f', ahead[i])
end
return answer
"""
_GIVE_BACK: Final = """
local new_at = redis.call('GET', KEYS[1])
if new_at then
  redis.call('SET', KEYS[1], string.format('%.6f', tonumber(new_at) - tonumber(ARGV[1])), 'KEEPTTL')
end
return 0
"""


class RedisCounters:
    """Shared by all processes of a controller; this process's own memory while Redis does not answer."""

    def __init__(self, redis_url: str, *, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`prefix` keeps two controllers on one Redis apart. Connects when it is asked first.

        Raises:
            InvalidInputError: The library is not installed.
        """
        try:
            from redis import asyncio as client  # noqa: PLC0415 - only who uses Redis needs the library
            from redis.exceptions import RedisError  # noqa: PLC0415 - as above
        except ImportError as error:
            raise InvalidInputError("Redis needs the extra 'scale'", hint="pip install 'wcp360[scale]'") from error
        self._errors = (RedisError, OSError, TimeoutError)
        self._prefix = f"{prefix}:rate:"
        self._clock = clock
        self._memory = MemoryCounters(clock=clock)
        self._away_until = 0.0
        self._redis = client.Redis.from_url(
            redis_url,
            socket_connect_timeout=_REDIS_SECONDS,
            socket_timeout=_REDIS_SECONDS,
            decode_responses=True,
        )
        self._take = self._redis.register_script(_TAKE)
        self._give_back = self._redis.register_script(_GIVE_BACK)

    @property
    def is_away(self) -> bool:
        """See Counters."""
        return self._clock() < self._away_until

    async def take(self, buckets: Sequence[Bucket]) -> Verdict:
        """See Counters."""
        if not buckets:
            return Verdict(0.0, ())
        keys = [self._prefix + bucket.key for bucket in buckets]
        arguments = [number for bucket in buckets for number in (bucket.burst, f"{bucket.seconds_per_unit:.9f}")]
        answer = await self._ask(lambda: self._take(keys=keys, args=arguments))
        if answer is None:
            return await self._memory.take(buckets)
        wait, *fullness = map(float, answer)
        return Verdict(wait, tuple(fullness))

    async def give_back(self, key: str, seconds: float) -> None:
        """See Counters."""
        await self._memory.give_back(key, seconds)
        await self._ask(lambda: self._give_back(keys=[self._prefix + key], args=[f"{seconds:.9f}"]))

    async def forget(self, key: str) -> None:
        """See Counters."""
        await self._memory.forget(key)
        await self._ask(lambda: self._redis.delete(self._prefix + key))

    async def _ask(self, question: Callable[[], Any]) -> Any | None:
        """Redis's answer; None: it is away."""
        if self.is_away:
            return None
        try:
            return await question()
        except self._errors as error:
            self._away_until = self._clock() + _AWAY_SECONDS
            _log.warning("rate_limits.redis_away", error=type(error).__name__, seconds=_AWAY_SECONDS)
            return None

    async def close(self) -> None:
        """See Counters."""
        await self._redis.aclose()


@dataclass(frozen=True, slots=True)
class RateLimitSamples:
    """For /metrics: whether limits hold across processes, as they are meant to."""

    counters: Counters

    def lines(self) -> Iterator[str]:
        """One gauge."""
        name = "wcp360_rate_limits_alone"
        yield f"# HELP {name} 1 while Redis is away and this process counts its rate limits alone.\n"
        yield f"# TYPE {name} gauge\n"
        yield f"{name} {int(self.counters.is_away)}\n"
