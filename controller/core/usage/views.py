"""What goes out of the API for usage."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import msgspec
from msgspec import Meta


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """How much an account uses of one thing."""

    limit: str
    title: str
    unit: str
    used: Annotated[int | None, Meta(description="Counted now; null: this release does not count it yet.")]
    soft: int | None
    hard: Annotated[int | None, Meta(description="Null: unlimited.")]
    state: Annotated[str, Meta(description="ok, near (over the soft value), over, or unknown (not counted yet).")]
    since: Annotated[datetime | None, Meta(description="Since when it is near or over, as it was measured.")]
    peak: Annotated[int | None, Meta(description="The most that was ever measured.")]
    peak_at: datetime | None
    measured_at: datetime | None


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """How much an account uses of everything that can be limited."""

    items: tuple[UsageView, ...]
    overuse_since: Annotated[datetime | None, Meta(description="Since when the account is over some limit.")]
    overuse_action: Annotated[str, Meta(description="throttled or suspended by policy; empty: neither.")]
    next_cursor: str | None = None


class UsageDayView(msgspec.Struct, frozen=True, kw_only=True):
    """How much was used on one day."""

    day: date
    limit: str
    last: Annotated[int, Meta(description="As it was measured last that day; of several accounts: their sum.")]
    peak: Annotated[int, Meta(description="The most that day; of several accounts: the sum of their peaks.")]
    accounts: int


class UsageHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Days, newest first."""

    items: tuple[UsageDayView, ...]
    next_cursor: str | None


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """How much many accounts use of one thing together, as it was measured last."""

    limit: str
    title: str
    unit: str
    accounts: Annotated[int, Meta(description="How many were measured.")]
    used: int
    promised: Annotated[int, Meta(description="Sum of the hard values; accounts without one are left out.")]
    unlimited: Annotated[int, Meta(description="Accounts without a hard value.")]
    peak_of_one: Annotated[int, Meta(description="The most that one account ever had.")]
    near: Annotated[int, Meta(description="Accounts over the soft value.")]
    over: Annotated[int, Meta(description="Accounts over the hard value.")]


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is counted, together."""

    items: tuple[UsageTotal, ...]
    next_cursor: str | None = None
