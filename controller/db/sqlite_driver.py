"""SQLite for the event loop: a statement runs where it is awaited; only what may wait for a disk or a lock does not.

aiosqlite hands each of the four calls that make a statement to a thread and back, which costs ten times what SQLite
needs for it: a job's life took 70 ms of processor time, and half of it without the detour (measured on one machine).
So a statement runs at once; COMMIT (fsync) and BEGIN IMMEDIATE (another process may be writing) go to a thread. The
price is that a slow query stops the loop while it runs: queries here go along an index or end with a LIMIT.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection, AsyncAdapt_dbapi_cursor
from sqlalchemy.util.concurrency import await_

T = TypeVar("T")

BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
_THREADS: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sqlite")


class DirectCursor(AsyncAdapt_dbapi_cursor):
    """A cursor whose rows are all there once the statement has run."""

    __slots__ = ()

    _awaitable_cursor_close = False

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        """Run one statement."""
        cursor: Any = self._cursor
        if operation == BEGIN_WRITE:
            await_(in_thread(lambda: cursor.execute(operation)))
            return self
        await_(_nothing())
        cursor.execute(operation, () if parameters is None else parameters)
        if cursor.description is not None:
            self._rows = deque(cursor.fetchall())
        return self

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        """Run one statement for each set of parameters."""
        cursor: Any = self._cursor
        await_(_nothing())
        return cursor.executemany(operation, seq_of_parameters)


class DirectConnection(AsyncAdapt_dbapi_connection):
    """What SQLAlchemy's pool holds."""

    __slots__ = ()

    _cursor_cls = DirectCursor
    _ss_cursor_cls: Any = DirectCursor
    _connection: Any

    @property
    def isolation_level(self) -> str | None:
        """None: no transaction begins by itself."""
        level: str | None = self._connection.isolation_level
        return level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        self._connection.isolation_level = value

    def commit(self) -> None:
        """On disk when it returns."""
        if self._connection.in_transaction:
            await_(in_thread(self._connection.commit))

    def rollback(self) -> None:
        """Give up what was not committed."""
        if self._connection.in_transaction:
            self._connection.rollback()

    def close(self) -> None:
        """Close; the last one of a database also empties its write-ahead log."""
        self._connection.close()

    def terminate(self) -> None:
        """Close from wherever it was noticed that nobody uses it any more."""
        self._connection.close()

    def create_function(self, *arguments: Any, **options: Any) -> None:
        """SQLAlchemy brings SQLite's missing REGEXP."""
        self._connection.create_function(*arguments, **options)


class DirectDbapi:
    """The module that SQLAlchemy's aiosqlite dialect works with, without aiosqlite."""

    paramstyle: Final = "qmark"
    has_stop: Final = True
    sqlite: Final = sqlite3

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *arguments: Any, **options: Any) -> DirectConnection:
        """Open a file; the dialect's own options are sqlite3's."""
        options["check_same_thread"] = False  # one task at a time uses it, here or in the thread it waits for
        return DirectConnection(self, sqlite3.connect(*arguments, **options))


async def _nothing() -> None:
    """SQLAlchemy refuses a driver that never awaits (AwaitRequired), taking it for one that is not async."""


async def in_thread(work: Callable[[], T]) -> T:
    """Run what may wait. A cancellation waits for its end, too: nobody else may use the connection meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(_THREADS, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
