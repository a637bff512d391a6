"""What nodes count up by calendar month: traffic and processor time of their accounts.

A node's counter only grows as long as it has the same name (source), so of each counter the most that was ever said is
kept, and a month's use is the sum over its counters: a report that comes twice, late or from a node that was restored
takes nothing away and adds nothing twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.limits.registry import MAX_BYTES
from controller.core.usage.models import AccountFigure, AccountMeter

_WORDS: Final[Mapping[str, str]] = {"traffic_bytes": "bandwidth_bytes", "processor_seconds": "cpu_seconds"}
"""Word of the gauge `accounts.NAME.WORD.MONTH.SOURCE` (agent/link) to the key of a limit."""
METERED: Final = tuple(_WORDS.values())
SOURCES_MAX: Final = 50
"""Of one account, limit and month: a node that begins anew each minute fills no table."""
OLDEST: Final = timedelta(days=62)
"""Nodes speak of this month and the one before; nobody changes what was billed long ago."""
_MONTH: Final = re.compile(r"(20\d\d)(0[1-9]|1[0-2])")
_SOURCE: Final = re.compile(r"[1-9][0-9]{0,9}x[0-9a-z]{1,20}")
"""Begins with the uid: a node may still speak of an account whose name somebody else has by now."""

_log = structlog.get_logger("controller.usage")


class MeterKey(NamedTuple):
    """One counter of an account."""

    limit_key: str
    month: date
    source: str


Readings = Mapping[str, Mapping[MeterKey, int]]
"""Name of an account to what its node's counters say."""


def month_of(at: datetime) -> date:
    """The first day of the calendar month (UTC)."""
    return at.date().replace(day=1)


def parse_meters(gauges: Mapping[str, float], now: datetime) -> dict[str, dict[MeterKey, int]]:
    """What a node's sample says of this month, the one before and, where its clock is ahead, the one after."""
    oldest, newest = month_of(now - OLDEST), month_of(now + timedelta(days=1))
    found: dict[str, dict[MeterKey, int]] = defaultdict(dict)
    for gauge, value in gauges.items():
        parts = gauge.split(".")
        if len(parts) != 5 or parts[0] != "accounts" or parts[2] not in _WORDS or not 0 <= value <= MAX_BYTES:
            continue
        month = _MONTH.fullmatch(parts[3])
        if month is None or _SOURCE.fullmatch(parts[4]) is None:
            continue
        begins_on = date(int(month[1]), int(month[2]), 1)
        if oldest <= begins_on <= newest:
            found[parts[1]][MeterKey(_WORDS[parts[2]], begins_on, parts[4])] = int(value)
    return dict(found)


async def keep_meters(session: AsyncSession, node_id: str, readings: Readings, at: datetime) -> int:
    """Take what a node says of its own accounts, whatever names it gives; how many accounts it spoke of."""
    statement = select(Account).where(Account.node_id == node_id, Account.deleted_at.is_(None))
    found = {account.id: _own(account, readings) for account in await session.scalars(statement)}
    accounts = {account_id: said for account_id, said in found.items() if said}
    if not accounts:
        return 0
    rows = await _read_rows(session, node_id, month_of(at - OLDEST))
    for account_id, said in accounts.items():
        _take(session, account_id, rows[account_id], said)
    await session.flush()
    await _note_month(session, accounts, rows, at)
    return len(accounts)


def _own(account: Account, readings: Readings) -> dict[MeterKey, int]:
    own = f"{account.uid}x"
    return {key: value for key, value in readings.get(account.name, {}).items() if key.source.startswith(own)}


async def _read_rows(
    session: AsyncSession, node_id: str, oldest: date
) -> defaultdict[str, dict[MeterKey, AccountMeter]]:
    """Account id to its counters."""
    statement = (
        select(AccountMeter)
        .join(Account, Account.id == AccountMeter.account_id)
        .where(Account.node_id == node_id, Account.deleted_at.is_(None), AccountMeter.month >= oldest)
    )
    rows: defaultdict[str, dict[MeterKey, AccountMeter]] = defaultdict(dict)
    for row in await session.scalars(statement):
        rows[row.account_id][MeterKey(row.limit_key, row.month, row.source)] = row
    return rows


def _take(
    session: AsyncSession, account_id: str, rows: dict[MeterKey, AccountMeter], readings: Mapping[MeterKey, int]
) -> None:
    for key, value in readings.items():
        row = rows.get(key)
        if row is not None:
            row.value = max(row.value, value)
        elif sum(known[:2] == key[:2] for known in rows) >= SOURCES_MAX:
            _log.warning("usage.sources", account_id=account_id, limit=key.limit_key, month=key.month.isoformat())
        elif value > 0:
            row = AccountMeter(account_id=account_id, value=value, **key._asdict())
            rows[key] = row
            session.add(row)


async def _note_month(
    session: AsyncSession, ids: Collection[str], rows: Mapping[str, Mapping[MeterKey, AccountMeter]], at: datetime
) -> None:
    """Write the present month's sums where limits are counted."""
    month = month_of(at)
    known = await session.scalars(select(AccountFigure).where(AccountFigure.account_id.in_(ids)))
    figures = {row.account_id: row for row in known}
    for account_id in ids:
        figure = figures.get(account_id)
        if figure is None:
            figure = AccountFigure(account_id=account_id, sampled_at=at)
            session.add(figure)
        figure.month = month
        for limit_key in METERED:
            values = [row.value for key, row in rows[account_id].items() if key[:2] == (limit_key, month)]
            setattr(figure, limit_key, sum(values))


async def turn_month(session: AsyncSession, now: datetime) -> None:
    """A new month begins at nothing, also for accounts whose node is away."""
    month = month_of(now)
    statement = update(AccountFigure).where(AccountFigure.month.is_not(None), AccountFigure.month != month)
    await session.execute(statement.values({"month": month} | dict.fromkeys(METERED, 0)))


async def is_turning(session: AsyncSession, now: datetime) -> bool:
    """Whether some account's figures are of another month."""
    statement = select(AccountFigure.id).where(AccountFigure.month.is_not(None), AccountFigure.month != month_of(now))
    return (await session.scalars(statement.limit(1))).first() is not None


async def sum_months(
    session: AsyncSession, account_ids: Collection[str], *, begins_on: date, ends_on: date
) -> dict[tuple[str, str, date], int]:
    """Account id, limit and month to how much, of the months that begin between the two days (both included)."""
    statement = (
        select(AccountMeter.account_id, AccountMeter.limit_key, AccountMeter.month, func.sum(AccountMeter.value))
        .where(AccountMeter.account_id.in_(account_ids), AccountMeter.month >= begins_on, AccountMeter.month <= ends_on)
        .group_by(AccountMeter.account_id, AccountMeter.limit_key, AccountMeter.month)
    )
    return {(row[0], row[1], row[2]): int(row[3]) for row in await session.execute(statement)}
