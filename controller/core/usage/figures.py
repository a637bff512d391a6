"""What nodes measure of their accounts: taken from the nodes' samples, kept per account, counted as limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.limits.registry import MAX_BYTES, Count, LimitKind
from controller.core.usage.meters import is_turning, keep_meters, parse_meters, turn_month
from controller.core.usage.models import AccountFigure
from controller.db.engine import Database
from controller.fleet.models import Node

COLLECT_SECONDS: Final = 300.0
_GAUGES: Final[Mapping[str, str]] = {
    "disk_bytes": "disk_bytes",
    "inodes": "inodes",
    "memory_bytes": "memory_bytes",
    "processes_max": "processes",
}
"""Key of a limit to the last word of the gauge `accounts.NAME.WORD` (agent/link)."""
_OF_SLICE: Final = frozenset({"memory_bytes", "processes_max"})
"""An account that sleeps has no slice, so its node says nothing of these: nothing is used."""


class Sample(Protocol):
    """What a node said last (controller.fleet.nodes.metrics)."""

    @property
    def at(self) -> datetime: ...

    @property
    def gauges(self) -> dict[str, float]: ...


FindSample = Callable[[AsyncSession, str], Awaitable[Sample | None]]
"""By the node's id; None: it said nothing for too long."""


async def collect_figures(database: Database, find_sample: FindSample, now: datetime) -> int:
    """Keep what the nodes say now, a node in a transaction; how many accounts they spoke of."""
    async with database.read() as session:
        is_new_month = await is_turning(session, now)
    if is_new_month:
        async with database.write() as session:
            await turn_month(session, now)
    async with database.read() as session:
        node_ids = list(await session.scalars(select(Node.id).where(Node.is_connected.is_(True)).order_by(Node.id)))
    count = 0
    for node_id in node_ids:
        async with database.read() as session:
            sample = await find_sample(session, node_id)
        if sample is None:
            continue
        found, readings = parse_figures(sample.gauges), parse_meters(sample.gauges, now)
        if found or readings:
            async with database.write() as session:
                kept = await _keep(session, node_id, found, sample.at)
                count += max(kept, await keep_meters(session, node_id, readings, now))
    return count


def parse_figures(gauges: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Name of an account to key of a limit to how much. Only accounts whose home was counted already."""
    found: dict[str, dict[str, int]] = {}
    keys = {word: key for key, word in _GAUGES.items()}
    for gauge, value in gauges.items():
        kind, _, rest = gauge.partition(".")
        name, _, word = rest.partition(".")
        if kind == "accounts" and name and word in keys and 0 <= value <= MAX_BYTES:
            found.setdefault(name, {})[keys[word]] = int(value)
    return {name: values for name, values in found.items() if "disk_bytes" in values}


async def _keep(session: AsyncSession, node_id: str, found: Mapping[str, Mapping[str, int]], at: datetime) -> int:
    """A node speaks of its own accounts only, whatever names it gives."""
    statement = select(Account).where(Account.node_id == node_id, Account.deleted_at.is_(None))
    accounts = {account.name: account.id for account in await session.scalars(statement) if account.name in found}
    known = await session.scalars(select(AccountFigure).where(AccountFigure.account_id.in_(accounts.values())))
    rows = {row.account_id: row for row in known}
    for name, account_id in accounts.items():
        row = rows.get(account_id)
        if row is None:
            row = AccountFigure(account_id=account_id)
            session.add(row)
        row.sampled_at = at
        for key in _GAUGES:
            value = found[name].get(key, 0 if key in _OF_SLICE else None)
            if value is not None:
                setattr(row, key, value)
    return len(accounts)


def _count(key: str) -> Count:
    column = getattr(AccountFigure, key)

    async def count(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
        statement = select(AccountFigure.account_id, column).where(
            AccountFigure.account_id.in_(account_ids), column.is_not(None)
        )
        return {row[0]: row[1] for row in await session.execute(statement)}

    return count


MEASURED_LIMITS: Final = (
    LimitKind(
        key="memory_bytes", title="Memory", unit="bytes", count=_count("memory_bytes"), maximum=MAX_BYTES,
        is_node_enforced=True, is_measured=True, is_passing=True,
    ),
    LimitKind(
        key="processes_max", title="Processes", unit="processes", count=_count("processes_max"),
        is_node_enforced=True, is_measured=True, is_passing=True,
    ),
    LimitKind(
        key="disk_bytes", title="Disk", unit="bytes", count=_count("disk_bytes"), maximum=MAX_BYTES,
        is_node_enforced=True, is_measured=True,
    ),
    LimitKind(
        key="inodes", title="Files and folders", unit="inodes", count=_count("inodes"), maximum=MAX_BYTES,
        is_measured=True,
    ),
    LimitKind(
        key="bandwidth_bytes", title="Traffic in a month", unit="bytes", count=_count("bandwidth_bytes"),
        maximum=MAX_BYTES, is_measured=True, is_passing=True, is_monthly=True,
    ),
    LimitKind(
        key="cpu_seconds", title="Processor time in a month", unit="seconds", count=_count("cpu_seconds"),
        maximum=MAX_BYTES, is_measured=True, is_passing=True, is_monthly=True,
    ),
)  # fmt: skip
