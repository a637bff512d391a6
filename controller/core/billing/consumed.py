"""What accounts consumed in a time: disk by day, traffic and processor time by calendar month and by day."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.usage.meters import METERED, month_of, sum_months
from controller.core.usage.models import UsageDay

_DAY = timedelta(days=1)
Sums = dict[tuple[str, str], int]
"""Account id and limit to how much."""


class MonthUse(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in one calendar month, all of it."""

    month: Annotated[date, Meta(description="Its first day (UTC).")]
    traffic_bytes: Annotated[int, Meta(description="Of requests and answers of the account's sites.")]
    cpu_seconds: int


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in the time asked for, in whole days (UTC): the day on which it ends is not part of it."""

    disk_bytes_average: Annotated[int | None, Meta(description="Of the days on which it was measured; null: of none.")]
    disk_bytes_peak: int | None
    disk_days: Annotated[int, Meta(description="How many days were measured.")]
    traffic_bytes: int
    cpu_seconds: int
    months: Annotated[
        tuple[MonthUse, ...],
        Meta(description="Each month that the time touches, whole: also the part of it outside of the time."),
    ]


class Consumption:
    """What some accounts used in one time. Read it once, ask it for each account."""

    def __init__(self, begins_at: datetime, ends_at: datetime) -> None:
        """The end is not part of it; both are aware."""
        self._begins_on, self._ends_on = begins_at.date(), ends_at.date()
        self._last_month = month_of(ends_at - timedelta(microseconds=1))
        self._months: dict[tuple[str, str, date], int] = {}
        self._before: Sums = {}
        self._upto: Sums = {}
        self._disk: dict[str, tuple[int, int, int]] = {}

    async def read(self, session: AsyncSession, account_ids: Collection[str]) -> None:
        """Read what is known of these accounts."""
        first = self._begins_on.replace(day=1)
        self._months = await sum_months(session, account_ids, begins_on=first, ends_on=self._last_month)
        self._before = await _read_upto(session, account_ids, self._begins_on)
        self._upto = await _read_upto(session, account_ids, self._ends_on)
        self._disk = await _read_disk(session, account_ids, self._begins_on, self._ends_on)

    def of(self, account_id: str) -> Consumed:
        """What one of them used."""
        average, peak, days = self._disk.get(account_id, (None, None, 0))
        used = {key: sum(self._used_in(account_id, key, month) for month in self._list_months()) for key in METERED}
        return Consumed(
            disk_bytes_average=average,
            disk_bytes_peak=peak,
            disk_days=days,
            traffic_bytes=used["bandwidth_bytes"],
            cpu_seconds=used["cpu_seconds"],
            months=tuple(
                MonthUse(
                    month=month,
                    traffic_bytes=self._months.get((account_id, "bandwidth_bytes", month), 0),
                    cpu_seconds=self._months.get((account_id, "cpu_seconds", month), 0),
                )
                for month in self._list_months()
            ),
        )

    def _list_months(self) -> Iterator[date]:
        month = self._begins_on.replace(day=1)
        while month <= self._last_month:
            yield month
            month = _next_month(month)

    def _used_in(self, account_id: str, key: str, month: date) -> int:
        """The month's part in the time. Of two times that meet, each has what the other has not."""
        if self._ends_on <= month:
            return 0
        is_whole = self._ends_on >= _next_month(month)
        upto = self._months.get((account_id, key, month), 0) if is_whole else self._upto.get((account_id, key), 0)
        before = self._before.get((account_id, key), 0) if month < self._begins_on else 0
        return max(0, upto - before)


def _next_month(month: date) -> date:
    return (month + 31 * _DAY).replace(day=1)


async def _read_upto(session: AsyncSession, account_ids: Collection[str], day: date) -> Sums:
    """What had been used in the day's month before the day began. It only grows within a month."""
    statement = (
        select(UsageDay.account_id, UsageDay.limit_key, func.max(UsageDay.last))
        .where(
            UsageDay.account_id.in_(account_ids),
            UsageDay.limit_key.in_(METERED),
            UsageDay.day >= day.replace(day=1),
            UsageDay.day < day,
        )
        .group_by(UsageDay.account_id, UsageDay.limit_key)
    )
    return {(row[0], row[1]): int(row[2]) for row in await session.execute(statement)}


async def _read_disk(
    session: AsyncSession, account_ids: Collection[str], begins_on: date, ends_on: date
) -> dict[str, tuple[int, int, int]]:
    """Account id to average, peak and number of days."""
    statement = (
        select(UsageDay.account_id, func.avg(UsageDay.last), func.max(UsageDay.peak), func.count())
        .where(
            UsageDay.account_id.in_(account_ids),
            UsageDay.limit_key == "disk_bytes",
            UsageDay.day >= begins_on,
            UsageDay.day < ends_on,
        )
        .group_by(UsageDay.account_id)
    )
    return {row[0]: (round(row[1]), int(row[2]), row[3]) for row in await session.execute(statement)}
