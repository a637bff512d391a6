"""One engine, two kinds of transaction: read and write.

On SQLite a write transaction must begin with BEGIN IMMEDIATE: a deferred one that reads and then writes loses updates
or fails with "database is locked" at once. Source: https://www.sqlite.org/lang_transaction.html; measured before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # a job or audit entry that was answered must survive a power cut
    "busy_timeout=5000",
    "foreign_keys=ON",
    "cache_size=-32000",
    "temp_store=MEMORY",
)


class Database:
    """Opens read and write transactions. `url` is sqlite+aiosqlite:///path or postgresql+asyncpg://..."""

    def __init__(self, url: str) -> None:
        self.engine: AsyncEngine = create_async_engine(url, pool_pre_ping=url.startswith("postgresql"))
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        self._write_engine = self.engine.execution_options(is_write=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are thrown away."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        async with AsyncSession(self._write_engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.isolation_level = None  # SQLAlchemy's begin event below decides, not the driver


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
