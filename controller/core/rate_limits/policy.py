"""How often the API may be asked: what an administrator decides about it, and how every process knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import Change, OpContext
from controller.core.rate_limits.models import RateLimitRow
from controller.db.engine import Database
from shared.errors import InvalidInputError

NOUN: Final = "security"
REFRESH_SECONDS: Final = 5.0
"""A process is at most this far behind a change that another one made."""
SLOWEST: Final = 1.0
"""Requests a second. An administrator who is slower than this could hardly make it faster again."""


_SAID: Final = "how many `requests` in how many `seconds`."


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many at once; what is used up comes back evenly over the seconds."""

    requests: Annotated[int, Meta(ge=1, le=10_000_000, examples=[30_000])]
    seconds: Annotated[int, Meta(ge=1, le=3600, examples=[60])]


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How often the API may be asked. Null: as often as one likes. A request must be within all that concern it."""

    anonymous: Annotated[Rate | None, Meta(description="Each address (of IPv6: /64), of those not signed in.")] = Rate(
        requests=6_000, seconds=60
    )
    user: Annotated[Rate | None, Meta(description="Each user, all sessions and tokens together.")] = Rate(
        requests=30_000, seconds=60
    )
    token: Annotated[Rate | None, Meta(description="Each API token.")] = Rate(requests=30_000, seconds=60)
    tenant: Annotated[Rate | None, Meta(description="Each reseller or client, all their users together.")] = Rate(
        requests=60_000, seconds=60
    )
    tier_low: Annotated[Rate | None, Meta(description="Each tenant whose package has api_rate_tier low.")] = Rate(
        requests=600, seconds=60
    )
    tier_standard: Annotated[Rate | None, Meta(description="As tier_low, for the tier standard.")] = Rate(
        requests=6_000, seconds=60
    )
    tier_high: Annotated[Rate | None, Meta(description="As tier_low, for the tier high.")] = Rate(
        requests=30_000, seconds=60
    )


class RateLimitsUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be different; null takes a limit away."""

    anonymous: Annotated[Rate | UnsetType | None, Meta(description=f"Addresses of those not signed in: {_SAID}")] = (
        UNSET
    )
    user: Annotated[Rate | UnsetType | None, Meta(description=f"Each user: {_SAID}")] = UNSET
    token: Annotated[Rate | UnsetType | None, Meta(description=f"Each API token: {_SAID}")] = UNSET
    tenant: Annotated[Rate | UnsetType | None, Meta(description=f"Each reseller or client: {_SAID}")] = UNSET
    tier_low: Annotated[Rate | UnsetType | None, Meta(description=f"Tenants of tier low: {_SAID}")] = UNSET
    tier_standard: Annotated[Rate | UnsetType | None, Meta(description=f"Tenants of tier standard: {_SAID}")] = UNSET
    tier_high: Annotated[Rate | UnsetType | None, Meta(description=f"Tenants of tier high: {_SAID}")] = UNSET


class RateBook:
    """The rates as this process knows them, so that no request asks the database for them."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._limits = RateLimits()
        self._read_at: float | None = None
        self._turn = asyncio.Lock()

    async def current(self) -> RateLimits:
        """What holds now; the same object until something changed. Without a database: what was read last."""
        if self._is_fresh():
            return self._limits
        async with self._turn:
            if not self._is_fresh():
                await self._read()
        return self._limits

    async def _read(self) -> None:
        try:
            async with self._database.read() as session:
                found = await read_limits(session)
        except SQLAlchemyError:
            found = self._limits  # rates protect; not knowing them must refuse nobody
        if found != self._limits:
            self._limits = found
        self._read_at = self._clock()

    def forget(self) -> None:
        """Read them again at the next request: they were changed here."""
        self._read_at = None

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < REFRESH_SECONDS


async def read_limits(session: AsyncSession) -> RateLimits:
    """What is stored, and the defaults of the others."""
    rows = await session.scalars(select(RateLimitRow).where(RateLimitRow.name.in_(RateLimits.__struct_fields__)))
    changed = {
        row.name: None if row.requests is None else Rate(requests=row.requests, seconds=row.seconds) for row in rows
    }
    return msgspec.structs.replace(RateLimits(), **changed)


async def show_limits(ctx: OpContext) -> RateLimits:
    """What holds.

    Raises:
        ForbiddenError
    """
    ctx.actor.require(NOUN, "read")
    return await read_limits(ctx.session)


async def update_limits(ctx: OpContext, params: RateLimitsUpdate) -> RateLimits:
    """Change what holds.

    Raises:
        ForbiddenError
        InvalidInputError: Nobody could work at this rate.
    """
    ctx.actor.require(NOUN, "write")
    before = await read_limits(ctx.session)
    given = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not UNSET}
    for name, rate in given.items():
        _require_workable(name, rate)
    after = msgspec.structs.replace(before, **given)
    if after == before:
        return before
    rows = {row.name: row for row in await ctx.session.scalars(select(RateLimitRow))}
    for name, rate in given.items():
        row = rows.get(name) or RateLimitRow(name=name)
        row.requests, row.seconds = (None, 1) if rate is None else (rate.requests, rate.seconds)
        ctx.session.add(row)
    await ctx.session.flush()
    record(
        ctx,
        Change(
            action="rate_limits.update",
            target="rate_limits/policy",
            target_name="rate limits",
            before=msgspec.to_builtins(before),
            after=msgspec.to_builtins(after),
        ),
    )
    return after


def _require_workable(name: str, rate: Rate | None) -> None:
    if rate is not None and rate.requests < SLOWEST * rate.seconds:
        raise InvalidInputError(
            f"{rate.requests} in {rate.seconds} seconds is slower than one a second",
            field=f"{name}.requests",
            hint="Whoever is slower could not set it right again.",
        )
