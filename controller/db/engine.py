"""One engine, two kinds of transaction: read and write.

On SQLite a write transaction must begin with BEGIN IMMEDIATE: a deferred one that reads and then writes loses updates
or fails with "database is locked" at once. Source: https://www.sqlite.org/lang_transaction.html; measured before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from controller.db.criteria import NarrowableSession
from controller.db.hot import SERVER_SETTINGS, HotConnections, HotPostgresql, HotSqlite
from controller.db.prepared import Driver, Prepared
from controller.db.sqlite_driver import DirectDbapi

TURN_SECONDS: Final = 30.0
"""Longer than any transaction may take; whoever waits longer is told that the database does not answer."""

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
        self.is_sqlite = url.startswith("sqlite")
        shared_server = {"pool_pre_ping": True, "connect_args": {"server_settings": SERVER_SETTINGS}}
        options: dict[str, Any] = {"module": DirectDbapi()} if self.is_sqlite else shared_server
        # Several times quicker than the standard library's, and lists read a document or two of each row.
        self.engine: AsyncEngine = create_async_engine(url, json_deserializer=msgspec.json.decode, **options)
        self._turn = asyncio.Lock()
        self.busy_count = 0
        """Write transactions that are open or wait for their turn; many: whoever can wait should not come now."""
        self._hot: HotConnections = (
            HotSqlite(_path_of(self.engine.url), _PRAGMAS) if self.is_sqlite else HotPostgresql(self.engine)
        )
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine.sync_engine, "do_connect", _connect_postgresql)
        self._write_engine = self.engine.execution_options(is_write=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are thrown away."""
        async with AsyncSession(self.engine, sync_session_class=NarrowableSession, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        async with (
            self._its_turn(),
            AsyncSession(self._write_engine, sync_session_class=NarrowableSession, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        """SQLite has one writer and no queue for it: who comes at the wrong moment waits for ever. So we queue here."""
        self.busy_count += 1
        try:
            if not self.is_sqlite:
                yield
                return
            await self._take_turn()
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self.busy_count -= 1

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise SQLAlchemyTimeoutError(f"no turn to write within {TURN_SECONDS:.0f} s") from error

    @asynccontextmanager
    async def hot(self) -> AsyncIterator[Driver]:
        """A write transaction for the job engine's prepared statements (controller.db.prepared).

        Raises:
            SQLAlchemyError: As in any other transaction.
        """
        async with self._its_turn(), self._hot.transaction() as driver:
            yield driver

    async def glance(self, statement: Prepared, **values: Any) -> list[Any]:
        """The rows of a prepared query, as they are committed now."""
        async with self._hot.reading() as driver:
            return await statement.fetch(driver, **values)

    async def close(self) -> None:
        """Close all connections."""
        await self._hot.close()
        await self.engine.dispose()


def _path_of(url: URL) -> str:
    return url.database or ":memory:"


def _connect_postgresql(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    """A server that is away shows as a plain OSError, which nobody takes for an answer of the database."""
    try:
        return dialect.connect(*arguments, **options)
    except OSError as error:
        raise OperationalError("connect", None, error) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.isolation_level = None  # SQLAlchemy's begin event below decides, not the driver


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
