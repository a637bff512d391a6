"""Counts requests in memory and writes them in batches; several processes add to the same rows."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.api_usage.models import COUNT_COLUMNS, TOOK_MS, ApiUsage, ApiUsageAddress
from controller.core.auth.identities import Identity
from controller.core.auth.models import User
from controller.core.policies.book import read_now
from controller.db.base import Model, new_id, utc_now
from controller.db.engine import Database

WRITE_SECONDS: Final = 15.0
"""What a process that dies loses at most, and how far the figures are behind."""
_MAX_ENTRIES: Final = 20_000
"""Beyond it new combinations are not counted until the next write: figures must not cost the process its memory."""
_ROWS_AT_ONCE: Final = 200
_CLIENT_ERROR, _SERVER_ERROR, _LIMITED, _FIRST_CLASS = 1, 2, 3, 4
_ENDS_SECONDS: Final = tuple(end / 1000 for end in TOOK_MS)

_log = structlog.get_logger("controller.api_usage")


class Use(NamedTuple):
    """One answered request."""

    method: str
    route: str
    """The template, never the path: the number of rows is bounded."""
    status: int
    seconds: float
    address: str


class _Who(NamedTuple):
    """Whose numbers they are; empty texts for nobody."""

    user_id: str
    token_id: str


class _Row(NamedTuple):
    """The key of a row."""

    kind: str
    subject: str
    user_id: str | None
    period: str
    starts_at: datetime


Counts = list[int]
"""One number for each of COUNT_COLUMNS."""


class UsageRecorder:
    """What this process counted and did not write yet."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._counts: dict[tuple[int, _Who, str, str], Counts] = {}
        self._addresses: Counter[tuple[_Who, str]] = Counter()
        self._turn = asyncio.Lock()

    def note(self, identity: Identity | None, use: Use) -> None:
        """Count one request. On the way of every answer, so it only adds to numbers."""
        who = _NOBODY if identity is None else _who_of(identity)
        key = (int(self._clock().timestamp()) // 3600, who, use.method, use.route)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= _MAX_ENTRIES:
                return
            counts = self._counts[key] = [0] * len(COUNT_COLUMNS)
        counts[0] += 1
        status = use.status
        if status >= 400:
            counts[_LIMITED if status == 429 else _SERVER_ERROR if status >= 500 else _CLIENT_ERROR] += 1
        counts[_FIRST_CLASS + bisect_left(_ENDS_SECONDS, use.seconds)] += 1
        if identity is not None and (len(self._addresses) < _MAX_ENTRIES or (who, use.address) in self._addresses):
            self._addresses[who, use.address] += 1

    async def write(self) -> None:
        """Add everything to the database; kept for the next time where that is away."""
        async with self._turn:
            counts, addresses = self._counts, self._addresses
            self._counts, self._addresses = {}, Counter()
            if not counts:
                return
            try:
                async with self._database.write() as session:
                    users = await _existing_users(session, {who.user_id for _, who, _, _ in counts})
                    await _add_counts(session, _sum_rows(counts, users))
                    await _add_addresses(session, addresses, users, now=self._clock())
            except SQLAlchemyError as error:
                _log.warning("api_usage.not_written", error=type(error).__name__)
                self._take_back(counts, addresses)

    def _take_back(
        self, counts: dict[tuple[int, _Who, str, str], Counts], addresses: Counter[tuple[_Who, str]]
    ) -> None:
        for key, values in self._counts.items():
            _add(counts.setdefault(key, [0] * len(COUNT_COLUMNS)), values)
        self._counts = counts
        self._addresses += addresses

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write now and then while the block runs, and at its end."""
        writer = asyncio.create_task(self._write_again_and_again(), name="api-usage")
        try:
            yield
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await self.write()

    async def _write_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()


_NOBODY: Final = _Who("", "")


def _who_of(identity: Identity) -> _Who:
    return _Who(identity.user_id, "" if identity.is_person else identity.credential_id)


async def _existing_users(session: AsyncSession, ids: set[str]) -> frozenset[str]:
    """Those who were not deleted since they asked."""
    return frozenset(await session.scalars(select(User.id).where(User.id.in_(sorted(ids - {""})))))


def _sum_rows(counts: dict[tuple[int, _Who, str, str], Counts], users: frozenset[str]) -> dict[_Row, Counts]:
    sums: dict[_Row, Counts] = defaultdict(lambda: [0] * len(COUNT_COLUMNS))
    for (hour, who, method, route), values in counts.items():
        starts_at = datetime.fromtimestamp(hour * 3600, UTC)
        for period, start in (("hour", starts_at), ("day", starts_at.replace(hour=0))):
            for kind, subject, user_id in _subjects_of(who, f"{method} {route}"[:200], users):
                _add(sums[_Row(kind, subject, user_id, period, start)], values)
    return sums


def _subjects_of(who: _Who, route: str, users: frozenset[str]) -> Iterator[tuple[str, str, str | None]]:
    yield "route", route, None
    if who.user_id in users:
        yield "user", who.user_id, who.user_id
        if who.token_id:
            yield "token", who.token_id, who.user_id


def _add(counts: Counts, more: Sequence[int]) -> None:
    for index, number in enumerate(more):
        counts[index] += number


async def _add_counts(session: AsyncSession, sums: dict[_Row, Counts]) -> None:
    # Sorted: two processes that lock the same rows in another order would wait for each other.
    rows = [
        {"id": new_id(), **row._asdict(), **dict(zip(COUNT_COLUMNS, counts, strict=True))}
        for row, counts in sorted(sums.items(), key=lambda item: (item[0].starts_at, *item[0][:2], item[0].period))
    ]
    await _upsert(session, ApiUsage, rows, keys=("kind", "subject", "period", "starts_at"), counts=COUNT_COLUMNS)


async def _add_addresses(
    session: AsyncSession, addresses: Counter[tuple[_Who, str]], users: frozenset[str], *, now: datetime
) -> None:
    sums: Counter[tuple[str, str, str, str]] = Counter()
    for (who, address), count in addresses.items():
        for kind, subject, user_id in _subjects_of(who, "", users):
            if user_id is not None:
                sums[kind, subject, user_id, address[:64]] += count
    rows = [
        {
            "id": new_id(), "kind": kind, "subject": subject, "user_id": user_id, "address": address,
            "requests": count, "last_seen_at": now,
        }
        for (kind, subject, user_id, address), count in sorted(sums.items())
    ]  # fmt: skip
    keys = ("kind", "subject", "address")
    await _upsert(session, ApiUsageAddress, rows, keys=keys, counts=("requests",), latest=("last_seen_at",))


async def _upsert(
    session: AsyncSession,
    model: type[Model],
    rows: Sequence[dict[str, Any]],
    *,
    keys: Sequence[str],
    counts: Iterable[str],
    latest: Iterable[str] = (),
) -> None:
    """Insert rows, or add their counts to those that are there."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    now = utc_now()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = [{**row, "created_at": now, "updated_at": now} for row in rows[start : start + _ROWS_AT_ONCE]]
        statement = insert(model).values(part)
        more = {name: getattr(model, name) + statement.excluded[name] for name in counts}
        newer = {name: statement.excluded[name] for name in (*latest, "updated_at")}
        await session.execute(statement.on_conflict_do_update(index_elements=list(keys), set_={**more, **newer}))


@dataclass(frozen=True, slots=True)
class UsageRetention:
    """A schedule's work: forget what is too old."""

    database: Database
    clock: Callable[[], datetime] = utc_now

    async def run(self) -> str | None:
        """One round; safe to run again."""
        now, gone = self.clock(), 0
        rules = await read_now(self.database)
        hours = now - timedelta(days=rules.api_usage_hours_retention_days)
        days = now - timedelta(days=rules.api_usage_retention_days)
        async with self.database.write() as session:
            for statement in (
                delete(ApiUsage).where(ApiUsage.period == "hour", ApiUsage.starts_at < hours),
                delete(ApiUsage).where(ApiUsage.period == "day", ApiUsage.starts_at < days),
                delete(ApiUsageAddress).where(ApiUsageAddress.last_seen_at < hours),
            ):
                result = await session.execute(statement, execution_options={"synchronize_session": False})
                gone += getattr(result, "rowcount", 0)
        return f"{gone} figures of the API's use forgotten" if gone else None
