"""Connections for prepared statements, beside SQLAlchemy's pool: kept open, and used without anything in between."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

import asyncpg  # type: ignore[import-untyped] # has no types
from sqlalchemy import Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from controller.db.prepared import POSTGRESQL, SQLITE, Driver
from controller.db.sqlite_driver import in_thread

BUSY_SECONDS: Final = 5.0
"""How long another process may write; as busy_timeout."""
_BUSY_PAUSE_SECONDS: Final = 0.005
_POOL_MAX: Final = 4
_COMMAND_SECONDS: Final = 30.0
SERVER_SETTINGS: Final = {"idle_in_transaction_session_timeout": "8s"}
"""A process that is stopped in the middle of a transaction must not hold up all the others: the server ends it. It may
have several that wait for their turn, and each gets it and keeps it for so long, one after the other."""


class HotConnections(Protocol):
    """What `Database.hot` needs; one class for each database."""

    def transaction(self) -> AbstractAsyncContextManager[Driver]:
        """A write transaction; driver errors come out as SQLAlchemy's OperationalError."""
        ...

    def reading(self) -> AbstractAsyncContextManager[Driver]:
        """For one query outside of a transaction."""
        ...

    async def close(self) -> None: ...


class _SqliteDriver:
    dialect: Dialect = SQLITE

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return self._connection.execute(sql, values).fetchall()

    async def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)


class HotSqlite:
    """One connection; `Database` lets one task at a time write anyway."""

    def __init__(self, path: str, pragmas: Sequence[str]) -> None:
        self._path, self._pragmas = path, pragmas
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Driver]:
        """Everything on disk when the block has ended."""
        with _as_sqlalchemy_error(sqlite3.Error):
            connection = self._connection or self._open()
            self._connection = connection
            await _begin(connection)
            try:
                yield _SqliteDriver(connection)
            except BaseException:
                connection.rollback()
                raise
            try:
                await in_thread(connection.commit)
            except BaseException:
                self._drop()
                raise

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in self._pragmas:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA busy_timeout=0")  # nothing may wait in the event loop; see _begin
        return connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Driver]:
        """A connection of its own: it must not see what is not committed."""
        with _as_sqlalchemy_error(sqlite3.Error):
            self._reader = self._reader or self._open()
            yield _SqliteDriver(self._reader)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """Close; a later transaction opens it again."""
        self._drop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


async def _begin(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return


class _PostgresqlDriver:
    dialect: Dialect = POSTGRESQL

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await self.connection.fetch(sql, *values)
        return rows

    async def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self.connection.executemany(sql, rows)


_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    OSError,
)


class HotPostgresql:
    """A few connections of our own; each keeps its prepared statements."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_PostgresqlDriver]:
        """Committed when the block has ended."""
        async with self.reading() as driver, driver.connection.transaction():
            yield driver

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[_PostgresqlDriver]:
        """One of the connections."""
        with _as_sqlalchemy_error(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pool = self._pool or await self._open()
            try:
                async with pool.acquire(timeout=_COMMAND_SECONDS) as connection:
                    yield _PostgresqlDriver(connection)
            except _LOST:
                self._drop(pool)
                raise

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                options = self._engine.dialect.create_connect_args(self._engine.url)[1]
                self._pool = await asyncpg.create_pool(
                    **options,
                    min_size=1,
                    max_size=_POOL_MAX,
                    command_timeout=_COMMAND_SECONDS,
                    server_settings=SERVER_SETTINGS,
                    reset=_leave_as_it_is,
                    init=_read_json,
                )
            return self._pool

    def _drop(self, pool: Any) -> None:
        """A server that went away leaves a pool whose connections are all dead, and which hands them out one by one."""
        if self._pool is pool:
            self._pool = None
        pool.terminate()

    async def close(self) -> None:
        """Close; a later transaction opens it again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()


async def _read_json(connection: Any) -> None:
    """SQLAlchemy expects values, as on its own connections: its asyncpg dialect sets the same codecs."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=str, decoder=json.loads, schema="pg_catalog")


async def _leave_as_it_is(_connection: Any) -> None:
    """Nothing here changes a session's settings, so the round trip that would reset them is saved."""


@contextmanager
def _as_sqlalchemy_error(*kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise OperationalError("prepared statement", None, error) from error
