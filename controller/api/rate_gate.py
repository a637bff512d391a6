"""Lets a request in, or says how long to wait; and tells every caller what is left.

Source of the fields: draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from controller.api.errors import RateLimitedError
from controller.core.auth.identities import Identity
from controller.core.rate_limits.counters import Bucket, Counters
from controller.core.rate_limits.keys import Key, Tenant, key_of
from controller.core.rate_limits.policy import Rate, RateBook, RateLimits

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Admission(NamedTuple):
    """What the counters said of one request."""

    headers: RawHeaders
    """For its answer, whatever that is."""
    error: RateLimitedError | None
    """None: it may go on."""


_FREE: Final = Admission((), None)


class RateGate:
    """Asks the counters, for every request, once."""

    def __init__(self, book: RateBook, counters: Counters) -> None:
        self.book = book
        self.counters = counters
        self._limits: RateLimits | None = None
        self._policies: dict[tuple[str, ...], bytes] = {}
        """`RateLimit-Policy` by the rates in it: a handful, written once."""

    async def admit(self, identity: Identity | None, address: str, tenant: Tenant | None = None) -> Admission:
        """Count one request of whoever asks."""
        limits = await self.book.current()
        if limits is not self._limits:
            self._limits, self._policies = limits, {}
        limited = [
            (key, rate)
            for key in key_of(identity, address, tenant=tenant)
            if (rate := getattr(limits, key.rate)) is not None
        ]
        if not limited:
            return _FREE
        verdict = await self.counters.take([_bucket(key, rate) for key, rate in limited])
        headers = (
            (b"ratelimit-policy", self._policy(limited)),
            (b"ratelimit", _render_left(limited, verdict.fullness)),
        )
        if verdict.wait_seconds == 0:
            return Admission(headers, None)
        seconds = max(1, math.ceil(verdict.wait_seconds))
        return Admission(headers, RateLimitedError("too many requests", retry_after_seconds=seconds))

    def _policy(self, limited: Sequence[tuple[Key, Rate]]) -> bytes:
        names = tuple(key.rate for key, _ in limited)
        known = self._policies.get(names)
        if known is None:
            known = ", ".join(f'"{key.rate}";q={rate.requests};w={rate.seconds}' for key, rate in limited).encode()
            self._policies[names] = known
        return known


def _bucket(key: Key, rate: Rate) -> Bucket:
    return Bucket(f"{key.rate}:{key.owner}", rate.requests, rate.seconds / rate.requests)


def _render_left(limited: Sequence[tuple[Key, Rate]], fullness: Sequence[float]) -> bytes:
    """The limit that is nearest; `t`: when all of it is there again, if nothing more is asked until then."""
    left, name, seconds = min(
        (max(0, int(rate.requests - ahead * rate.requests / rate.seconds + 1e-6)), key.rate, ahead)
        for (key, rate), ahead in zip(limited, fullness, strict=True)
    )
    return f'"{name}";r={left};t={math.ceil(seconds)}'.encode()
